/**
 * A real browser for tests of the page: Debian's Chromium, by its path; nothing is downloaded.
 *
 * Idea: a page is watched from its first byte: every request that it makes, every error and every word on its console is kept, so that
 * a test can say that there was none.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type Browser, chromium, type Page } from "playwright-core";
import { expect } from "vitest";
import { CHROMIUM, NO_BROWSER, PAGE_ON_DISK } from "./chromium.ts";

export { CHROMIUM, NO_BROWSER, PAGE_ON_DISK };

/** Starts it. */
export const startBrowser = (): Promise<Browser> =>
  chromium.launch({ executablePath: CHROMIUM!, args: ["--no-sandbox", "--disable-gpu"] });

/** A page, and what was seen of it. */
export interface WatchedPage {
  readonly page: Page;
  /** Addresses of all that it asked for. */
  readonly requests: string[];
  /** Errors and warnings, its own and the browser's about it. */
  readonly complaints: string[];
}

/** A new page of `browser`, watched. */
export async function watchedPage(
  browser: Browser,
  options: { readonly width?: number; readonly height?: number; readonly dark?: boolean } = {},
): Promise<WatchedPage> {
  const { width = 1280, height = 800, dark = false } = options;
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: dark ? "dark" : "light",
    acceptDownloads: true,
  });
  const page = await context.newPage();
  const requests: string[] = [];
  const complaints: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  return { page, requests, complaints };
}

/** Opens `files` in the page and waits until they were judged. */
export async function openInPage(page: Page, files: string | string[]): Promise<void> {
  await page.setInputFiles('input[type="file"]', files);
  await page.waitForSelector("[data-judged]", { timeout: 60_000 });
}

/** Goes to another place of the page, as its links do. */
export async function goTo(page: Page, hash: string): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, hash);
}

/** The file that a button gives to the downloads. */
export async function downloaded(page: Page, button: string): Promise<Buffer> {
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: button, exact: true }).click(),
  ]);
  return readFileSync(await download.path());
}

/** Nothing was complained of, and nothing was asked of anybody. */
export function expectQuiet({ requests, complaints }: WatchedPage, own = "file:"): void {
  expect(complaints).toEqual([]);
  expect(
    requests.filter((url) => !url.startsWith(own) && !url.startsWith("blob:") && !url.startsWith("data:")),
  ).toEqual([]);
}

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe-core finds wrong on the page as it is. The page's own policy lets nobody add a script: it is run from outside. */
export async function violations({ page }: WatchedPage): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: { run(options: object): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> };
    };
    const found = await axe.run({ preload: false });
    return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
  });
}
