/**
 * Judges of the IOVA files: kinds iova-tree, iova-fast, iova-dma.
 *
 * Each replays the kernel's calls on one domain and compares every result, and at every `state` line the whole state:
 * ranges, search places, failure hint, magazines and depots. No difference is excused.
 */
import { createHash } from "node:crypto";
import { Counters, DmaError, hex } from "../../src/base/index.ts";
import {
  type GranuleRange,
  IovaAllocator,
  type IovaAllocatorOptions,
  type IovaDevice,
  IovaSpace,
} from "../../src/iova/index.ts";
import { ManualClock } from "../models/manual-clock.ts";
import { type Header, type Judge, judgeLines, type Line, NotJudged } from "./judge.ts";

const sha = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16);
const digits = (value: number): string => value.toString(16);
const pair = (range: GranuleRange | undefined): unknown => (range ? [hex(range.first), hex(range.last)] : null);

function state(domain: IovaAllocator, line: Line): Record<string, unknown> {
  const { ranges, cached, cached32, max32AllocSize, cache } = domain.inspect();
  const place = (pfn: number | undefined): string => (pfn === undefined ? "anchor" : hex(pfn));
  const stack = (pfns: readonly number[]): string => pfns.map((pfn) => ` ${digits(pfn)}`).join("");
  const found: Record<string, unknown> = {
    nodes: ranges.length,
    pages: hex(ranges.reduce((sum, [lo, hi]) => sum + BigInt(hi - lo + 1), 0n)),
    digest: sha(ranges.map(([lo, hi]) => `${digits(lo)}-${digits(hi)}\n`).join("")),
    cached: place(cached),
    cached32: place(cached32),
    max32: hex(max32AllocSize),
    rcache: cache.map(({ cpus, depot }) => ({
      cpus: cpus.map(([loaded, previous]) => [loaded.length, previous.length]),
      depot: depot.length,
    })),
    rcacheDigest: sha(
      cache
        .map(({ cpus, depot }, sizeClass) =>
          [
            ...cpus.flatMap(([loaded, previous], cpu) => [
              `${sizeClass} ${cpu} loaded${stack(loaded)}\n`,
              `${sizeClass} ${cpu} prev${stack(previous)}\n`,
            ]),
            ...depot.map((magazine) => `${sizeClass} depot${stack(magazine)}\n`),
          ].join(""),
        )
        .join(""),
    ),
    tree: ranges.map(([lo, hi]) => [hex(lo), hex(hi)]),
  };
  return Object.fromEntries(Object.entries(found).filter(([key]) => key in line));
}

/** The two flush queues that there are. */
const QUEUES: Readonly<Record<string, unknown>> = {
  "per-cpu": { kind: "per-cpu", slots: 256, timeoutMs: 10 },
  single: { kind: "single", slots: 32_768, timeoutMs: 1000 },
};

/** What a file's header asks for; not judged where dmalink has no such space. */
function checkHeader(header: Header): void {
  const queue = header["queue"] as { readonly kind: string } | undefined;
  if (header["lazy"] === true && JSON.stringify(queue) !== JSON.stringify(QUEUES[queue?.kind ?? ""]))
    throw new NotJudged(`dmalink has no flush queue ${JSON.stringify(queue)}`);
}

export const judgeIova: Judge = (header: Header, lines: readonly Line[]) => {
  checkHeader(header);
  const clock = new ManualClock();
  const granule = Number(header["granule"]);
  const cpus = header["cpus"] as number;
  const toPfn = (address: unknown): number => Number(BigInt(address as string) / BigInt(granule));
  let cpu = 0;
  let mayAllocate = true;
  const domain = domainOf({
    granule,
    firstGranule: Number(header["startPfn"]),
    cpus,
    currentCpu: () => cpu,
    clock,
    counters: new Counters(),
    mayAllocateMagazine: () => mayAllocate,
  });
  const dma = header.kind === "iova-dma";
  const lazy = header["lazy"] === true;
  let flushes = 0;
  const space = new IovaSpace(domain, {
    ...(dma && { lastGranule: toPfn((header["aperture"] as string[])[1]) }),
    ...(lazy && {
      lazy: {
        variant: (header["queue"] as { kind: "per-cpu" | "single" }).kind,
        cpus,
        currentCpu: () => cpu,
        clock,
        flushDomain: () => void flushes++,
        freeTables: () => {},
      },
    }),
  });
  const devices: IovaDevice[] = ((header["devices"] ?? []) as { prefer32: boolean; busLimit: string }[]).map(
    ({ prefer32, busLimit }) => ({ prefer32, busLimitPfn: toPfn(busLimit) }),
  );
  const replay = (line: Line): Record<string, unknown> => {
    const n = (key: string): number => Number(line[key]);
    const orNull = (pfn: number): string | null => (pfn === 0 ? null : hex(pfn));
    switch (line["op"]) {
      case "reserve":
        return { node: pair(domain.reserve(n("lo"), n("hi"))) };
      case "alloc":
        return { pfn: orNull(domain.allocateTree(n("n"), n("limit"), line["aligned"] === true)) };
      case "free": {
        const removed = domain.find(n("pfn"));
        if (line["removed"] !== null) domain.freeTree(n("pfn"));
        return { removed: pair(removed) };
      }
      case "find":
        return { node: pair(domain.find(n("pfn"))) };
      case "allocFast":
        return { pfn: orNull(domain.allocateFast(n("n"), n("limit"), line["flush"] === true)) };
      case "freeFast":
        domain.freeFast(n("pfn"), n("n"));
        return {};
      case "tick":
        clock.advance(n("ms"));
        return {};
      case "cpuDead":
        domain.drainCpu(cpu);
        return {};
      case "dmaAlloc": {
        const device = devices[n("dev")];
        if (device === undefined) throw new NotJudged(`device ${line["dev"]} is not in the first line`);
        const pfn = space.allocate(Math.floor(n("size") / granule), toPfn(line["mask"]), device);
        return { iova: pfn === 0 ? null : hex(BigInt(pfn) * BigInt(granule)), prefer32: device.prefer32 };
      }
      case "dmaFree": {
        const before = flushes;
        if (line["queued"]) space.queue(toPfn(line["iova"]), Math.floor(n("size") / granule));
        else space.free(toPfn(line["iova"]), Math.floor(n("size") / granule));
        return flushes > before || "invAll" in line ? { invAll: flushes - before } : {};
      }
      case "queue": {
        const { flushStart, flushFinish, rings } = space.flushQueue!.state;
        return { now: clock.nowMs(), flushStart, flushFinish, invAll: flushes, rings };
      }
      case "state":
        return state(domain, line);
      default:
        throw new NotJudged(`the operation ${JSON.stringify(line["op"])} on an IOVA space is not known to the judge`);
    }
  };
  return judgeLines(lines, true, (line) => {
    cpu = (line["cpu"] as number | undefined) ?? 0;
    mayAllocate = line["noMagazine"] !== true;
    const differences: string[] = [];
    for (const [key, found] of Object.entries(replay(line))) {
      const [expected, got] = [JSON.stringify(line[key]), JSON.stringify(found)];
      if (expected !== got) differences.push(`${key}: expected ${expected?.slice(0, 200)}, found ${got.slice(0, 200)}`);
    }
    return differences;
  });
};

/** The domain; not judged if dmalink refuses such a geometry. */
function domainOf(options: IovaAllocatorOptions): IovaAllocator {
  try {
    return new IovaAllocator(options);
  } catch (error) {
    throw error instanceof DmaError ? new NotJudged(`dmalink has no such domain: ${error.message}`) : error;
  }
}

export const judges: Readonly<Record<string, Judge>> = {
  "iova-tree": judgeIova,
  "iova-fast": judgeIova,
  "iova-dma": judgeIova,
};
