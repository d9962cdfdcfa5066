/**
 * Runs golden files: reads one, picks the judge of its kind, and says how it went. Used by `npm run golden` and `npm test`.
 *
 * A kind that nobody judges is a failure, never skipped; kinds whose subject is not built yet stand in {@link PENDING},
 * for all to see.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { judges as dmaApi } from "./dma-api.ts";
import { judges as dmaLayer } from "./dma-layer.ts";
import { judges as dmaProt } from "./dma-prot.ts";
import { judges as hmm } from "./hmm.ts";
import { judges as invalidation } from "./invalidation.ts";
import { judges as iova } from "./iova.ts";
import type { Header, Judge, Line, Verdict } from "./judge.ts";
import { judges as nvmeDataPointer } from "./nvme-data-pointer.ts";
import { judges as pagetable } from "./pagetable.ts";
import { judges as tsm } from "./tsm.ts";

const JUDGES: Readonly<Record<string, Judge>> = {
  ...dmaApi,
  ...dmaLayer,
  ...dmaProt,
  ...hmm,
  ...invalidation,
  ...iova,
  ...nvmeDataPointer,
  ...pagetable,
  ...tsm,
};

/** Kinds whose subject is not built yet, and what it is. */
export const PENDING: Readonly<Record<string, string>> = {
  "best-page-size": "RDMA memory-region page sizes",
};

/** Recordings of a unit that is not built yet, by the mode that their first line says. */
const PENDING_MODES: Readonly<Record<string, string>> = {
  virtio: "a virtio-iommu unit",
  "virtio-lazy": "a virtio-iommu unit",
};

export interface FileVerdict {
  readonly file: string;
  readonly kind: string;
  readonly verdict: Verdict | undefined;
  /** Set when the file was not judged. */
  readonly pending?: string;
  readonly failure?: string;
}

/** The golden files in `folder`, sorted; also those in its sub-folders. */
export function goldenFiles(folder: string): string[] {
  return readdirSync(folder)
    .sort()
    .flatMap((name) => {
      const path = join(folder, name);
      if (statSync(path).isDirectory()) return goldenFiles(path);
      return name.endsWith(".jsonl.gz") ? [path] : [];
    });
}

export async function judgeFile(file: string): Promise<FileVerdict> {
  let kind = "?";
  try {
    const text = gunzipSync(readFileSync(file)).toString();
    const [header, ...lines] = text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Line);
    ({ kind } = header as Header);
    if (kind in PENDING) return { file, kind, verdict: undefined, pending: PENDING[kind]! };
    const mode = (header as Header)["mode"] as string | undefined;
    if (mode !== undefined && mode in PENDING_MODES)
      return { file, kind, verdict: undefined, pending: PENDING_MODES[mode]! };
    const judge = JUDGES[kind];
    if (!judge) return { file, kind, verdict: undefined, failure: `no judge for the kind ${JSON.stringify(kind)}` };
    return { file, kind, verdict: await judge(header as Header, lines) };
  } catch (error) {
    return { file, kind, verdict: undefined, failure: (error as Error).message };
  }
}

/** Did it pass? Pending is not a failure. */
export const isClean = ({ verdict, pending, failure }: FileVerdict): boolean =>
  failure === undefined && (pending !== undefined || (verdict !== undefined && verdict.difference === undefined));
