/** Puts the built program and what it needs at run time into the folder that host and guest share. */
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const top = join(import.meta.dirname, "../..");

/** The packages that `folder/package.json` needs, and those that they need. */
function packagesOf(folder: string, found: Set<string> = new Set()): Set<string> {
  const { dependencies = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    dependencies?: Readonly<Record<string, string>>;
  };
  for (const name of Object.keys(dependencies)) {
    const own = join(top, "node_modules", name);
    if (found.has(name) || !existsSync(own)) continue;
    found.add(name);
    packagesOf(own, found);
  }
  return found;
}

/** Copies `dist`, `package.json` and the packages; the program is then `SHARE/dist/apps/cli/main.js`. */
export function shareProgram(share: string): void {
  cpSync(join(top, "dist"), join(share, "dist"), { recursive: true });
  cpSync(join(top, "package.json"), join(share, "package.json"));
  for (const name of packagesOf(top)) {
    const options = { recursive: true, dereference: true };
    cpSync(join(top, "node_modules", name), join(share, "node_modules", name), options);
  }
}
