/** The recordings of the running kernel's DMA API that judges of one part read. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { Header, Line } from "./judge.ts";

const FOLDER: string = join(import.meta.dirname, "dma-api");

/** Names of the recordings, sorted, with the text of each. */
export function recordings(): { readonly name: string; readonly header: Header; readonly lines: readonly Line[] }[] {
  return readdirSync(FOLDER)
    .filter((file) => file.startsWith("dma-api-"))
    .sort()
    .map((file) => {
      const text = gunzipSync(readFileSync(join(FOLDER, file))).toString();
      const [header, ...lines] = text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Line);
      return { name: file.replace(".jsonl.gz", ""), header: header as Header, lines };
    });
}
