/**
 * Runs golden files: reads one, picks the judge of its kind, and says how it went. Used by `npm run golden` and `npm test`.
 *
 * A kind that is in no list here is a failure, never skipped. What cannot be judged yet (a kind whose subject is not built,
 * a file or a line with something that its judge does not know) is pending with its reason, for all to see.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { type Header, type Judge, type Line, NotJudged, type Verdict } from "./judge.ts";

/** Where the judge of a kind is; or what is missing until there is one. */
type Judging = (() => Promise<{ readonly judges: Readonly<Record<string, Judge>> }>) | string;

/** Every kind, one line each: a new judge takes the place of what was missing. */
const JUDGES: Readonly<Record<string, Judging>> = {
  // ranges to invalidation commands
  "amd-invalidate": () => import("./invalidation.ts"),
  "smmu-invalidate": () => import("./invalidation.ts"),
  "vtd-invalidate": () => import("./invalidation.ts"),
  // page tables
  "arm-geometry": () => import("./pagetable-cases.ts"),
  "leaf-sizes": () => import("./pagetable-cases.ts"),
  pagetable: () => import("./pagetable.ts"),
  "pagetable-named": () => import("./pagetable.ts"),
  split: () => import("./pagetable-cases.ts"),
  // IOVA allocation
  "iova-dma": () => import("./iova.ts"),
  "iova-fast": () => import("./iova.ts"),
  "iova-tree": () => import("./iova.ts"),
  // the DMA-IOMMU layer by itself
  "dma-prot": () => import("./dma-prot.ts"),
  scatterlist: () => import("./dma-layer.ts"),
  "two-step": () => import("./dma-layer.ts"),
  // the running kernel's DMA API
  "dma-api": () => import("./dma-api.ts"),
  // NVMe requests to PRPs and SGLs
  "nvme-data-pointer": () => import("./nvme-data-pointer.ts"),
  // page sizes of RDMA memory regions
  "best-page-size": () => import("./best-page-size.ts"),
  // dma-buf: heaps, exporters, importers
  dmabuf: () => import("./dmabuf.ts"),
  // process memory and the devices that mirror it
  hmm: () => import("./hmm.ts"),
  // DMA mapping of HMM ranges
  "hmm-dma": () => import("./hmm-dma.ts"),
  // /dev/iommu
  iommufd: () => import("./iommufd.ts"),
  // the PCI security manager
  tsm: () => import("./tsm.ts"),
  // VFIO type 1 containers
  type1: () => import("./iommufd.ts"),
  // user memory of RDMA devices
  umem: () => import("./umem.ts"),
  // VFIO migration
  "vfio-mig": () => import("./vfio-mig.ts"),
};

export interface FileVerdict {
  readonly file: string;
  readonly kind: string;
  readonly verdict: Verdict | undefined;
  /** Set when no line of the file was judged. */
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

/** The first line of a golden file, and those after it. */
export function readGolden(file: string): { readonly header: Header; readonly lines: readonly Line[] } {
  const [header, ...lines] = gunzipSync(readFileSync(file))
    .toString()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);
  return { header: header as Header, lines };
}

export async function judgeFile(
  file: string,
  judges: Readonly<Record<string, Judging>> = JUDGES,
): Promise<FileVerdict> {
  let kind = "?";
  try {
    const { header, lines } = readGolden(file);
    ({ kind } = header);
    const judging = Object.hasOwn(judges, kind) ? judges[kind] : undefined;
    if (judging === undefined)
      return { file, kind, verdict: undefined, failure: `no judge for the kind ${JSON.stringify(kind)}` };
    if (typeof judging === "string") return { file, kind, verdict: undefined, pending: judging };
    const judge = (await judging()).judges[kind];
    if (!judge) return { file, kind, verdict: undefined, failure: `the judges of ${JSON.stringify(kind)} lack it` };
    return { file, kind, verdict: await judge(header, lines) };
  } catch (error) {
    const { message } = error as Error;
    return {
      file,
      kind,
      verdict: undefined,
      ...(error instanceof NotJudged ? { pending: message } : { failure: message }),
    };
  }
}

/** Did it pass? Pending is not a failure. */
export const isClean = ({ verdict, pending, failure }: FileVerdict): boolean =>
  failure === undefined && (pending !== undefined || (verdict !== undefined && verdict.difference === undefined));
