/** How fast recorded traces become columns: the binary file and its printed form, the same events. */
import { type Bench, fold, HASH, type Result } from "../../bench/bench.ts";
import type { Random } from "../base/index.ts";
import { fileOfBytes } from "./cursor.ts";
import { openTrace } from "./open.ts";
import { SAMPLE_FORMATS } from "./sample-formats.ts";
import { DatWriter } from "./write-dat.ts";

const DEVICES = ["0000:00:04.0", "0000:00:05.0", "0000:3b:00.0"];
const DIRECTIONS = ["BIDIRECTIONAL", "TO_DEVICE", "FROM_DEVICE"];
const LARGEST_FILE = 1_000_000;

/** Different events: encoding one is slow, so they are repeated. */
const DIFFERENT = 8192;

/** Maps and IOMMU maps in turn, in bursts on two CPUs. */
function* events(count: number, random: Random) {
  const frames = Array.from({ length: DIFFERENT }, () => random.below(1 << 20));
  for (let i = 0; i < count; i++) {
    const same = i % DIFFERENT;
    const iova = 0xff00_0000 - same * 4096;
    const physical = 0x1_0000_0000 + frames[same]! * 4096;
    const device = DEVICES[same % 3]!;
    yield { same, cpu: (i >> 7) & 1, time: 1_000_000 + i * 1000, iova, physical, device, direction: same % 3 };
  }
}

const hex16 = (value: number): string => `0x${value.toString(16).padStart(16, "0")}`;

function datOf(count: number, random: Random, version: 6 | 7): Uint8Array {
  const tasks = [[142, "fio"] as const];
  const writer = new DatWriter({ version, formats: SAMPLE_FORMATS, cpus: 2, tasks });
  const known: Uint8Array[] = [];
  for (const { same, cpu, time, iova, physical, device, direction } of events(count, random)) {
    known[same] ??=
      same % 2 === 0
        ? writer.encode("dma_map_phys", 142, {
            device,
            phys_addr: physical,
            dma_addr: iova,
            size: 4096,
            dir: direction,
          })
        : writer.encode("map", 142, { iova, paddr: physical, size: 4096 });
    writer.add(cpu, BigInt(time), known[same]);
  }
  return writer.finish();
}

function textOf(count: number, random: Random): Uint8Array {
  const parts: string[] = ["cpus=2\n"];
  for (const { same, cpu, time, iova, physical, device, direction } of events(count, random)) {
    const front = `             fio-142   [00${cpu}] ${(time / 1e9).toFixed(6).padStart(12)}: `;
    parts.push(
      same % 2 === 0
        ? `${front}dma_map_phys:         ${device} dir=${DIRECTIONS[direction]} dma_addr=${iova.toString(16)} size=4096 phys_addr=${physical.toString(16)} attrs=\n`
        : `${front}map:                  IOMMU: iova=${hex16(iova)} - ${hex16(iova + 4096)} paddr=${hex16(physical)} size=4096\n`,
    );
  }
  return new TextEncoder().encode(parts.join(""));
}

const reads = (make: (count: number, random: Random) => Uint8Array) => (random: Random) => {
  let file: Uint8Array | undefined;
  let made = 0;
  return async (units: number): Promise<Result> => {
    const count = Math.min(units, LARGEST_FILE);
    if (!file || made !== count) {
      file = make(count, random.fork("events"));
      made = count;
    }
    const trace = await openTrace(fileOfBytes("generated", file));
    let hash = HASH;
    let events = 0;
    for await (const batch of trace.batches()) {
      events += batch.count;
      hash = fold(hash, batch.words[batch.start[batch.count - 1]! + 2]!);
    }
    return { units: events, hash: fold(hash, events) };
  };
};

export const benches: readonly Bench[] = [
  {
    name: "trace.dat to columns",
    unit: "event",
    smoke: 2_000,
    full: LARGEST_FILE,
    contenders: [
      { name: "trace.dat v6", prepare: reads((count, random) => datOf(count, random, 6)) },
      { name: "trace-cmd report", prepare: reads(textOf) },
    ],
  },
];
