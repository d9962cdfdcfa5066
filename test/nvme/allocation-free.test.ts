/** The way from a request to a data pointer and back makes no objects: not its own, nor those of address space and tables. */
import { expect, test } from "vitest";
import { DmaAddr } from "../../src/base/index.ts";
import {
  Bio,
  BlockRequest,
  DEFAULT_LIMITS,
  type DmaOps,
  type QueueLimits,
  TwoStepOps,
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
import { Dma, type IovaRange } from "../../src/dma/index.ts";
import { SimulatedUnit, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { viewOf } from "../../src/layouts/nvme/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { bytesPerCall, NOTHING } from "../models/heap-growth.ts";

/** Two or three numbers of 16 bytes: the engine boxes an address of 2 GiB or more where it crosses a call that is not inlined. */
const ADDRESSES = 56;

/** Address space that costs nothing: one range for all. */
const RANGE = {
  address: DmaAddr(0x1000_0000),
  link: () => {},
  sync: () => {},
  destroy: () => {},
} as unknown as IovaRange;

const free = (ranges: boolean): DmaOps => ({
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

/** Real address space: a domain with page tables and an allocator. */
function translated(mode: "strict" | "lazy"): DmaOps {
  const unit = new SimulatedUnit();
  const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock: new VirtualClock(), mode });
  unit.attach(8, domain.tables);
  return new TwoStepOps(new Dma({ domain }));
}

for (const [name, pages, ops, sgls, limit] of [
  ["one segment", 1, free(false), true, NOTHING],
  ["one range, an inline descriptor", 32, free(true), true, NOTHING],
  ["one range, a PRP list", 32, free(true), false, NOTHING],
  ["32 segments by themselves, PRPs and records", 32, free(false), false, NOTHING],
  ["32 segments by themselves, an SGL", 32, free(false), true, NOTHING],
  ["one range of a real domain, strict, an inline descriptor", 32, translated("strict"), true, ADDRESSES],
  ["one range of a real domain, strict, a PRP list", 32, translated("strict"), false, ADDRESSES],
  ["one range of a real domain, lazy", 32, translated("lazy"), true, ADDRESSES],
  ["one segment in a real domain, strict", 1, translated("strict"), true, ADDRESSES],
] as [string, number, DmaOps, boolean, number][])
  test(`${name}: split, map and unmap allocate nothing`, () => {
    const pools = new DescriptorPools(
      new DescriptorPool(SMALL_BLOCK, allocate),
      new DescriptorPool(LARGE_BLOCK, allocate),
    );
    const options = { sgls, metadataSgls: false, sglThreshold: 4096, untrusted: false };
    const mapper = new DataMapper(ops, LIMITS, options, pools, new RecordPool());
    const [mapping, bio, front, request, list] = [
      new CommandMapping(),
      new Bio(),
      new Bio(),
      new BlockRequest(),
      new VectorList(),
    ];
    const command = viewOf(new Uint8Array(64));
    const vecs = Array.from({ length: pages }, (_, i) => ({ phys: (0x1000_0000 + i * 8192) as never, length: 4096 }));
    const bytes = bytesPerCall(
      256,
      () => {
        list.clear();
        list.addAll(vecs);
        bio.set("read", 0, list, LIMITS);
        bio.split(LIMITS, front);
        request.start(front);
        mapper.mapData(mapping, request, command, 0);
        mapper.unmap(mapping);
      },
      limit,
    );
    expect(bytes).toBeLessThan(limit);
    expect(pools.inUse).toBe(0);
  });
