/**
 * What mapping costs an NVMe request: in two steps, one-shot for each page, and by a scatterlist; 128 KiB of scattered pages, and 4
 * KiB. And whole requests, from `read` to the end of the promise, with the simulated controller in between.
 *
 * All contenders map the same vectors for the same device and give them back. One-shot and scatterlist are what drivers did before,
 * through the same interface (block/older-ops.ts).
 */
import { type Bench, type Contender, fold, HASH } from "../../../bench/bench.ts";
import { MiB, PhysAddr, type Random } from "../../base/index.ts";
import { Dma } from "../../dma/index.ts";
import { NvmeController, SimulatedHost, SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { viewOf } from "../../layouts/nvme/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import {
  Bio,
  BlockRequest,
  DEFAULT_LIMITS,
  OneShotOps,
  ScatterlistOps,
  TwoStepOps,
  VectorList,
} from "../block/index.ts";
import {
  CommandMapping,
  DataMapper,
  DescriptorPool,
  DescriptorPools,
  LARGE_BLOCK,
  Nvme,
  RecordPool,
  SMALL_BLOCK,
} from "./index.ts";

function scene(pages: number, random: Random) {
  const unit = new SimulatedUnit();
  const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock: new VirtualClock(), mode: "strict" });
  const dma = new Dma({ domain, maxSegmentSize: 2 ** 32 - 1 });
  const frames = random.shuffle(Array.from({ length: pages }, (_, i) => i * 2));
  const vecs = frames.map((frame) => ({ phys: PhysAddr((0x40000 + frame) * 4096), length: 4096 }));
  return { dma, vecs };
}

const pools = (): DescriptorPools => {
  let next = 2 ** 40;
  const allocate = (length: number) => {
    next += length;
    return { address: (next - length) as never, bytes: new Uint8Array(length), free: () => {} };
  };
  return new DescriptorPools(new DescriptorPool(SMALL_BLOCK, allocate), new DescriptorPool(LARGE_BLOCK, allocate));
};

function mapping(name: string, pages: number, Ops: new (dma: Dma) => TwoStepOps): Contender {
  return {
    name,
    prepare: (random) => {
      const { dma, vecs } = scene(pages, random);
      const options = { sgls: true, metadataSgls: false, sglThreshold: 32_768, untrusted: false };
      const mapper = new DataMapper(new Ops(dma), DEFAULT_LIMITS, options, pools(), new RecordPool());
      const held = new CommandMapping();
      const [bio, front, request, list] = [new Bio(), new Bio(), new BlockRequest(), new VectorList()];
      const command = viewOf(new Uint8Array(64));
      return (units) => {
        let hash = HASH;
        for (let i = 0; i < units; i++) {
          list.clear();
          list.addAll(vecs);
          bio.set("read", 0, list, DEFAULT_LIMITS);
          bio.split(DEFAULT_LIMITS, front);
          request.start(front);
          mapper.mapData(held, request, command, 0);
          hash = fold(hash, command.getUint32(24, true));
          mapper.unmap(held);
        }
        return { units, hash };
      };
    },
  };
}

/** Requests of `pages` pages on a disk that answers at once, `depth` at a time. */
const whole = (name: string, pages: number, depth: number, Ops: new (dma: Dma) => TwoStepOps): Contender => ({
  name,
  prepare: (random) => {
    const host = new SimulatedHost({ memoryBytes: 64 * MiB, iommu: {} });
    const { clock } = host;
    const [disk] = host.plug("0.0", new NvmeController({ namespaces: [{ blocks: 1 << 20 }], serviceMs: 0 }));
    const { device, dma } = host.openDevice(disk!.name);
    const buffer = host.memory.allocate(2 * pages * 4096);
    const order = random.shuffle(Array.from({ length: pages }, (_, i) => i));
    const vecs = order.map((i) => ({ phys: PhysAddr(buffer.phys + i * 8192), length: 4096 }));
    const opening = clock.run(Nvme.open(device, dma, { clock, queues: 1, ops: new Ops(dma) }));
    return async (units) => {
      const nvme = await opening;
      let hash = HASH;
      for (let done = 0; done < units; done += depth) {
        const batch: Promise<void>[] = [];
        for (let i = 0; i < depth; i++) batch.push(nvme.read(((done + i) * 8 * pages) % 65_536, vecs));
        await clock.run(Promise.all(batch));
        hash = fold(hash, nvme.counters.requests);
      }
      return { units, hash };
    };
  },
});

const WAYS = [
  ["two-step", TwoStepOps],
  ["scatterlist", ScatterlistOps],
  ["one-shot for each segment", OneShotOps],
] as const;

export const benches: readonly Bench[] = [
  {
    name: "NVMe: map and unmap a request of 128 KiB, 32 scattered pages",
    unit: "request",
    smoke: 64,
    full: 50_000,
    contenders: WAYS.map(([name, Ops]) => mapping(name, 32, Ops)),
    sameHash: false, // the first address of a scatterlist is that of a range; one by one, each page has its own
  },
  {
    name: "NVMe: map and unmap a request of 4 KiB",
    unit: "request",
    smoke: 64,
    full: 400_000,
    contenders: [mapping("one segment, whatever the way", 1, TwoStepOps)],
  },
  {
    name: "NVMe: whole requests of 128 KiB in sequence, driver and simulated controller, depth 8",
    unit: "request",
    smoke: 16,
    full: 2048,
    contenders: WAYS.map(([name, Ops]) => whole(name, 32, 8, Ops)),
    sameHash: false,
  },
  {
    name: "NVMe: whole requests of 4 KiB, driver and simulated controller, depth 32",
    unit: "request",
    smoke: 32,
    full: 16_384,
    contenders: [whole("one segment, whatever the way", 1, 32, TwoStepOps)],
  },
];
