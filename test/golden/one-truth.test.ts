/**
 * One truth: what `check`, `stats`, `compare` and `export` count of a recording is the same, is what is known of it, and is exactly
 * twice as much of the same recording with a second device at the same addresses.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  type CheckResult,
  checkTrace,
  type LifetimeCounts,
  RequestColumns,
  Requests,
  readRequests,
  readStats,
  StatsSink,
  type TraceStats,
} from "../../src/analysis/index.ts";
import { openTrace, type Trace } from "../../src/trace/index.ts";
import { some } from "../effort.ts";
import { keptTrace, twinTrace } from "../models/twin-trace.ts";

const TRACES = join(import.meta.dirname, "traces");
const MORE = join(TRACES, "more");
const IS_TRACE = /\.(dat|ftrace\.txt)\.gz$/;
const recordings = [TRACES, MORE].flatMap((folder) =>
  readdirSync(folder).flatMap((name) => (IS_TRACE.test(name) ? [[name, join(folder, name)] as const] : [])),
);

function open(path: string): Promise<Trace> {
  const bytes = gunzipSync(readFileSync(path));
  return openTrace({
    name: path,
    size: bytes.length,
    read: async (at, length) => bytes.subarray(at, at + length),
  });
}

const countsOf = ({
  mappings,
  liveAtEnd,
  ambiguous,
  unknownStart,
  endNotRecorded,
  unmapEvents,
  unmapsOfUnknown,
}: LifetimeCounts): Record<string, number> => ({
  mappings,
  liveAtEnd,
  ambiguous,
  unknownStart,
  endNotRecorded,
  unmapEvents,
  unmapsOfUnknown,
});

/** What statistics say of all devices together. */
function sumsOf({ devices }: Pick<TraceStats, "devices">): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const device of devices) {
    for (const name of ["maps", "unmaps", "segments", "bytesMapped", "liveAtEnd", "liveBytesAtEnd"] as const)
      sums[name] = (sums[name] ?? 0) + device[name];
    for (const [kind, count] of Object.entries(device.kinds)) sums[kind] = (sums[kind] ?? 0) + count;
  }
  return sums;
}

/** The same from requests, which `compare` replays and `export` writes. */
function sumsOfRequests(requests: Requests): Record<string, number> {
  const sums: Record<string, number> = {};
  const add = (name: string, count: number): void => {
    sums[name] = (sums[name] ?? 0) + count;
  };
  for (const { id, kind, length, endNs } of requests) {
    add("maps", 1);
    add("unmaps", endNs === undefined ? 0 : 1);
    add("segments", requests.columns.segments[requests.rowOf(id)]!);
    add("bytesMapped", length);
    add("liveAtEnd", endNs === undefined ? 1 : 0);
    add("liveBytesAtEnd", endNs === undefined ? length : 0);
    add(kind, 1);
  }
  return sums;
}

/** Without the kernel's own words on faults, which name the first device only. */
const errorsOf = ({ findings }: CheckResult): string[] =>
  findings.flatMap(({ severity, rule, message }) =>
    severity === "error" && rule !== "device-fault" ? [`${rule}: ${message}`] : [],
  );

const twice = (sums: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(sums).map(([name, count]) => [name, count * 2]));

describe("a recording", () => {
  test.each(some(recordings, 3))(
    "%s gives the same counts to whoever asks, and twice as much of two devices",
    async (_, path) => {
      const kept = await keptTrace(await open(path));
      const checked = await checkTrace(kept());
      const stats = await readStats(kept());
      const requests = await readRequests(kept());
      expect(countsOf(stats)).toEqual(countsOf(checked));
      expect(countsOf(requests.counts)).toEqual(countsOf(checked));
      expect(sumsOfRequests(requests)).toEqual(sumsOf(stats));
      expect(sumsOf(stats)).toMatchObject({ maps: checked.mappings, liveAtEnd: checked.liveAtEnd });
      expect(stats.devices.find(({ name }) => name === "unknown")?.maps ?? 0).toBe(checked.ambiguous);

      const twins = await twinTrace(kept());
      const columns = new RequestColumns();
      const tally = new StatsSink();
      const twinsChecked = await checkTrace(twins(), { sinks: [columns, tally] });
      expect(countsOf(twinsChecked)).toEqual(twice(countsOf(checked)));
      expect(sumsOf({ devices: tally.byDevice() })).toEqual(twice(sumsOf(stats)));
      expect(sumsOfRequests(new Requests(columns, twinsChecked))).toEqual(twice(sumsOf(stats)));
      expect(errorsOf(twinsChecked)).toHaveLength(errorsOf(checked).length * 2);
      for (const { name, maps, liveAtEnd } of stats.devices) {
        if (name === "unknown") continue;
        const twin = tally.byDevice().find((device) => device.name === `twin of ${name}`);
        expect(twin).toMatchObject({ maps, liveAtEnd });
      }
    },
    60_000,
  );
});

/** What is known of recordings beside the recording itself: what was asked of the machine, and what it counted. */
interface Known {
  /** Mappings by kind, all of the recording: unattributed ones are those that no event names. */
  readonly kinds: Record<string, number>;
  readonly segments?: number;
  /** 0 unless said. */
  readonly live?: number;
  /** Mappings of each device, where there are several. */
  readonly byDevice?: Record<string, number>;
}

const KNOWN: Readonly<Record<string, Known>> = {
  // 40 writes of 1 MiB in two requests each: 163 or 168 entries, of which the event shows 128, and 88.
  "strict-ahci-sw1m": { kinds: { scatterlist: 80 }, segments: 10_140 },
  "lazy-ahci": { kinds: { scatterlist: 400 }, segments: 6272 },
  // Without an IOMMU the entries lie where the memory lies: 500 requests, every one unmapped.
  "pt-ahci": { kinds: { scatterlist: 500 } },
  "none-ahci": { kinds: { scatterlist: 500 } },
  "swiotlb-ahci": { kinds: { scatterlist: 400 }, segments: 6412 },
  // 250 requests on each disk, and a page of each one's pool that stays.
  "strict-two-nvme": { kinds: { "one-shot": 42, coherent: 2, unattributed: 458 }, live: 2 },
  "lazy-two-nvme": { kinds: { "one-shot": 42, coherent: 2, unattributed: 458 }, live: 2 },
  "strict-two-net": {
    kinds: { "one-shot": 1649, coherent: 4 },
    segments: 1654,
    byDevice: { "0000:00:05.0": 821, "0000:00:09.0": 832 },
  },
  "strict-untrusted": { kinds: { "one-shot": 15, coherent: 1, unattributed: 385 }, live: 1 },
  "strict-stack-nvme": { kinds: { "one-shot": 5, unattributed: 145 } },
  "strict-stack-ftrace": { kinds: { "one-shot": 400 } },
  // 22 leaked; 64 held on purpose; a page of the disk's pool.
  "leak-single": { kinds: { "one-shot": 1290, coherent: 1, unattributed: 74 }, live: 87 },
  "leak-all-stacks": {
    kinds: { "one-shot": 678, scatterlist: 150, coherent: 100, unattributed: 29 },
    live: 28,
    byDevice: { "0000:00:04.0": 11, "0000:00:06.0": 750, "0000:00:0b.0": 167 },
  },
  "old612-strict-mix7030": { kinds: { "one-shot": 792, scatterlist: 108, coherent: 1 }, live: 1 },
  "old612-strict-sw1m": { kinds: { scatterlist: 320 }, segments: 9251 },
  "old612-lazy-rr4k-qd32": { kinds: { "one-shot": 3000 } },
  "old612-swiotlb-mix7030": { kinds: { "one-shot": 151, scatterlist: 149, coherent: 1 }, live: 1 },
  // 6.1 has no dma events: 900 requests, and a page of the disk's pool that nothing names.
  "old61-strict-mix7030": { kinds: { unattributed: 901 }, segments: 13_974, live: 1 },
  "old61-strict-net": { kinds: { unattributed: 1913 } },
  "arm64-strict-mix7030": { kinds: { "one-shot": 350 } },
  "arm64-strict-probes": { kinds: { "two-step": 200 }, segments: 855 },
  "arm64-lazy-rr4k-qd32": { kinds: { "one-shot": 2000 } },
  // Pages of 16 KiB: 500 requests and a coherent page; each map of a page belongs to the mapping behind it.
  "arm64-16k-strict-mix7030": { kinds: { "one-shot": 61, coherent: 1, unattributed: 439 }, live: 1 },
  "arm64-16k-strict-net": { kinds: { "one-shot": 1043, coherent: 2 } },
  "strict-mix7030": { kinds: { "one-shot": 30, coherent: 1, unattributed: 870 }, live: 1 },
  "virtio-mix7030": { kinds: { "one-shot": 15, coherent: 1, "two-step": 485 }, live: 1 },
  "pt-mix7030": { kinds: { "one-shot": 8791, coherent: 1 }, live: 8772 },
};

describe("what is known of a recording is what is counted", () => {
  test.each(Object.entries(KNOWN))("%s", async (name, { kinds, segments, live = 0, byDevice = {} }) => {
    const [, path] = recordings.find(([file]) => file.replace(IS_TRACE, "") === name)!;
    const { devices, endNotRecorded, unknownStart } = await readStats(await open(path));
    const sums = sumsOf({ devices });
    expect(sums).toMatchObject({ ...kinds, ...(segments !== undefined && { segments }), liveAtEnd: live });
    expect(sums.maps).toBe(Object.values(kinds).reduce((sum, count) => sum + count, 0));
    expect([endNotRecorded, unknownStart]).toEqual([0, 0]);
    for (const [device, maps] of Object.entries(byDevice))
      expect(devices.find((one) => one.name === device)?.maps, device).toBe(maps);
  });

  test("429 pages are live where the recording stops under load: the leaves of the table", async () => {
    const requests = await readRequests(await open(join(MORE, "arm64-tables-inflight.ftrace.txt.gz")));
    let pages = 0;
    for (const { endNs, segments } of requests)
      if (endNs === undefined)
        for (const { iova, length } of segments) pages += Math.ceil((iova + length) / 4096) - Math.floor(iova / 4096);
    expect(pages).toBe(429);
  });
});

describe("errors", () => {
  const leaked: Readonly<Record<string, Record<string, number>>> = {
    "leak-single": { leak: 22 },
    "leak-all-stacks": { leak: 28, "size-mismatch": 3 },
  };
  test.each(recordings)("%s has those that were made on purpose, and no other", async (name, path) => {
    const { findings } = await checkTrace(await open(path));
    const rules: Record<string, number> = {};
    for (const { severity, rule } of findings) if (severity === "error") rules[rule] = (rules[rule] ?? 0) + 1;
    const { "device-fault": faults = 0, ...others } = rules;
    expect(others).toEqual(leaked[name.replace(IS_TRACE, "")] ?? {});
    expect(faults > 0).toBe(name.startsWith("fault-"));
  });
});

describe("two disks at the same addresses, without a name in the events", () => {
  /** Which device's domain each map and unmap was in, by probes of the kernel's own. */
  interface Step {
    readonly timeNs: number;
    readonly cpu: number;
    readonly device: string;
    readonly page: number;
    readonly pages: number;
  }
  function stepsOf(name: string, what: "map" | "unmap"): Step[] {
    const lines = gunzipSync(readFileSync(join(MORE, `${name}.domains.txt.gz`)))
      .toString()
      .split("\n");
    return lines.flatMap((line) => {
      const [seconds, cpu, is, device, iova, bytes] = line.split(" ");
      if (is !== what) return [];
      const [page, pages] = [Number(iova) / 4096, Number(bytes) / 4096];
      return [{ timeNs: Number(seconds) * 1e9, cpu: Number(cpu), device: device!, page, pages }];
    });
  }

  test.each(["strict-two-nvme", "lazy-two-nvme"])("every end of %s is that of the mapping that ended", async (name) => {
    const trace = await open(join(MORE, `${name}.dat.gz`));
    const [maps, unmaps] = [stepsOf(name, "map"), stepsOf(name, "unmap")];
    const requests = await readRequests(trace);
    // The probes and the events come in the same order on each CPU; a time may be a little before the event's.
    const taken = new Set<Step>();
    const ends = [...requests].filter(({ endNs }) => endNs !== undefined).sort((a, b) => a.endNs! - b.endNs!);
    let right = 0;
    for (const { startNs, endNs, segments } of ends) {
      const page = Math.floor(segments[0]!.iova / 4096);
      const last = segments.at(-1)!;
      const pages = Math.ceil((last.iova + last.length) / 4096) - page;
      const at = startNs + Number(trace.timeBase);
      const map = maps.filter((step) => step.page === page && step.timeNs <= at + 1000).at(-1)!;
      const own = unmaps.find(
        (step) => step.page === page && step.pages === pages && step.device === map.device && step.timeNs > map.timeNs,
      );
      if (!own || taken.has(own)) continue;
      taken.add(own);
      // Nobody but its own domain's unmap took it: that one came before this end, and no other of its device in between.
      if (own.timeNs <= endNs! + Number(trace.timeBase) + 1000) right++;
    }
    expect([right, ends.length]).toEqual([500, 500]);
  });
});
