/** Every recording of the repository, opened in the page: the numbers are the terminal's, whatever the form. */
import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { dmalink } from "../cli/in-process.ts";
import { CHROMIUM, downloaded, expectQuiet, openInPage, PAGE_ON_DISK, startBrowser, watchedPage } from "./browser.ts";

const FOLDERS = ["traces", "forms", "faults", "attacks", "cases"];
/** Meta data and notes, snapshots of tables, and texts that are no traces of their own. */
const NO_TRACE = /\.(json|md|snap\.gz|steps\.txt\.gz)$|^README/;

const recordings = FOLDERS.flatMap((folder) =>
  readdirSync(join("test/golden", folder), { withFileTypes: true })
    .filter((entry) => entry.isFile() && !NO_TRACE.test(entry.name))
    .map(({ name }) => join("test/golden", folder, name)),
);

describe.skipIf(CHROMIUM === undefined)("a recording in the page has the terminal's numbers", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(() => browser?.close());

  test.for(recordings)("%s", async (file) => {
    const stats = await dmalink("stats", file, "--json", "--best-effort");
    const watched = await watchedPage(browser);
    const { page } = watched;
    try {
      await page.goto(PAGE_ON_DISK);
      if (stats.out === "") {
        // What the terminal refuses, the page refuses in the same words.
        await page.setInputFiles('input[type="file"]', file);
        const said = await page.locator(".notice.error").first().textContent();
        expect(stats.err).toContain(said!.replace(basename(file), "").replace(/^: /, "").slice(0, 40));
        return;
      }
      await openInPage(page, file);
      for (const command of ["stats", "check"]) {
        const said = JSON.parse((await dmalink(command, file, "--json", "--best-effort")).out);
        expect(JSON.parse(String(await downloaded(page, `${command}.json`)))).toEqual({
          ...said,
          file: basename(file),
        });
      }
      expectQuiet(watched);
    } finally {
      await page.context().close();
    }
  });
});
