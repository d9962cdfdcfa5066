/**
 * A guest with an IOMMU of its own maps and unmaps single pages, at most 1024 at once: what the host pays for each pair, by the way that it
 * lets the guest's device at the guest's memory. Nested, the guest writes its own table, and its invalidations come 32 at a time.
 */
import { type Bench, fold, HASH, type Result } from "../../../bench/bench.ts";
import { type IovaPage, PAGE_SIZE, type PhysPage, Random } from "../../base/index.ts";
import { Iommufd, type NestedHwpt, UnitIommu, VTD_WORDS, VtdUserDevice } from "../../consumers/iommufd/index.ts";
import { Type1Container } from "../../consumers/vfio/index.ts";
import { SimulatedMachine, VirtualClock } from "../../hosts/simulated/index.ts";
import { Frames, SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import { SimulatedVtdUnit, UnitMemory } from "../../hosts/simulated/units/vtd/index.ts";
import { VtdUnit } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { HWPT_FLAGS } from "../../layouts/uapi/index.ts";
import { Arena } from "../../pagetable/index.ts";
import { newPageEntry, UserAddr } from "../../platform/index.ts";

const VA = 2 ** 32;
const RAM_PAGES = 4096;
const LIVE = 1024;
const BATCH = 32;
const SLOTS_AT = 2 ** 31;
const PAGE = BigInt(PAGE_SIZE);
const RW = { read: true, write: true, mmio: false };
const EVERYTHING = { capability: 0n, extended: 0n };

/** A guest's memory and device; how it maps a page of it at a slot, and unmaps a slot. */
interface Way {
  map(slot: number, page: number): void;
  unmap(slot: number): void;
}

/** A machine with a VT-d unit that nests, and a process with the guest's memory. */
function machineOf() {
  const arena = new Arena({ basePage: (2 ** 35) as PhysPage });
  const machine = new SimulatedMachine({ memoryBytes: 2 ** 30 });
  const clock = new VirtualClock();
  const memory = new UnitMemory(arena, machine.memory);
  const hardware = new SimulatedVtdUnit({ memory, clock, scalableMode: true, nested: true });
  const unit = new VtdUnit({ registers: hardware, memory: arena, clock });
  const iommu = new UnitIommu({ unit, layout: vtdSecondStage(), tableMemory: arena });
  const frames = new Frames({ pages: machine.ram, memory: machine.memory });
  const process = new SimulatedProcess(frames, { memlockBytes: Number.POSITIVE_INFINITY });
  process.memory.map({ address: UserAddr(VA), length: RAM_PAGES * PAGE_SIZE });
  for (let page = 0; page < RAM_PAGES; page++) process.memory.touch(UserAddr(VA + page * PAGE_SIZE), true);
  const device = (requester: number): VtdUserDevice =>
    new VtdUserDevice({ name: `device ${requester}`, iommu, requester, registers: EVERYTHING });
  const reach = (iova: number): number => hardware.translate(0x100, (iova / PAGE_SIZE) as IovaPage, "read");
  return { process, device, reach, frames };
}

type Machine = ReturnType<typeof machineOf>;
const iovaOf = (slot: number): bigint => BigInt(SLOTS_AT + slot * PAGE_SIZE);

function byContainer({ process, device }: Machine): Way {
  const container = new Type1Container({ v2: true });
  container.attach({ devices: [device(0x100)] });
  return {
    map: (slot, page) => container.map(process, BigInt(VA + page * PAGE_SIZE), iovaOf(slot), PAGE, RW),
    unmap: (slot) => void container.unmap(iovaOf(slot), PAGE),
  };
}

function byMaps({ process, device }: Machine): Way {
  const iommufd = new Iommufd();
  const ioas = iommufd.createIoas();
  iommufd.attach(iommufd.bind(device(0x100)), ioas.id);
  return {
    map: (slot, page) =>
      void iommufd.map(ioas, process, BigInt(VA + page * PAGE_SIZE), { iova: iovaOf(slot), length: PAGE }),
    unmap: (slot) => void ioas.unmap(iovaOf(slot), PAGE),
  };
}

function byCopies({ process, device }: Machine): Way {
  const iommufd = new Iommufd();
  const [ram, ioas] = [iommufd.createIoas(), iommufd.createIoas()];
  iommufd.attach(iommufd.bind(device(0x200)), ram.id);
  iommufd.attach(iommufd.bind(device(0x100)), ioas.id);
  iommufd.map(ram, process, BigInt(VA), { iova: 0n, length: BigInt(RAM_PAGES) * PAGE });
  return {
    map: (slot, page) => void iommufd.copy(ram, BigInt(page) * PAGE, ioas, { iova: iovaOf(slot), length: PAGE }),
    unmap: (slot) => void ioas.unmap(iovaOf(slot), PAGE),
  };
}

/** The guest's tables: its last pages, one below the other, the leaves of 2 MiB each from the fourth on. */
function byNesting({ process, device }: Machine): Way {
  const iommufd = new Iommufd();
  const ram = iommufd.createIoas();
  const bound = iommufd.bind(device(0x100));
  iommufd.map(ram, process, BigInt(VA), { iova: 0n, length: BigInt(RAM_PAGES) * PAGE });
  const parent = iommufd.createHwpt({ device: bound.id, parent: ram.id, flags: HWPT_FLAGS.NEST_PARENT });
  const table = (level: number): number => (RAM_PAGES - 1 - level) * PAGE_SIZE;
  const words = new DataView(new ArrayBuffer(24));
  words.setBigUint64(8, BigInt(table(0)), true);
  words.setUint32(16, 48, true);
  const bytes = new Uint8Array(words.buffer);
  const data = { type: VTD_WORDS, length: 24, read: () => bytes, answer: () => {} };
  const nested = iommufd.createHwpt({ device: bound.id, parent: parent.id, data }) as NestedHwpt;
  iommufd.attach(bound, nested.id);
  const entry = new DataView(new ArrayBuffer(8));
  const store = (at: number, value: number): void => {
    entry.setBigUint64(0, BigInt(value), true);
    process.memory.write(UserAddr(VA + at), new Uint8Array(entry.buffer));
  };
  const first = SLOTS_AT / PAGE_SIZE;
  store(table(0) + (Math.floor(first / 512 ** 3) % 512) * 8, table(1) + 0x27);
  store(table(1) + (Math.floor(first / 512 ** 2) % 512) * 8, table(2) + 0x27);
  for (let leaf = 0; leaf < (LIVE * 2) / 512; leaf++)
    store(table(2) + ((first / 512 + leaf) % 512) * 8, table(3 + leaf) + 0x27);
  const at = (slot: number): number => table(3 + Math.floor(slot / 512)) + (slot % 512) * 8;
  const waiting: Uint8Array[] = [];
  return {
    map: (slot, page) => store(at(slot), page * PAGE_SIZE + 0x67),
    unmap(slot) {
      store(at(slot), 0);
      const request = new DataView(new ArrayBuffer(24));
      request.setBigUint64(0, iovaOf(slot), true);
      request.setBigUint64(8, 1n, true);
      request.setUint32(16, 1, true);
      waiting.push(new Uint8Array(request.buffer));
      if (waiting.length < BATCH) return;
      nested.invalidation.invalidate(waiting);
      waiting.length = 0;
    },
  };
}

function storm(make: (machine: Machine) => Way): (units: number) => Result {
  const machine = machineOf();
  const way = make(machine);
  const random = Random.fromSeed(15);
  const slots = LIVE * 2;
  let next = 0;
  const pages = new Int32Array(slots).fill(-1);
  return (units) => {
    let hash = HASH;
    for (let done = 0; done < units; done++) {
      const slot = next++ % slots;
      const page = random.below(RAM_PAGES - 64);
      way.map(slot, page);
      pages[slot] = page;
      const old = (next + slots - LIVE) % slots;
      if (pages[old]! >= 0) way.unmap(old);
      pages[old] = -1;
      if (done % 64 === 0) {
        // The device gets where it should, by its own walk.
        machine.process.memory.entryAt(UserAddr(VA + page * PAGE_SIZE), ENTRY);
        if (machine.reach(Number(iovaOf(slot))) !== ENTRY.page) throw new Error(`slot ${slot} leads elsewhere`);
      }
      hash = fold(hash, page);
    }
    return { units, hash };
  };
}

const ENTRY = newPageEntry();

export const benches: readonly Bench[] = [
  {
    name: "storm of a guest's IOMMU, map and unmap of a page",
    unit: "pair",
    smoke: 2048,
    full: 100_000,
    contenders: [
      { name: "nested tables", prepare: () => storm(byNesting) },
      { name: "copy of a standing map", prepare: () => storm(byCopies) },
      { name: "iommufd map", prepare: () => storm(byMaps) },
      { name: "container", prepare: () => storm(byContainer) },
    ],
  },
];
