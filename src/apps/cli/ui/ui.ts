/** `dmalink ui`: serves the page until it is interrupted, and opens it in a browser. */
import { spawn } from "node:child_process";
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DmaError } from "../../../base/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import { print, printJson, say } from "../terminal/print.ts";
import { startServer } from "./server.ts";

export interface UiOptions {
  readonly port: number;
  /** Only say where it is. */
  readonly noOpen: boolean;
  readonly follow: boolean;
  readonly json: boolean;
}

/** Serves until Ctrl-C; the exit code. */
export async function serveUi(traces: readonly string[], options: UiOptions): Promise<number> {
  for (const trace of traces) readable(trace);
  const stopped = new Promise<void>((done) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, done);
  });
  const server = await startServer({ page: builtPage(), traces, ...options }).catch((error: NodeJS.ErrnoException) => {
    throw new EnvironmentError(
      error.code === "EADDRINUSE"
        ? `port ${options.port} is in use: name another by --port, or none`
        : `cannot listen on port ${options.port} of 127.0.0.1: ${error.message}`,
    );
  });
  if (options.json) printJson({ schema: "dmalink.ui/1", url: server.url });
  else print(`${server.url}\n`);
  say("serving to this machine only; Ctrl-C ends it\n");
  if (!options.noOpen) openBrowser(server.url);
  await stopped;
  await server.close();
  return 0;
}

/** @throws DmaError ERR_DMA_INPUT (ENOENT, EINVAL, EACCES): there is no such file, or it cannot be read */
function readable(path: string): void {
  try {
    if (!statSync(path).isFile())
      throw new DmaError("ERR_DMA_INPUT", "EINVAL", `${path} is no file: name the traces`, { path });
    accessSync(path, constants.R_OK);
  } catch (error) {
    if (error instanceof DmaError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const missing = code === "ENOENT";
    throw new DmaError("ERR_DMA_INPUT", missing ? "ENOENT" : "EACCES", missing ? `${path}: no such file` : message, {
      path,
    });
  }
}

/** The folder of the built page: beside the built program, or below the sources' `dist`. */
function builtPage(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const places = [join(here, "../web"), join(here, "../../web"), join(here, "../../../../dist/web")];
  const found = places.find((place) => existsSync(join(place, "page.js")));
  if (found === undefined)
    throw new EnvironmentError("the page is not built: npm run build makes it (a package has it in dist/web)");
  return found;
}

/** By what the system opens a page with; where there is nothing, the address stands on stdout. */
function openBrowser(url: string): void {
  const [program, ...words] =
    process.platform === "darwin"
      ? ["open", url]
      : process.platform === "win32"
        ? ["cmd", "/c", "start", "", url]
        : ["xdg-open", url];
  const child = spawn(program!, words, { stdio: "ignore", detached: true });
  child.on("error", () => say("no browser could be opened: open the address above\n"));
  child.unref();
}
