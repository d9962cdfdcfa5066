/**
 * Serves the page and the traces that it shows, to this machine's browser alone.
 *
 * Idea: a list of names is served, not a folder: what is not in the list is not there, however a path is written. Promises: bound to
 * the loopback address; every path begins with a random token, which a page of another site cannot know; a request by another
 * name than the loopback's is refused, so that no name that was bent to it reads a trace; nothing can be written.
 */
import { randomBytes } from "node:crypto";
import { createReadStream, readdirSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, join } from "node:path";
import { escaped } from "../../../report/index.ts";

/** What is served. */
interface Served {
  /** Folder of the built page. */
  readonly page: string;
  /** Paths of the traces. */
  readonly traces: readonly string[];
  /** The traces still grow: the page is told to look again. */
  readonly follow: boolean;
  /** 0: any that is free. */
  readonly port: number;
}

/** A server that runs. */
interface RunningServer {
  /** Where the page is, its token included. */
  readonly url: string;
  close(): Promise<void>;
}

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  wasm: "application/wasm",
};

/** What every answer says: it is read as what it is said to be, kept by nobody, framed by nobody, and its address is told to nobody. */
const HEADERS: Readonly<Record<string, string>> = {
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cache-Control": "no-store",
};

const TOKEN_BYTES = 18;

/** Begins to serve; once it answers, the page can be opened. */
export async function startServer(served: Served): Promise<RunningServer> {
  const token = randomBytes(TOKEN_BYTES).toString("base64url");
  const files = new Set(readdirSync(served.page));
  const server = createServer((request, response) => {
    answer(request, response, served, files, `/${token}/`).catch(() => refuse(response, 500));
  });
  await new Promise<void>((done, fail) => {
    server.once("error", fail);
    server.listen(served.port, "127.0.0.1", done);
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/${token}/`, close: () => closing(server) };
}

function closing(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((done) => server.close(() => done()));
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  served: Served,
  files: ReadonlySet<string>,
  prefix: string,
): Promise<void> {
  const isRead = request.method === "GET" || request.method === "HEAD";
  if (!isRead) return refuse(response, 405);
  if (!/^(127\.0\.0\.1|localhost)(:\d+)?$/.test(request.headers.host ?? "")) return refuse(response, 403);
  const [path = ""] = (request.url ?? "").split("?", 1);
  if (!path.startsWith(prefix)) return refuse(response, 404);
  const name = path.slice(prefix.length) || "index.html";
  const trace = /^trace\/(\d{1,4})$/.exec(name);
  const file = trace && served.traces[Number(trace[1])];
  if (file !== undefined && file !== null) return sendTrace(request, response, file);
  if (!files.has(name)) return refuse(response, 404);
  let body = await readFile(join(served.page, name));
  if (name === "index.html") body = Buffer.from(withTraces(body.toString("utf8"), served));
  const type = TYPES[name.split(".").at(-1)!] ?? "application/octet-stream";
  response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": body.length });
  response.end(request.method === "HEAD" ? undefined : body);
}

/** The page, told which traces there are. */
const withTraces = (html: string, { traces, follow }: Served): string =>
  html.replace(
    "<title>",
    () =>
      `<meta name="dmalink-traces" content="${escaped(JSON.stringify(traces.map((path) => basename(path))))}">\n` +
      `${follow ? '<meta name="dmalink-follow" content="yes">\n' : ""}<title>`,
  );

/** A trace, from a byte on where one is asked for: a growing one is read on from where it was. */
function sendTrace(request: IncomingMessage, response: ServerResponse, file: string): void {
  let size: number;
  try {
    ({ size } = statSync(file));
  } catch {
    refuse(response, 404);
    return;
  }
  const start = Number(/^bytes=(\d{1,15})-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  if (start > size) {
    refuse(response, 416);
    return;
  }
  response.writeHead(start > 0 ? 206 : 200, {
    ...HEADERS,
    "Content-Type": "application/octet-stream",
    "Content-Length": size - start,
    ...(start > 0 && { "Content-Range": `bytes ${start}-${size - 1}/${size}` }),
  });
  if (request.method === "HEAD" || size === start) {
    response.end();
    return;
  }
  // What is written behind `size` meanwhile is for the next request.
  createReadStream(file, { start, end: size - 1 })
    .on("error", () => response.destroy())
    .pipe(response);
}

function refuse(response: ServerResponse, status: number): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(status, HEADERS);
  response.end();
}
