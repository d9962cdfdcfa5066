/** Each view of the page, driven by mouse and by keyboard as a user does; and what must not happen, whatever is opened. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  CHROMIUM,
  downloaded,
  expectQuiet,
  goTo,
  openInPage,
  PAGE_ON_DISK,
  startBrowser,
  violations,
  type WatchedPage,
  watchedPage,
} from "./browser.ts";

const TRACE = "test/golden/traces/strict-inflight.dat.gz";
const FAULT = "test/golden/faults/fault-use-after-unmap.dat.gz";
const SNAPSHOT = ["legacy-iommufd-2m.snap.gz", "legacy-iommufd-2m.json"].map((name) => `test/golden/snapshots/${name}`);

describe.skipIf(CHROMIUM === undefined)("the page", () => {
  let browser: Browser;
  let watched: WatchedPage;
  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(() => browser?.close());
  beforeEach(async () => {
    watched = await watchedPage(browser);
    await watched.page.goto(PAGE_ON_DISK);
  });
  afterEach(async () => {
    expectQuiet(watched);
    await watched.page.context().close();
  });

  /** How often the picture of the view was drawn sharp. */
  const drawn = async (): Promise<number> =>
    Number(await watched.page.locator("canvas.picture").getAttribute("data-drawn"));
  const drawnAgain = async (act: () => Promise<unknown>): Promise<void> => {
    await expect.poll(drawn).toBeGreaterThan(0);
    const before = await drawn();
    await act();
    await expect.poll(drawn).toBeGreaterThan(before);
  };
  /** Pixels of the picture that are not its ground. */
  const inked = (): Promise<number> =>
    watched.page.locator("canvas.picture").evaluate((element) => {
      const canvas = element as HTMLCanvasElement;
      const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
      let n = 0;
      for (let at = 3; at < data.length; at += 4) if (data[at]! > 60) n++;
      return n;
    });
  const at = (name: string): string | null => new URLSearchParams(watched.page.url().split("?")[1]).get(name);

  test("the timeline zooms and moves by Perfetto's keys, by wheel and by dragging; the URL says where it is", async () => {
    const { page } = watched;
    await openInPage(page, TRACE);
    await page.getByRole("link", { name: "Timeline", exact: true }).click();
    const canvas = page.locator("canvas.picture");
    await drawnAgain(() => canvas.press("w"));
    expect(await inked()).toBeGreaterThan(5000);
    await expect.poll(() => at("from")).not.toBeNull();
    const span = (): number => Number(at("to")) - Number(at("from"));
    const before = span();
    await canvas.press("w");
    await expect.poll(span).toBeLessThan(before * 0.8);
    const from = Number(at("from"));
    await canvas.press("d");
    await expect.poll(() => Number(at("from"))).toBeGreaterThan(from);
    await canvas.press("f");
    await expect.poll(() => at("from")).toBeNull();
    const box = (await canvas.boundingBox())!;
    await page.mouse.move(box.x + 600, box.y + 120);
    await page.keyboard.down("Control");
    await page.mouse.wheel(0, -400);
    await page.keyboard.up("Control");
    await expect.poll(() => at("from")).not.toBeNull();
    const start = Number(at("from"));
    await page.mouse.down();
    await page.mouse.move(box.x + 300, box.y + 120, { steps: 4 });
    await page.mouse.up();
    await expect.poll(() => Number(at("from"))).toBeGreaterThan(start);
  });

  test("in the timeline a stretch is selected, an event is searched, arrows go on, and a track is pinned", async () => {
    const { page } = watched;
    await openInPage(page, TRACE);
    await goTo(page, "#/timeline");
    const canvas = page.locator("canvas.picture");
    await expect.poll(drawn).toBeGreaterThan(0);
    const box = (await canvas.boundingBox())!;
    await page.mouse.move(box.x + 200, box.y + 8);
    await page.mouse.down();
    await page.mouse.move(box.x + 500, box.y + 8, { steps: 3 });
    await page.mouse.up();
    await expect.poll(() => page.locator(".notice").last().textContent()).toMatch(/selected: [\d,]+ events \(/);
    await canvas.press("/");
    await page.keyboard.type("dma_unmap_phys");
    await page.keyboard.press("Enter");
    await expect.poll(() => at("mark")).not.toBeNull();
    const mark = Number(at("mark"));
    await canvas.press("ArrowRight");
    await expect.poll(() => Number(at("mark"))).toBeGreaterThan(mark);
    await page.getByText("Pin tracks to the top").click();
    await page.getByRole("button", { name: "CPU 1" }).click();
    await expect.poll(() => at("pin")).toBe("cpu:1");
    await expect
      .poll(() => page.getByRole("region", { name: "mappings in this stretch of time" }).textContent())
      .toContain("0000:00:04.0");
  });

  test("the address space shows what is under the pointer, colours by size, and is saved as PNG and SVG", async () => {
    const { page } = watched;
    await openInPage(page, TRACE);
    await goTo(page, "#/space");
    await expect.poll(drawn).toBeGreaterThan(0);
    expect(await inked()).toBeGreaterThan(3000);
    const box = (await page.locator("canvas.picture").boundingBox())!;
    await page.mouse.move(box.x + 580, box.y + 132);
    await expect.poll(() => page.locator(".facts").textContent()).toMatch(/0xff[0-9a-f]+ .*one-shot/);
    await drawnAgain(() => page.locator(".tools select").nth(1).selectOption("size"));
    expect(at("by")).toBe("size");
    expect((await downloaded(page, "PNG")).subarray(1, 4).toString()).toBe("PNG");
    expect(String(await downloaded(page, "SVG"))).toMatch(/^<svg [\s\S]*<image [\s\S]*<\/svg>\n$/);
    await page.locator("canvas.picture").press("q");
    await expect.poll(() => at("low")).not.toBeNull();
  });

  test("from a dropped trace to the owner of a faulted address, and from there to its place", async () => {
    const { page } = watched;
    await openInPage(page, FAULT);
    await page.getByRole("link", { name: /device-fault/ }).click();
    await expect.poll(() => page.locator(".message").textContent()).toContain("was unmapped 99.7 ms before by sh-164");
    expect(await page.getByRole("img", { name: /^mapped at .* unmapped at .* first fault at/ }).count()).toBe(1);
    await page.getByRole("link", { name: "Show in the address space" }).click();
    await expect.poll(drawn).toBeGreaterThan(0);
    expect(at("device")).toBe("0000:00:06.0");
  });

  test("back, forward and a link keep the view; a reload asks for the file again and comes back to the same place", async () => {
    const { page } = watched;
    await openInPage(page, TRACE);
    await page.getByRole("link", { name: "Findings", exact: true }).click();
    await page.getByRole("link", { name: "Timeline", exact: true }).click();
    await page.goBack();
    expect(page.url()).toContain("#/findings");
    await page.goForward();
    await page.locator("canvas.picture").press("w");
    await expect.poll(() => at("from")).not.toBeNull();
    const url = page.url();
    await page.reload();
    expect(page.url()).toBe(url);
    await openInPage(page, TRACE);
    await expect.poll(drawn).toBeGreaterThan(0);
    expect(page.url()).toBe(url);
  });

  test("strategies are compared in a worker; a price changes the prediction without another replay", async () => {
    const { page } = watched;
    await openInPage(page, "examples/traces/strict-mix7030.dat.gz");
    await goTo(page, "#/strategies");
    await page.waitForSelector("[data-compared]", { timeout: 100_000 });
    const row = page.getByRole("row", { name: /^one-shot/ });
    expect(await row.textContent()).toContain("one-shot23,38715328,95011,693");
    const before = await row.textContent();
    await page.getByRole("slider", { name: /invalidation/ }).fill("5000");
    await expect.poll(() => row.textContent()).not.toBe(before);
    expect(at("invalidationNs")).toBe("5000");
  });

  test("page tables open as a tree, say who maps a frame, and two are compared", async () => {
    const { page } = watched;
    await goTo(page, "#/tables");
    await page.setInputFiles('input[data-for="tables"]', SNAPSHOT);
    await page.waitForSelector('[data-tables="1"]');
    expect(await page.locator(".tree summary").first().textContent()).toMatch(/^level \d table at 0x/);
    const leaf = await page.locator(".tree li .mono", { hasText: "→" }).first().textContent();
    await page.getByPlaceholder("0x12345000").fill(leaf!.split("→ ")[1]!);
    await expect.poll(() => page.locator(".tools [role=status]").textContent()).toMatch(/^0000:.* at 0x/);
    await page.setInputFiles('input[data-for="tables"]', SNAPSHOT);
    await page.waitForSelector('[data-tables="2"]');
    await expect.poll(() => page.locator("main").textContent()).toContain("Nothing: every device maps the same.");
  });

  test("a query counts what the statistics count, and says what is no condition", async () => {
    const { page } = watched;
    await openInPage(page, TRACE);
    await goTo(page, "#/query?q=device%3D0000%3A00%3A04.0");
    await expect.poll(() => page.locator("main").textContent()).toContain("2,182 mappings, 152.4 MiB");
    await page.getByLabel("conditions").fill("size>3");
    await page.getByRole("button", { name: "Find" }).click();
    await expect.poll(() => page.locator(".notice.error").textContent()).toContain('"size>3" is no condition');
  });

  test("names in a trace stay text", async () => {
    const { page } = watched;
    const folder = mkdtempSync(join(tmpdir(), "dmalink-page-"));
    const hostile = "<img/src=x/onerror=alert(1)>";
    const file = join(folder, `${"<b>name"}.txt`);
    const text = gunzipSync(readFileSync("test/golden/traces/lazy-mix7030-ftrace.ftrace.txt.gz")).toString("utf8");
    writeFileSync(file, text.replaceAll("fio", hostile).split("\n").slice(0, 3000).join("\n"));
    page.on("dialog", (dialog) => expect.unreachable(`a name opened a dialog: ${dialog.message()}`));
    await openInPage(page, file);
    for (const view of ["overview", "findings", "timeline", "space", "query"]) {
      await goTo(page, `#/${view}`);
      await page.waitForTimeout(300);
      expect(await page.locator("main img").count()).toBe(0);
    }
    expect(await page.locator("main").textContent()).toContain(hostile.slice(0, 15));
    rmSync(folder, { recursive: true });
  });

  test("a damaged file shows what was before the damage and says so; a foreign one is refused in words", async () => {
    const { page } = watched;
    const folder = mkdtempSync(join(tmpdir(), "dmalink-page-"));
    const whole = gunzipSync(readFileSync(TRACE));
    writeFileSync(join(folder, "cut.dat"), whole.subarray(0, Math.floor(whole.length * 0.6)));
    await openInPage(page, join(folder, "cut.dat"));
    await expect.poll(() => page.locator(".notice.warning").first().textContent()).toMatch(/damaged|lost/);
    writeFileSync(join(folder, "foreign.png"), Buffer.from("89504e470d0a1a0a0000000d49484452", "hex"));
    await page.reload();
    await page.setInputFiles('input[type="file"]', join(folder, "foreign.png"));
    await expect.poll(() => page.locator(".notice.error").textContent()).toMatch(/PNG|not a trace|no trace/i);
    rmSync(folder, { recursive: true });
  });

  for (const [size, width] of Object.entries({ telephone: 360, desk: 1280, wall: 3840 }))
    test(`axe-core finds nothing wrong in any view, and nothing is wider than a ${size}`, async () => {
      const { page } = watched;
      await page.setViewportSize({ width, height: 900 });
      expect(await violations(watched)).toEqual([]);
      await openInPage(page, FAULT);
      for (const view of ["overview", "findings", "timeline", "space", "query", "tables", "strategies"]) {
        await goTo(page, `#/${view}`);
        await page.waitForTimeout(400);
        expect({ view, found: await violations(watched) }).toEqual({ view, found: [] });
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        expect({ view, over: Math.max(0, over) }).toEqual({ view, over: 0 });
      }
    });
});
