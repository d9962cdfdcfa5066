/**
 * The published types as somebody else's compiler sees them: every entry imported, nothing skipped, and no library but what this
 * package says by itself (and the DOM's or Node's AbortSignal).
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const top = join(import.meta.dirname, "..");
const { name, exports } = JSON.parse(readFileSync(join(top, "package.json"), "utf8"));
const entries = Object.keys(exports).filter((entry) => entry !== "./package.json");
const folder = mkdtempSync(join(tmpdir(), "dmalink-types-"));
try {
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(top, join(folder, "node_modules", name));
  const imports = entries.map((entry, i) => `import * as entry${i} from "${join(name, entry)}";`);
  const all = entries.map((_, i) => `entry${i}`).join(", ");
  writeFileSync(join(folder, "all.ts"), `${imports.join("\n")}\nexport const all: unknown[] = [${all}];\n`);
  const compilerOptions = {
    target: "es2022",
    lib: ["es2022", "dom"],
    module: "nodenext",
    strict: true,
    types: [],
    skipLibCheck: false,
    noEmit: true,
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["all.ts"] }));
  for (const compiler of ["ts7", "typescript"]) {
    const tsc = join(top, "node_modules", compiler, "bin/tsc");
    const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8" });
    process.stdout.write(stdout);
    if (status !== 0) process.exitCode = 1;
  }
} finally {
  rmSync(folder, { recursive: true });
}
