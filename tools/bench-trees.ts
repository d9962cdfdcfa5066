/**
 * Source trees that benchmarks run in: this one, and another revision's in a worktree of its own for as long as it is needed.
 *
 * Promises: the other tree is removed at the end, also after an error or Ctrl-C; it shares this one's node_modules, so what is
 * compared is the code and not its tools.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The top of this source tree. */
export const TOP: string = resolve(dirname(fileURLToPath(import.meta.url)), "..");

function git(...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync("git", ["-C", TOP, ...args], { encoding: "utf8" });
  if (status !== 0) throw new Error(`git ${args.join(" ")}: ${stderr.trim()}`);
  return stdout.trim();
}

/** The paths of all `*.bench.ts` of a tree, from its top, in order. */
export function benchFiles(tree: string): string[] {
  const below = (folder: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return below(path);
      return entry.name.endsWith(".bench.ts") ? [relative(tree, path)] : [];
    });
  return ["src", "bench"].flatMap((folder) => below(join(tree, folder))).sort();
}

/** Checks `revision` out, gives its tree to `use`, and takes it away again. @throws Error if git knows no such revision */
export async function withRevision<T>(revision: string, use: (tree: string, commit: string) => Promise<T>): Promise<T> {
  const commit = git("rev-parse", "--short", "--verify", `${revision}^{commit}`);
  const tree = join(mkdtempSync(join(tmpdir(), "dmalink-bench-")), commit);
  const remove = (): void => {
    if (!existsSync(tree)) return;
    spawnSync("git", ["-C", TOP, "worktree", "remove", "--force", tree]);
    rmSync(dirname(tree), { recursive: true, force: true });
  };
  const stopped = (): never => {
    remove();
    process.exit(130);
  };
  process.once("SIGINT", stopped);
  process.once("SIGTERM", stopped);
  try {
    git("worktree", "add", "--detach", tree, commit);
    symlinkSync(join(TOP, "node_modules"), join(tree, "node_modules"));
    return await use(tree, commit);
  } finally {
    process.removeListener("SIGINT", stopped);
    process.removeListener("SIGTERM", stopped);
    remove();
  }
}
