/** The way from a request to a data pointer and back makes no objects of its own: only what address space itself costs. */
import { expect, test } from "vitest";
import { DmaAddr } from "../../src/base/index.ts";
import {
  Bio,
  BlockRequest,
  DEFAULT_LIMITS,
  type MappingDoor,
  type QueueLimits,
  VectorList,
} from "../../src/consumers/block/index.ts";
import {
  CommandMapping,
  DataMapper,
  DescriptorPool,
  DescriptorPools,
  LARGE_BLOCK,
  RecordPool,
  SMALL_BLOCK,
} from "../../src/consumers/nvme/index.ts";
import type { IovaRange } from "../../src/dma/index.ts";
import { viewOf } from "../../src/layouts/nvme/index.ts";

/** Bytes of heap a call costs once it is hot: the median over many stretches, and the best of several tries. */
function bytesPerCall(calls: number, call: () => void): number {
  const stretch = (): number => {
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < calls; i++) call();
    return (process.memoryUsage().heapUsed - before) / calls;
  };
  let best = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 20 && best >= LIMIT; attempt++) {
    for (let i = 0; i < 60; i++) stretch();
    best = Math.min(best, Array.from({ length: 61 }, stretch).sort((x, y) => x - y)[30]!);
  }
  return best;
}

/** Far below the smallest object. */
const LIMIT = 2;

/** Address space that costs nothing: one range for all. */
const RANGE = {
  address: DmaAddr(0x1000_0000),
  link: () => {},
  sync: () => {},
  destroy: () => {},
} as unknown as IovaRange;

const door = (ranges: boolean): MappingDoor => ({
  mergeBoundary: ranges ? 4095 : 0,
  needsUnmap: true,
  providerOf: () => undefined,
  peerRoute: () => ({ type: "none", busOffset: 0 }),
  tryReserveIova: () => (ranges ? RANGE : undefined),
  mapPhys: (phys) => DmaAddr(phys),
  unmapPhys: () => {},
});

let next = 0x2000_0000;
const allocate = (length: number) => {
  next += length;
  return { address: DmaAddr(next - length), bytes: new Uint8Array(length), free: () => {} };
};
const LIMITS: QueueLimits = DEFAULT_LIMITS;

for (const [name, pages, ranges, sgls] of [
  ["one segment", 1, false, true],
  ["one range, an inline descriptor", 32, true, true],
  ["one range, a PRP list", 32, true, false],
  ["32 segments by themselves, PRPs and records", 32, false, false],
  ["32 segments by themselves, an SGL", 32, false, true],
] as const)
  test(`${name}: split, map and unmap allocate nothing`, () => {
    const pools = new DescriptorPools(
      new DescriptorPool(SMALL_BLOCK, allocate),
      new DescriptorPool(LARGE_BLOCK, allocate),
    );
    const options = { sgls, metadataSgls: false, sglThreshold: 4096, untrusted: false };
    const mapper = new DataMapper(door(ranges), LIMITS, options, pools, new RecordPool());
    const [mapping, bio, front, request, list] = [
      new CommandMapping(),
      new Bio(),
      new Bio(),
      new BlockRequest(),
      new VectorList(),
    ];
    const command = viewOf(new Uint8Array(64));
    const vecs = Array.from({ length: pages }, (_, i) => ({ phys: (0x1000_0000 + i * 8192) as never, length: 4096 }));
    const bytes = bytesPerCall(256, () => {
      list.clear();
      list.addAll(vecs);
      bio.set("read", 0, list, LIMITS);
      bio.split(LIMITS, front);
      request.start(front);
      mapper.mapData(mapping, request, command, 0);
      mapper.unmap(mapping);
    });
    expect(bytes).toBeLessThan(LIMIT);
    expect(pools.inUse).toBe(0);
  });
