/** The page, in a real browser: the little that every test run asks. All else: `npm run test:page`. */
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { dmalink } from "../cli/in-process.ts";
import {
  CHROMIUM,
  downloaded,
  expectQuiet,
  NO_BROWSER,
  openInPage,
  PAGE_ON_DISK,
  startBrowser,
  watchedPage,
} from "./browser.ts";

const TRACE = "test/golden/traces/strict-inflight.dat.gz";
/** What a visitor loads before a trace is opened. */
const MOST_ENTRY_BYTES = 200_000;

test("the page's entry is small", () => {
  const entry = ["index.html", "page.css", "page.js"].map((name) => gzipSync(readFileSync(`dist/web/${name}`)).length);
  expect(entry.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(MOST_ENTRY_BYTES);
});

describe.skipIf(CHROMIUM === undefined)(
  `the page in a browser${CHROMIUM === undefined ? ` (${NO_BROWSER})` : ""}`,
  () => {
    test("opened from a disk it says of a trace what the terminal says, and asks nobody for anything", async () => {
      const browser = await startBrowser();
      try {
        const watched = await watchedPage(browser);
        const { page } = watched;
        await page.goto(PAGE_ON_DISK);
        await openInPage(page, TRACE);
        for (const command of ["stats", "check"]) {
          const { out } = await dmalink(command, TRACE, "--json");
          const said = JSON.parse(out.replaceAll(TRACE, "strict-inflight.dat.gz"));
          expect(JSON.parse(String(await downloaded(page, `${command}.json`)))).toEqual(said);
        }
        expectQuiet(watched);
      } finally {
        await browser.close();
      }
    });
  },
);
