/** The machine, driven by mouse and by keyboard in a real browser, from a disk. */
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  CHROMIUM,
  expectQuiet,
  PAGE_ON_DISK,
  startBrowser,
  violations,
  type WatchedPage,
  watchedPage,
} from "./browser.ts";

/** Workers start, and others work beside. */
const SLOW = { timeout: 15_000 };

describe.skipIf(CHROMIUM === undefined)("the machine", () => {
  let browser: Browser;
  let watched: WatchedPage;
  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(() => browser?.close());
  beforeEach(async () => {
    watched = await watchedPage(browser);
    await watched.page.goto(`${PAGE_ON_DISK}#/machine`);
    await watched.page.waitForSelector("[data-standing]");
  });
  afterEach(async () => {
    expectQuiet(watched);
    await watched.page.context().close();
  });

  const cells = (state: string): Promise<number> => watched.page.locator(`.machine-cell.${state}`).count();
  const step = (title: string): Promise<void> => watched.page.getByRole("button", { name: title, exact: true }).click();
  const settled = (state: string, count: number): Promise<void> => expect.poll(() => cells(state), SLOW).toBe(count);

  test("goes through a lesson by mouse, back, and where a link says after a reload", async () => {
    const { page } = watched;
    await step("Map each page in one shot");
    await settled("mapped", 4);
    await step("The device reads through each");
    await step("Unmap them");
    await settled("mapped", 0);
    await step("Back");
    await settled("mapped", 4);
    await page.waitForURL(/step=2$/);
    await page.reload();
    await settled("mapped", 4);
  });

  test("is worked by the keyboard alone: a step, and buttons that take on from it", async () => {
    const { page } = watched;
    const press = async (name: string): Promise<void> => {
      await page.getByRole("button", { name, exact: true }).focus();
      await page.keyboard.press("Enter");
    };
    await press("reserve");
    await settled("empty", 4);
    await press("link");
    await settled("unsynced", 1);
    await press("sync");
    await settled("mapped", 1);
    await press("writes");
    await expect.poll(() => page.locator(".machine-cache li").count(), SLOW).toBe(1);
    await press("unlink, lazy");
    await settled("stale", 1);
    await press("flush");
    await settled("stale", 0);
    await press("destroy");
    await settled("empty", 0);
    expect(await page.locator(".machine-steps code").allTextContents()).toContain("range.sync()");
  });

  test("breaks on purpose, and says what the library said, and where", async () => {
    const { page } = watched;
    await step("Link to an address twice");
    await page.waitForURL(/broken=0/);
    await step("Run");
    await expect.poll(() => page.getByRole("alert").textContent(), SLOW).toMatch(/^line 35: .*ERR_DMA_MAP, EADDRINUSE/);
  });

  test("runs what is written in the editor, shows an error at its line, and ends what does not end", async () => {
    const { page } = watched;
    await step("Open in the editor");
    const editor = page.getByRole("textbox", { name: "program" });
    const write = async (text: string): Promise<void> => {
      await editor.click();
      await page.keyboard.press("Control+a");
      await page.keyboard.insertText(text);
      await page.keyboard.press("Control+Enter");
    };
    await write('import { hex } from "dmalink";\nconsole.log("it is " + hex(255));');
    await expect.poll(() => page.locator(".machine-log .said").textContent(), SLOW).toBe("it is 0xff");
    await write('import { Dma } from "dmalink";\n\nnew Dma().mapPhys(0, -1, "to-device");');
    await expect.poll(() => page.getByRole("alert").textContent(), SLOW).toMatch(/^line 3: .*ERR_DMA_LENGTH/);
    await expect.poll(() => page.locator(".machine-line-failed").textContent(), SLOW).toMatch(/mapPhys/);
    await write("const two = ;\n");
    await expect.poll(() => page.getByRole("alert").textContent(), SLOW).toMatch(/^line 1: SyntaxError/);
    watched.complaints.length = 0; // the browser says of a broken script that it is one
    await write("for (;;);");
    await expect.poll(() => page.getByRole("alert").textContent(), SLOW).toMatch(/within 4 seconds/);
    await write('console.log("alive");');
    await expect.poll(() => page.locator(".machine-log .said").textContent(), SLOW).toBe("alive");
  });

  test.each([
    ["a wide screen", 1600, false],
    ["a telephone, dark", 360, true],
  ] as const)("axe-core finds nothing wrong on %s, and nothing is wider", async (_, width, dark) => {
    const own = await watchedPage(browser, { width, height: 900, dark });
    for (const place of [
      "two-steps&step=7",
      "lazy&step=4",
      "bounce&step=3",
      "peers&step=4",
      "user-pointer&step=8",
      "migration&step=1",
    ]) {
      await own.page.goto(`${PAGE_ON_DISK}#/machine?lesson=${place}`);
      await own.page.reload();
      await expect.poll(() => own.page.locator(".machine-steps li").count(), SLOW).toBe(Number(place.at(-1)));
      expect(await violations(own), place).toEqual([]);
      expect(
        await own.page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
        place,
      ).toBeLessThanOrEqual(0);
    }
    await own.page.context().close();
  });
});
