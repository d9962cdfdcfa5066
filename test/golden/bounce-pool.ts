/**
 * Judge of bounce buffers alone: replays what the running kernel did to its pool, step by step, on a {@link BouncePool}.
 *
 * The files hold whole DMA API calls; this judge looks only at the events of the pool (slots taken, bytes copied, slots
 * freed), asks the pool for each, and compares what it announces, where its next search begins, how many slots are in
 * use, and the slots themselves. Where every device address is a physical one (`mode` force), memory is replayed too,
 * and what the CPU and the device read is compared.
 */
import { crc32 } from "node:zlib";
import { hex, PhysAddr } from "../../src/base/index.ts";
import { SimulatedMemory } from "../../src/hosts/simulated/index.ts";
import { BouncePool } from "../../src/swiotlb/index.ts";
import { type Header, type Judge, type Line, Tally } from "./judge.ts";
import { pattern } from "./words.ts";

/** The pool of all these machines; one file does not name it. */
const POOL = { start: "0x6c600000", slots: 32_768, areas: 1 };

type Event = readonly (string | number | null)[];

const isOfThePool = ([name]: Event): boolean => name === "slot" || name === "copy" || name === "slotFree";

class Replay {
  readonly #memory = new SimulatedMemory();
  readonly #pool: BouncePool;
  readonly #start: number;
  readonly #contents: boolean;
  readonly #limits = new Map<number, { minAlignMask: number; segmentBoundaryMask: number }>();
  readonly #segments = new Map<number, readonly (readonly [number, number])[]>();
  readonly #deviceOf = new Map<number, number>();
  #found: Event[] = [];

  constructor(header: Header) {
    const pool = (header["pool"] as typeof POOL | undefined) ?? POOL;
    this.#start = Number(pool.start);
    this.#contents = header["mode"] === "force";
    this.#pool = new BouncePool({
      memory: this.#memory,
      start: PhysAddr(this.#start),
      slots: pool.slots,
      areas: pool.areas,
      observer: {
        slotsTaken: (phys, size, alignMask, offset) =>
          void this.#found.push([
            "slot",
            hex(phys),
            hex(size),
            hex(alignMask),
            offset === undefined ? null : hex(offset),
          ]),
        bounceCopied: (offset, size, way) => void this.#found.push(["copy", hex(offset), hex(size), way]),
        slotsFreed: (offset) => void this.#found.push(["slotFree", hex(offset)]),
      },
    });
  }

  /** What differs on this line; `undefined` if it says nothing about the pool. */
  line(line: Line): string[] | undefined {
    const { op } = line;
    if (op === "set") this.#set(line);
    if (op === "poolIndex") this.#pool.nextIndex = line["index"] as number;
    this.#remember(line);
    const expected = ((line["events"] ?? []) as Event[]).filter(isOfThePool);
    this.#found = [];
    this.#drive(expected, this.#limitsOf(line));
    const differences: string[] = [];
    const compare = (what: string, wanted: unknown, found: unknown): void => {
      if (JSON.stringify(wanted) !== JSON.stringify(found))
        differences.push(`${what}: expected ${JSON.stringify(wanted)}, found ${JSON.stringify(found)}`);
    };
    compare("events", expected, this.#found);
    if (line["poolUsed"] !== undefined) compare("poolUsed", line["poolUsed"], this.#pool.used);
    if (line["poolNext"] !== undefined) compare("poolNext", line["poolNext"], this.#pool.nextIndex);
    if (op === "pool")
      (line["slots"] as unknown[]).forEach((wanted, i) => {
        const { freeRun, padSlots, allocSize, used } = this.#pool.slotState(i);
        compare(`slot ${i}`, wanted, [freeRun, padSlots, allocSize, used]);
      });
    if (this.#contents) this.#replayContents(line, compare);
    return expected.length > 0 || op === "pool" || "poolUsed" in line || "crc32" in line ? differences : undefined;
  }

  #set(line: Line): void {
    const limits = this.#limitsFor(line["dev"] as number);
    if (line["what"] === "minAlignMask") limits.minAlignMask = Number(line["value"]);
    if (line["what"] === "segBoundaryMask") limits.segmentBoundaryMask = Number(line["value"]);
  }

  #limitsFor(device: number): { minAlignMask: number; segmentBoundaryMask: number } {
    let limits = this.#limits.get(device);
    if (!limits) {
      limits = { minAlignMask: 0, segmentBoundaryMask: 0xffffffff };
      this.#limits.set(device, limits);
    }
    return limits;
  }

  #limitsOf(line: Line): { minAlignMask: number; segmentBoundaryMask: number } {
    return this.#limitsFor((line["dev"] ?? this.#deviceOf.get(line["id"] as number) ?? 0) as number);
  }

  /** Which device a mapping is of, and where the device finds it. */
  #remember(line: Line): void {
    const id = line["id"] as number | undefined;
    if (id === undefined) return;
    if (line["dev"] !== undefined) this.#deviceOf.set(id, line["dev"] as number);
    if (line["op"] === "map") this.#segments.set(id, [[Number(line["ret"]), Number(line["size"])]]);
    if (line["out"] !== undefined)
      this.#segments.set(
        id,
        (line["out"] as [string, number][]).map(([at, bytes]) => [Number(at), bytes]),
      );
  }

  /** Asks the pool for what the events say was done to it. */
  #drive(events: readonly Event[], limits: { minAlignMask: number; segmentBoundaryMask: number }): void {
    const at = (offset: unknown): PhysAddr => PhysAddr(this.#start + Number(offset));
    for (let i = 0; i < events.length; i++) {
      const [name, first, second, third] = events[i]!;
      const next = events[i + 1];
      const mapped = name === "slot" ? events[i] : name === "copy" && next?.[0] === "slot" ? next : undefined;
      if (mapped) {
        const [, phys, size, alignMask] = mapped;
        this.#pool.map(PhysAddr(Number(phys)), Number(size), Number(alignMask), limits);
        if (name === "copy") i++;
      } else if (name === "slotFree") this.#pool.unmap(at(first), 0, "bidirectional", true);
      else if (third === "in") this.#pool.syncForDevice(at(first), Number(second), "to-device");
      else if (next?.[0] === "slotFree" && next[1] === first) {
        this.#pool.unmap(at(first), Number(second), "from-device", false);
        i++;
      } else this.#pool.syncForCpu(at(first), Number(second), "from-device");
    }
  }

  #replayContents(line: Line, compare: (what: string, wanted: unknown, found: unknown) => void): void {
    const size = Number(line["size"]);
    if (line["op"] === "cpuFill")
      this.#memory.write(PhysAddr(Number(line["phys"])), pattern(line["seed"] as number, size));
    if (line["op"] === "cpuRead") {
      const bytes = new Uint8Array(size);
      this.#memory.read(PhysAddr(Number(line["phys"])), bytes);
      compare("bytes in memory", line["crc32"], crc32(bytes).toString(16).padStart(8, "0"));
    }
    if (line["op"] !== "deviceWrite" && line["op"] !== "deviceRead") return;
    const bytes = line["op"] === "deviceWrite" ? pattern(line["seed"] as number, size) : new Uint8Array(size);
    let skip = Number(line["offset"]);
    let done = 0;
    for (const [address, length] of this.#segments.get(line["id"] as number) ?? []) {
      const piece = Math.min(length - skip, size - done);
      if (piece > 0) {
        const view = bytes.subarray(done, done + piece);
        if (line["op"] === "deviceWrite") this.#memory.write(PhysAddr(address + skip), view);
        else this.#memory.read(PhysAddr(address + skip), view);
        done += piece;
      }
      skip = Math.max(0, skip - length);
    }
    if (line["op"] === "deviceRead")
      compare("bytes at the device", line["crc32"], crc32(bytes).toString(16).padStart(8, "0"));
  }
}

/** Replays the pool of a file of kind `dma-api` that has one. */
export const judgeBouncePool: Judge = (header, lines) => {
  const tally = new Tally();
  const replay = new Replay(header);
  lines.forEach((line, i) => {
    const differences = replay.line(line);
    if (differences) tally.judge(i + 2, differences);
  });
  return tally.verdict();
};
