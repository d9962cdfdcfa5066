/**
 * What mapping costs an NVMe request: in two steps, one-shot for each page, and by a scatterlist; 128 KiB of scattered pages, and 4
 * KiB. And whole requests, from `read` to the end of the promise, with the simulated controller in between.
 *
 * All contenders of a mapping map the same vectors for the same device and give them back. One-shot and scatterlist are what drivers
 * did before; both include what they must keep: records of segments, or a table of entries.
 */
import { type Bench, type Contender, fold, HASH } from "../../../bench/bench.ts";
import { MiB, PhysAddr, type Random } from "../../base/index.ts";
import { Dma } from "../../dma/index.ts";
import { NvmeController, SimulatedMachine, SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { IommuDomain } from "../../iommu/index.ts";
import { viewOf } from "../../layouts/nvme/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { Bio, BlockRequest, DEFAULT_LIMITS, DmaDoor, VectorList } from "../block/index.ts";
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

/** Never a range: each segment by itself. */
class OneShotDoor extends DmaDoor {
  override tryReserveIova(): undefined {
    return undefined;
  }
}

function scene(pages: number, random: Random) {
  const unit = new SimulatedUnit();
  const domain = new IommuDomain({ layout: vtdSecondStage(), unit, clock: new VirtualClock(), mode: "strict" });
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

function mapping(name: string, pages: number, Door: new (dma: Dma) => DmaDoor): Contender {
  return {
    name,
    prepare: (random) => {
      const { dma, vecs } = scene(pages, random);
      const options = { sgls: true, metadataSgls: false, sglThreshold: 32_768, untrusted: false };
      const mapper = new DataMapper(new Door(dma), DEFAULT_LIMITS, options, pools(), new RecordPool());
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

const scatterlist = (pages: number): Contender => ({
  name: "scatterlist (mapping alone)",
  prepare: (random) => {
    const { dma, vecs } = scene(pages, random);
    return (units) => {
      let hash = HASH;
      for (let i = 0; i < units; i++) {
        const mapped = dma.mapScatterlist(vecs, "from-device");
        hash = fold(hash, mapped.segments[0]!.address);
        mapped.unmap();
      }
      return { units, hash };
    };
  },
});

/** Requests of `pages` pages on a disk that answers at once, `depth` at a time. */
const whole = (name: string, pages: number, depth: number): Contender => ({
  name,
  prepare: (random) => {
    const unit = new SimulatedUnit();
    const machine = new SimulatedMachine({ memoryBytes: 64 * MiB, translator: unit });
    const { clock } = machine;
    const device = machine.plug("0.0", new NvmeController({ namespaces: [{ blocks: 1 << 20 }], serviceMs: 0 }))[0]!;
    const domain = new IommuDomain({ layout: vtdSecondStage(), unit, clock, mode: "strict" });
    unit.attach(device.requester, domain.tables);
    const dma = new Dma({ domain, machine, node: device.node });
    const buffer = machine.ram.allocate(2 * pages * 4096);
    const order = random.shuffle(Array.from({ length: pages }, (_, i) => i));
    const vecs = order.map((i) => ({ phys: PhysAddr(buffer.phys + i * 8192), length: 4096 }));
    const opening = clock.run(Nvme.open(device, dma, { clock, queues: 1 }));
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

export const benches: readonly Bench[] = [
  {
    name: "NVMe: map and unmap a request of 128 KiB, 32 scattered pages",
    unit: "request",
    smoke: 64,
    full: 50_000,
    contenders: [
      mapping("two-step", 32, DmaDoor),
      scatterlist(32),
      mapping("one-shot for each segment", 32, OneShotDoor),
    ],
    sameHash: false,
  },
  {
    name: "NVMe: map and unmap a request of 4 KiB",
    unit: "request",
    smoke: 64,
    full: 400_000,
    contenders: [mapping("one segment", 1, DmaDoor), scatterlist(1)],
    sameHash: false,
  },
  {
    name: "NVMe: whole requests, driver and simulated controller",
    unit: "request",
    smoke: 32,
    full: 8192,
    contenders: [whole("4 KiB, depth 32", 1, 32), whole("128 KiB, depth 8", 32, 8)],
    sameHash: false,
  },
];
