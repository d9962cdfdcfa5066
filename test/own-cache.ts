/** Tests keep what the program caches in a folder of their own, which goes with them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Called by vitest before all tests; the answer is called after them. */
export function setup(): () => void {
  const folder = mkdtempSync(join(tmpdir(), "dmalink-cache-"));
  process.env.XDG_CACHE_HOME = folder;
  return () => rmSync(folder, { recursive: true, force: true });
}
