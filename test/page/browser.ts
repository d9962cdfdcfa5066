/**
 * A real browser for tests of the page: Debian's Chromium, by its path; nothing is downloaded.
 *
 * Idea: a page is watched from its first byte: every request that it makes, every error and every word on its console is kept, so that
 * a test can say that there was none.
 */
import { readFileSync } from "node:fs";
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
