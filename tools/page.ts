/**
 * Builds the page (src/apps/web) to dist/web: plain files that any server serves, and that open from a disk.
 *
 * Idea: a browser loads no modules and starts no workers from a disk, so every part is one classic script. The page, each worker,
 * and each part that is loaded on demand is a build of its own (Vite); a worker's file gives its source to the page, which starts it.
 * Parts on demand share the page's Preact, by the global `dmalink`.
 *
 *     npx tsx tools/page.ts            [--sizes]
 */
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build, type Rolldown } from "vite";

const top = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const web = join(top, "src/apps/web");
const out = join(top, "dist/web");

/** What parts on demand take from the page, and under which name (src/apps/web/main.tsx gives them). */
const SHARED: Readonly<Record<string, string>> = {
  preact: "dmalink.preact",
  "preact/hooks": "dmalink.hooks",
  "preact/jsx-runtime": "dmalink.jsx",
  "@preact/signals": "dmalink.signals",
};

interface Part {
  readonly name: string;
  readonly entry: string;
  /** Runs in a worker, or is a part of the page that is loaded when it is asked for. */
  readonly as: "page" | "worker" | "on-demand";
}

const PARTS: readonly Part[] = [
  { name: "page", entry: "main.tsx", as: "page" },
  { name: "worker-trace", entry: "trace/worker.ts", as: "worker" },
  { name: "machine", entry: "machine/part.tsx", as: "on-demand" },
  { name: "worker-machine", entry: "machine/worker.ts", as: "worker" },
  { name: "editor", entry: "machine/editor/part.tsx", as: "on-demand" },
];

/** Builds one part; its script, and its styles where it has some. */
async function buildPart({ name, entry, as }: Part): Promise<{ script: string; styles: string }> {
  const result = await build({
    configFile: false,
    root: web,
    logLevel: "error",
    oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
    // A classic script has no import.meta; what asks for its place learns that it is none of a driver's.
    define: { "process.env.NODE_ENV": '"production"', "import.meta.url": '"file:///dmalink/"' },
    build: {
      write: false,
      target: "es2022",
      cssTarget: "chrome111",
      lib: { entry: join(web, entry), formats: ["iife"], name: "dmalinkPart", fileName: name },
      rolldownOptions: {
        ...(as === "on-demand" && { external: Object.keys(SHARED), output: { globals: { ...SHARED } } }),
      },
    },
  });
  const outputs = (Array.isArray(result) ? result : [result]) as Rolldown.RolldownOutput[];
  const files = outputs.flatMap(({ output }) => output);
  const chunks = files.filter((file) => file.type === "chunk");
  if (chunks.length !== 1) throw new Error(`${entry}: one script was expected, there are ${chunks.length}`);
  const styles = files.flatMap((file) =>
    file.type === "asset" && file.fileName.endsWith(".css") ? [file.source] : [],
  );
  return { script: chunks[0]!.code, styles: styles.map(String).join("") };
}

/** A worker's file: run by a page it gives its own source, by name. */
const givingItself = (name: string, script: string): string =>
  `(globalThis.dmalinkWorkers ??= {})[${JSON.stringify(name)}] = (function () {\n${script}\n}).toString().replace(/^/, "(") + ")()";\n`;

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
cpSync(join(web, "index.html"), join(out, "index.html"));
for (const part of PARTS) {
  const { script, styles } = await buildPart(part);
  const code = part.as === "worker" ? givingItself(part.name.replace(/^worker-/, ""), script) : script;
  writeFileSync(join(out, `${part.name}.js`), code);
  if (styles !== "") writeFileSync(join(out, `${part.name}.css`), styles);
  if (process.argv.includes("--sizes"))
    process.stdout.write(`${part.name}: ${code.length} bytes, ${gzipSync(code).length} packed\n`);
}
