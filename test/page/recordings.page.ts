/** Recordings of the repository (`DMALINK_EFFORT=2`: every one), opened in the page: the numbers are the terminal's, whatever the form. */
import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { dmalink } from "../cli/in-process.ts";
import { LONG } from "../effort.ts";
import {
  CHROMIUM,
  downloaded,
  expectQuiet,
  openInPage,
  PAGE_ON_DISK,
  startBrowser,
  type WatchedPage,
  watchedPage,
} from "./browser.ts";

const FOLDERS = ["traces", "forms", "faults", "attacks", "cases"];
/** Meta data and notes, snapshots of tables, and texts that are no traces of their own. */
const NO_TRACE = /\.(json|md|snap\.gz|steps\.txt\.gz)$|^README/;

const all = FOLDERS.flatMap((folder) =>
  readdirSync(join("test/golden", folder), { withFileTypes: true })
    .filter((entry) => entry.isFile() && !NO_TRACE.test(entry.name))
    .map(({ name }) => join("test/golden", folder, name)),
);

/** Every fifth by default, all of them in a long run. */
const recordings = all.filter((_, i) => LONG || i % 5 === 0);

describe.skipIf(CHROMIUM === undefined)("a recording in the page has the terminal's numbers", () => {
  let browser: Browser;
  let watched: WatchedPage;
  beforeAll(async () => {
    browser = await startBrowser();
    watched = await watchedPage(browser);
  });
  afterAll(() => browser?.close());

  test.for(recordings)("%s", async (file) => {
    const stats = await dmalink("stats", file, "--json", "--best-effort");
    const { page } = watched;
    await page.goto("about:blank");
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
      const { out } = await dmalink(command, file, "--json", "--best-effort");
      const said = JSON.parse(out.replaceAll(file, basename(file)));
      expect(JSON.parse(String(await downloaded(page, `${command}.json`)))).toEqual(said);
    }
    expectQuiet(watched);
  });
});
