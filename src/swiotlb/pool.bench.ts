/**
 * Bounce buffers: what a mapping costs beyond its copies. The peer copies the same bytes in and out, and nothing else.
 */
import { type Bench, fold, HASH } from "../../bench/bench.ts";
import { PhysAddr } from "../base/index.ts";
import type { PhysicalMemory } from "../platform/index.ts";
import { BouncePool } from "./pool.ts";

const START = 0x400_0000;
const SLOTS = 8192;
const LIMITS = { minAlignMask: 0xfff, segmentBoundaryMask: 0xffff_ffff };

/** One array: the cheapest memory there is. */
function flatMemory(): PhysicalMemory {
  const bytes = new Uint8Array(START + SLOTS * 2048);
  return {
    read: (address, into) => into.set(bytes.subarray(address, address + into.length)),
    write: (address, from) => bytes.set(from, address),
  };
}

const bounce = (length: number) => (): ((units: number) => { units: number; hash: number }) => {
  const pool = new BouncePool({ memory: flatMemory(), start: PhysAddr(START), slots: SLOTS });
  return (units) => {
    let hash = HASH;
    for (let i = 0; i < units; i++) {
      const phys = PhysAddr(0x10_0000 + (i & 0xff) * 0x1000);
      const address = pool.map(phys, length, 0, LIMITS)!;
      hash = fold(hash, pool.original(address)!);
      pool.unmap(address, length, "bidirectional", false);
    }
    return { units, hash };
  };
};

const copyOnly = (length: number) => (): ((units: number) => { units: number; hash: number }) => {
  const memory = flatMemory();
  const buffer = new Uint8Array(Math.min(length, 4096));
  return (units) => {
    let hash = HASH;
    for (let i = 0; i < units; i++) {
      const phys = 0x10_0000 + (i & 0xff) * 0x1000;
      for (let way = 0; way < 2; way++)
        for (let at = 0; at < length; at += buffer.length) {
          memory.read(PhysAddr(phys + at), buffer);
          memory.write(PhysAddr(START + at), buffer);
        }
      hash = fold(hash, phys);
    }
    return { units, hash };
  };
};

const bench = (name: string, length: number, full: number): Bench => ({
  name: `swiotlb ${name}`,
  unit: "mapping",
  smoke: 500,
  full,
  contenders: [
    { name: "map and unmap", prepare: bounce(length) },
    { name: "the copies alone", prepare: copyOnly(length) },
  ],
});

export const benches: readonly Bench[] = [
  bench("256 bytes", 256, 1_000_000),
  bench("4 KiB", 4096, 500_000),
  bench("64 KiB", 65_536, 50_000),
];
