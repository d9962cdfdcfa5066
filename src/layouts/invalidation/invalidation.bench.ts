/** What one strict unmap sends to a VT-d unit, an IOTLB descriptor and a wait: on 32-bit words against bigints. */
import { type Bench, fold, HASH } from "../../../bench/bench.ts";
import type { IovaPage, PhysAddr, Random } from "../../base/index.ts";
import { decodeVtd, writeSecondStageRange, writeWait } from "./index.ts";

const SLOTS = 256;
const STATUS = 0x12345000 as PhysAddr;
const unit = { slotWords: 4, pageSelective: true, maxOrder: 18, drainReads: true, drainWrites: true } as const;

/** 1024 ranges of 1 to 256 pages, below 4 GiB. */
const ranges = (random: Random): Int32Array => {
  const draws = random.fork("ranges");
  return Int32Array.from({ length: 2048 }, (_, i) => (i % 2 === 0 ? draws.below(0xfff00) : 1 + draws.below(256)));
};

const words = (random: Random) => {
  const load = ranges(random);
  const ring = new Uint32Array(SLOTS * 4);
  return (units: number) => {
    let hash = HASH;
    for (let i = 0; i < units; i++) {
      const start = load[(i * 2) & 2047]! as IovaPage;
      const at = (i & 127) * 8;
      writeSecondStageRange(ring, at, unit, 5, start, (start + load[(i * 2 + 1) & 2047]!) as IovaPage, true);
      writeWait(ring, at + 4, STATUS, 2, true, false, false, false);
      hash = fold(hash, ring[at + 2]!);
    }
    return { units, hash };
  };
};

const bigints = (random: Random) => {
  const load = ranges(random);
  const ring = new BigUint64Array(SLOTS * 2);
  return (units: number) => {
    let hash = HASH;
    for (let i = 0; i < units; i++) {
      const start = BigInt(load[(i * 2) & 2047]!);
      const last = start + BigInt(load[(i * 2 + 1) & 2047]!) - 1n;
      let order = 0n;
      while (start >> order !== last >> order) order++;
      const at = (i & 127) * 4;
      const named = order <= 18n;
      ring[at] = 0x500c2n | (named ? 0x30n : 0x20n);
      ring[at + 1] = named ? ((start >> order) << (order + 12n)) | order | 0x40n : 0n;
      ring[at + 2] = 0x200000025n;
      ring[at + 3] = 0x12345000n;
      hash = fold(hash, Number(ring[at + 1]! & 0xffffffffn));
    }
    return { units, hash };
  };
};

/** The other end: a unit reads the ring. */
const read = (random: Random) => {
  const load = ranges(random);
  const ring = new Uint32Array(SLOTS * 4);
  for (let i = 0; i < 128; i++) {
    const start = load[i * 2]! as IovaPage;
    writeSecondStageRange(ring, i * 8, unit, 5, start, (start + load[i * 2 + 1]!) as IovaPage, true);
    writeWait(ring, i * 8 + 4, STATUS, 2, true, false, false, false);
  }
  return (units: number) => {
    let hash = HASH;
    for (let i = 0; i < units; i++) {
      const descriptor = decodeVtd(ring, (i & 255) * 4, 4);
      hash = fold(hash, descriptor.type === "iotlb" ? descriptor.page : 0);
    }
    return { units, hash };
  };
};

export const benches: readonly Bench[] = [
  {
    name: "invalidation, a range and a wait written",
    unit: "submission",
    smoke: 2_000,
    full: 2_000_000,
    contenders: [
      { name: "32-bit words", prepare: words },
      { name: "bigints", prepare: bigints },
    ],
  },
  {
    name: "invalidation, descriptors read",
    unit: "descriptor",
    smoke: 2_000,
    full: 2_000_000,
    contenders: [{ name: "32-bit words", prepare: read }],
  },
];
