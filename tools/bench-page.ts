/**
 * How quick the page is with a large trace, in a real browser: time to the numbers and to the first picture, frames while panning, memory.
 *
 *     npm run bench:page -- trace.dat         a trace of any size; tools/repeat-trace.ts makes large ones
 *
 * Figures, no judgement: they are of this machine, and of a browser that paints by the processor.
 */
import { chromium } from "playwright-core";
import { CHROMIUM, NO_BROWSER, PAGE_ON_DISK } from "../test/page/chromium.ts";

const [file] = process.argv.slice(2);
if (!file || CHROMIUM === undefined) {
  process.stderr.write(`${file ? NO_BROWSER : "usage: bench-page.ts TRACE"}\n`);
  process.exit(file ? 3 : 2);
}

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info"],
});
const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
await page.goto(`${PAGE_ON_DISK}#/overview`);
const start = performance.now();
const seconds = (): string => `${((performance.now() - start) / 1000).toFixed(2)} s`;
await page.setInputFiles('input[type="file"]', file);
await page.waitForSelector(".tiles", { timeout: 600_000 });
process.stdout.write(`numbers       ${seconds()}\n`);
await page.waitForSelector("[data-judged]", { timeout: 600_000 });
process.stdout.write(`judged        ${seconds()}\n`);
for (const view of ["timeline", "space"]) {
  const from = performance.now();
  await page.evaluate((to) => {
    location.hash = to;
  }, `#/${view}`);
  await page.waitForSelector("canvas.picture[data-drawn]", { timeout: 120_000 });
  process.stdout.write(`${view.padEnd(13)} ${((performance.now() - from) / 1000).toFixed(2)} s to its picture`);
  const frames = await page.evaluate(async () => {
    const canvas = document.querySelector<HTMLCanvasElement>("canvas.picture")!;
    const key = (name: string) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
    for (let i = 0; i < 4; i++) key("w");
    const times: number[] = [];
    let last = await new Promise<number>(requestAnimationFrame);
    for (let i = 0; i < 240; i++) {
      if (i % 4 === 0) key(i < 120 ? "d" : "a");
      const now = await new Promise<number>(requestAnimationFrame);
      times.push(now - last);
      last = now;
    }
    return times.sort((a, b) => a - b);
  });
  const at = (share: number): string => frames[Math.floor(frames.length * share)]!.toFixed(1);
  process.stdout.write(`; a frame while panning: median ${at(0.5)} ms, 99 % ${at(0.99)} ms\n`);
}
const client = await page.context().newCDPSession(page);
const { usedSize } = (await client.send("Runtime.getHeapUsage")) as { usedSize: number };
process.stdout.write(`page's heap   ${(usedSize / 2 ** 20).toFixed(0)} MiB\n`);
await browser.close();
