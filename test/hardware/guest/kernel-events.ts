/** The kernel's own account of what was mapped: its events `iommu:map` and `iommu:unmap`, through tracefs. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";

const TRACEFS = "/sys/kernel/tracing";
const EVENTS = ["map", "unmap"] as const;

export interface KernelEvent {
  readonly kind: "map" | "unmap";
  readonly iova: number;
  readonly length: number;
}

export const hasKernelEvents = (): boolean => existsSync(`${TRACEFS}/events/iommu/map/enable`);

/** What the kernel maps and unmaps while `work` runs. */
export async function kernelEvents(work: () => unknown): Promise<KernelEvent[]> {
  writeFileSync(`${TRACEFS}/trace`, "");
  const enable = (on: string): void => {
    for (const event of EVENTS) writeFileSync(`${TRACEFS}/events/iommu/${event}/enable`, on);
  };
  enable("1");
  try {
    await work();
  } finally {
    enable("0");
  }
  return readFileSync(`${TRACEFS}/trace`, "utf8")
    .split("\n")
    .flatMap((line): KernelEvent[] => {
      const map = /: map: .*iova=(0x[0-9a-f]+) .*size=(\d+)/.exec(line);
      if (map) return [{ kind: "map", iova: Number(map[1]), length: Number(map[2]) }];
      const unmap = /: unmap: .*iova=(0x[0-9a-f]+) .*unmapped_size=(\d+)/.exec(line);
      if (unmap) return [{ kind: "unmap", iova: Number(unmap[1]), length: Number(unmap[2]) }];
      return [];
    });
}

/** Pieces that continue each other as one: the kernel cuts where physical memory is not contiguous. */
export function joined(events: readonly KernelEvent[]): KernelEvent[] {
  const whole: { kind: "map" | "unmap"; iova: number; length: number }[] = [];
  for (const { kind, iova, length } of events) {
    const last = whole.at(-1);
    if (last?.kind === kind && last.iova + last.length === iova) last.length += length;
    else whole.push({ kind, iova, length });
  }
  return whole;
}
