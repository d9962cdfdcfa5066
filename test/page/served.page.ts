/** `dmalink ui`: the page and its traces, to this machine alone, and nothing else. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { CHROMIUM, expectQuiet, startBrowser, watchedPage } from "./browser.ts";

const TRACE = "test/golden/traces/strict-inflight.dat.gz";

/** The program serving; its address, and how it ends. */
async function serving(...words: string[]) {
  const child = spawn(process.execPath, ["dist/apps/cli/main.js", "ui", "--no-open", ...words]);
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return {
    url: String(line).trim(),
    async end(): Promise<number | null> {
      child.kill("SIGINT");
      const [code] = (await once(child, "exit")) as [number | null];
      return code;
    },
  };
}

/** The status of a request that is written as it is: no client makes a path tidy. */
const statusOf = (url: string, path: string, options: { method?: string; host?: string } = {}): Promise<number> =>
  new Promise((done, fail) => {
    const { hostname, port } = new URL(url);
    const { method = "GET", host } = options;
    request({ hostname, port, path, method, headers: host === undefined ? {} : { host } }, (response) => {
      response.resume();
      done(response.statusCode!);
    })
      .on("error", fail)
      .end();
  });

test("only what is named is served, by its token, to reads, under the loopback's name", async () => {
  const { url, end } = await serving(TRACE);
  const { pathname } = new URL(url);
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/[\w-]{24}\/$/);
  expect(await statusOf(url, pathname)).toBe(200);
  expect(await statusOf(url, `${pathname}trace/0`)).toBe(200);
  for (const path of [
    "/",
    "/index.html",
    `${pathname}trace/1`,
    `${pathname}../package.json`,
    `${pathname}%2e%2e/package.json`,
    `${pathname}..%2fpackage.json`,
    `${pathname}/etc/passwd`,
    `${pathname}apps/cli/main.js`,
  ])
    expect({ path, status: await statusOf(url, path) }).toEqual({ path, status: 404 });
  for (const method of ["POST", "PUT", "DELETE"]) expect(await statusOf(url, pathname, { method })).toBe(405);
  expect(await statusOf(url, pathname, { host: "evil.example" })).toBe(403);
  expect(await end()).toBe(0);
});

describe.skipIf(CHROMIUM === undefined)("served", () => {
  test("the page opens what the command was given, and asks nobody else", async () => {
    const { url, end } = await serving(TRACE, "test/golden/faults/fault-use-after-unmap.dat.gz");
    const browser = await startBrowser();
    try {
      const watched = await watchedPage(browser);
      await watched.page.goto(url);
      await watched.page.waitForSelector("[data-judged]");
      expect(await watched.page.locator(".tiles").textContent()).toContain("22,948");
      await watched.page.getByLabel("open trace").selectOption("fault-use-after-unmap.dat.gz");
      await expect.poll(() => watched.page.locator(".tiles").textContent()).not.toContain("22,948");
      expectQuiet(watched, url);
    } finally {
      await browser.close();
      expect(await end()).toBe(0);
    }
  });

  test("with --follow, what is written behind the end of the trace comes to the page by itself", async () => {
    const folder = mkdtempSync(join(tmpdir(), "dmalink-follow-"));
    const file = join(folder, "trace.txt");
    const lines = gunzipSync(readFileSync("test/golden/traces/lazy-mix7030-ftrace.ftrace.txt.gz"))
      .toString()
      .split("\n");
    writeFileSync(file, `${lines.slice(0, 1000).join("\n")}\n`);
    const { url, end } = await serving("--follow", file);
    const browser = await startBrowser();
    try {
      const { page } = await watchedPage(browser);
      await page.goto(url);
      await page.waitForSelector("[data-judged]");
      const events = async (): Promise<number> =>
        Number((await page.locator(".tiles li").nth(1).locator("b").textContent())!.replaceAll(",", ""));
      const before = await events();
      appendFileSync(file, `${lines.slice(1000, 2000).join("\n")}\n`);
      await expect.poll(events, { timeout: 30_000 }).toBe(before + 1000);
    } finally {
      await browser.close();
      await end();
      rmSync(folder, { recursive: true });
    }
  });
});
