/** Where a browser is for tests and measurements of the page: Debian's Chromium, by its path; nothing is downloaded. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Where it is; `undefined`: nowhere known. */
export const CHROMIUM: string | undefined = process.env["DMALINK_CHROMIUM"] ?? PLACES.find((path) => existsSync(path));

/** Said by what is skipped without one. */
export const NO_BROWSER = "no Chromium here: apt-get install chromium, or DMALINK_CHROMIUM=PATH";

/** The built page, as a file on this disk. */
export const PAGE_ON_DISK: string = pathToFileURL(resolve("dist/web/index.html")).href;
