/**
 * What a simulated run will do, as a value: the machine, and every step, drawn from one seed before anything happens.
 *
 * Idea: steps name things by number (buffer 3, mapping 5), and a step whose thing is not there does nothing. So any subset
 * of the steps is a run too, and a failing run can be cut down to the few steps that matter.
 * Each part draws from its own stream, so that a new draw in one does not shift the others.
 */
import { DIRECTIONS, type Direction, KiB, MiB, Random } from "../../base/index.ts";
import { FORMAT_NAMES, type FormatName } from "../../layouts/pagetable/index.ts";
import type { SimulationPlan } from "../scenario.ts";

/** What may go wrong in a run; each seed switches some of them on. */
export const FAULTS = [
  "late flush",
  "lost doorbell",
  "full pool",
  "IOVA exhaustion",
  "surprise removal",
  "ACS change",
  "page-table allocation failure",
  "invalidation time-out",
] as const;
type Fault = (typeof FAULTS)[number];

/** A machine to run on, drawn from a seed. */
export interface MappingConfig {
  /** Those of VT-d have its own unit with its queue, others a plain one. */
  readonly format: FormatName;
  /** No IOMMU; or one, with invalidations at once or by a flush queue. */
  readonly mode: "direct" | "strict" | "lazy";
  /** Devices look into the CPU's caches. */
  readonly coherent: boolean;
  /** Memory is private but for what is converted, and devices reach shared memory only. */
  readonly confidential: boolean;
  /** Every mapping goes through the bounce pool. */
  readonly forceBounce: boolean;
  /** The unit remembers absent entries too. */
  readonly cachingMode: boolean;
  /** Devices with TLBs of their own (VT-d's unit only). */
  readonly ats: boolean;
  /** Devices may be anybody's: they must reach nothing but what is mapped, to the byte. */
  readonly untrusted: boolean;
  /** How many. */
  readonly devices: number;
  /** Slots of the bounce pool; 0: none. */
  readonly poolSlots: number;
  /** Highest address the devices can emit. */
  readonly mask: number;
  /** Low bits of an address that bounce buffers keep. */
  readonly minAlignMask: number;
  /** Longest segment of a list that devices take, bytes. */
  readonly maxSegmentSize: number;
  /** What will go wrong, of the kinds that a run knows. */
  readonly faults: readonly Fault[];
}

/** Ways to map the pieces of a buffer. */
const WAYS = [
  "one-shot",
  "scatterlist",
  "two-step",
  "two-step vector",
  "vecs",
  "linear",
  "linear or bounce",
  "batch",
] as const;
export type Way = (typeof WAYS)[number];

/** One thing that a run does: named by `do`, and by the numbers of the things it happens to. */
export type Step =
  | {
      /** A buffer, or a part of it, is mapped for a device. */
      readonly do: "map";
      /** The number that the mapping gets. */
      readonly mapping: number;
      /** Which device, by its number. */
      readonly device: number;
      /** Which buffer, by its number. */
      readonly buffer: number;
      /** Byte of the buffer where it begins. */
      readonly offset: number;
      /** Bytes. */
      readonly length: number;
      /** Who will write. */
      readonly direction: Direction;
      /** By which calls. */
      readonly way: Way;
      /** Part of it lies in the memory of another device. */
      readonly peer: boolean;
    }
  | {
      /** A mapping ends. */
      readonly do: "unmap";
      /** Which mapping, by its number; nothing happens if there is none. */
      readonly mapping: number;
    }
  | {
      /** The device writes through a mapping. */
      readonly do: "device writes";
      /** Which mapping, by its number; nothing happens if there is none. */
      readonly mapping: number;
      /** Byte of the mapping where it begins. */
      readonly offset: number;
      /** Bytes. */
      readonly length: number;
      /** Of the bytes that are written. */
      readonly seed: number;
    }
  | {
      /** The device reads all of a mapping. */
      readonly do: "device reads";
      /** Which mapping, by its number; nothing happens if there is none. */
      readonly mapping: number;
    }
  | {
      /** The memory of a mapping is synced for the CPU, written by it, and synced for the device. */
      readonly do: "turn";
      /** Which mapping, by its number; nothing happens if there is none. */
      readonly mapping: number;
      /** Of the bytes that are written. */
      readonly seed: number;
    }
  | {
      /** The CPU writes what it owns of a buffer. */
      readonly do: "fill";
      /** Which buffer, by its number. */
      readonly buffer: number;
      /** Of the bytes that are written. */
      readonly seed: number;
    }
  | {
      /** A page of a two-step mapping is unlinked, and linked again. */
      readonly do: "relink";
      /** Which mapping, by its number; nothing happens if there is none. */
      readonly mapping: number;
      /** Which page, counted from the start of the mapping. */
      readonly page: number;
      /** The unlink leaves the invalidation for later. */
      readonly lazy: boolean;
    }
  | {
      /** A buffer is freed, and poisoned so that later writes are seen. */
      readonly do: "free buffer";
      /** Which buffer, by its number. */
      readonly buffer: number;
    }
  | {
      /** A device uses an address whose mapping has ended. */
      readonly do: "stale access";
      /** Which of the mappings that ended. */
      readonly nth: number;
      /** What it tries. */
      readonly access: "read" | "write";
    }
  | {
      /** Coherent memory is allocated, used and freed. */
      readonly do: "coherent";
      /** Which device, by its number. */
      readonly device: number;
      /** Bytes. */
      readonly length: number;
      /** Of the bytes that are written. */
      readonly seed: number;
    }
  | {
      /** Time passes. */
      readonly do: "tick";
      /** Milliseconds. */
      readonly ms: number;
    }
  | {
      /** A doorbell for a mapping is lost: the device does nothing, and nothing may have changed. */
      readonly do: "lose doorbell";
      /** Which mapping, by its number; nothing happens if there is none. */
      readonly mapping: number;
      /** Of the bytes that the device would have written. */
      readonly seed: number;
    }
  | {
      /** The bounce pool fills up. */
      readonly do: "fill pool";
      /** Slots that stay free. */
      readonly leave: number;
    }
  | {
      /** What filled the bounce pool is given back. */
      readonly do: "empty pool";
    }
  | {
      /** An allocation of a page-table page fails. */
      readonly do: "fail table";
      /** Which one, counted from here on. */
      readonly nth: number;
    }
  | {
      /** A device leaves the bus. */
      readonly do: "pull out";
      /** Which device, by its number. */
      readonly device: number;
    }
  | {
      /** A port gets other access control bits. */
      readonly do: "change ACS";
      /** The port above this device, by the device's number. */
      readonly port: number;
      /** The ACS control register (PCI Express base specification, 7.7.8.3). */
      readonly bits: number;
    }
  | {
      /** A device answers no invalidation of its TLB any more. */
      readonly do: "silence device";
      /** Which device, by its number. */
      readonly device: number;
    };

export type MappingPlan = SimulationPlan<MappingConfig, Step>;

/** Buffers, mappings and pages that a plan names. */
export const BUFFERS = 6;
export const BUFFER_PAGES = 12;
export const MAPPINGS = 8;

const BUFFER_BYTES = BUFFER_PAGES * 4 * KiB;

/** The plan of a seed. `steps` unless said by the seed: 60 to 260. */
export function mappingPlan(seed: number, steps?: number): MappingPlan {
  const random = Random.fromSeed(seed);
  const config = configOf(random.fork("machine"), random.fork("faults"));
  const load = random.fork("load");
  const count = steps ?? 60 + load.below(200);
  const faults = random.fork("fault steps");
  const list: Step[] = [];
  for (let i = 0; i < count; i++) {
    const fault = config.faults.length > 0 && faults.chance(1, 12) ? faultStep(config, faults) : undefined;
    list.push(fault ?? loadStep(config, load));
  }
  return { scenario: "mapping", seed, config, steps: list };
}

function configOf(random: Random, faults: Random): MappingConfig {
  const mode = random.pick(["strict", "strict", "lazy", "lazy", "direct"] as const);
  const format = random.pick(FORMAT_NAMES);
  const vtd = format === "vtd-second-stage" || format === "x86-64";
  const untrusted = mode !== "direct" && random.chance(1, 4);
  const coherent = random.chance(2, 3);
  const confidential = !untrusted && random.chance(1, 6);
  const forceBounce = mode === "direct" && !confidential && random.chance(1, 3);
  const enabled = FAULTS.filter(() => faults.chance(1, 3));
  return {
    format,
    mode: untrusted ? "strict" : mode, // an untrusted device never gets the lazy mode
    coherent,
    confidential,
    forceBounce,
    cachingMode: random.chance(1, 4),
    ats: vtd && mode !== "direct" && !untrusted && random.chance(1, 3),
    untrusted,
    devices: 2 + random.below(2),
    poolSlots: 2048,
    mask: enabled.includes("IOVA exhaustion") ? 2 * MiB - 1 : random.pick([2 ** 32 - 1, 2 ** 40 - 1, 2 ** 48 - 1]),
    minAlignMask: random.pick([0, 0x1ff, 0xfff]),
    maxSegmentSize: random.pick([4 * KiB, 64 * KiB, 2 ** 32 - 1]),
    faults: enabled,
  };
}

function loadStep(config: MappingConfig, random: Random): Step {
  const mapping = random.below(MAPPINGS);
  const kind = random.below(100);
  if (kind < 30) {
    const grain = config.coherent ? random.pick([1, 512, 4096]) : random.pick([64, 4096]);
    const offset = Math.floor(random.below(BUFFER_BYTES - 1) / grain) * grain;
    const room = Math.min(BUFFER_BYTES - offset, random.pick([4096, 16 * KiB, BUFFER_BYTES]));
    const length = Math.max(grain, Math.floor((1 + random.below(room)) / grain) * grain);
    return {
      do: "map",
      mapping,
      device: random.below(config.devices),
      buffer: random.below(BUFFERS),
      offset,
      length: Math.min(length, BUFFER_BYTES - offset),
      direction: random.pick(DIRECTIONS),
      way: random.pick(WAYS),
      peer: random.chance(1, 8),
    };
  }
  if (kind < 48) return { do: "unmap", mapping };
  if (kind < 60)
    return {
      do: "device writes",
      mapping,
      offset: random.below(BUFFER_BYTES),
      length: 1 + random.below(9000),
      seed: random.below(251),
    };
  if (kind < 72) return { do: "device reads", mapping };
  if (kind < 79) return { do: "turn", mapping, seed: random.below(251) };
  if (kind < 84) return { do: "fill", buffer: random.below(BUFFERS), seed: random.below(251) };
  if (kind < 88) return { do: "relink", mapping, page: random.below(BUFFER_PAGES), lazy: random.chance(1, 2) };
  if (kind < 91) return { do: "free buffer", buffer: random.below(BUFFERS) };
  if (kind < 95) return { do: "stale access", nth: random.below(8), access: random.pick(["read", "write"] as const) };
  if (kind < 97)
    return {
      do: "coherent",
      device: random.below(config.devices),
      length: 1 + random.below(20_000),
      seed: random.below(251),
    };
  const late = config.faults.includes("late flush");
  return { do: "tick", ms: late ? random.below(4) : 1 + random.below(30) };
}

function faultStep(config: MappingConfig, random: Random): Step | undefined {
  switch (random.pick(config.faults)) {
    case "lost doorbell":
      return { do: "lose doorbell", mapping: random.below(MAPPINGS), seed: random.below(251) };
    case "full pool":
      return random.chance(1, 2) ? { do: "fill pool", leave: random.below(16) } : { do: "empty pool" };
    case "surprise removal":
      return { do: "pull out", device: random.below(config.devices) };
    case "ACS change":
      return { do: "change ACS", port: random.below(config.devices), bits: random.pick([0, 0x04, 0x1d]) };
    case "page-table allocation failure":
      return { do: "fail table", nth: 1 + random.below(3) };
    case "invalidation time-out":
      return config.ats ? { do: "silence device", device: random.below(config.devices) } : undefined;
    default:
      return undefined; // late flush and exhaustion are in the machine and the clock
  }
}
