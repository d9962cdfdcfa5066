/**
 * A machine on which devices share buffers: an owner with memory, a neighbour below the same switch, and others that only the host
 * bridge connects.
 */
import { type Counters, MiB, type PhysAddr, PhysPage } from "../../src/base/index.ts";
import { BarPages } from "../../src/consumers/dmabuf/index.ts";
import type { DmaVec, OpenDeviceOptions } from "../../src/dma/index.ts";
import {
  DmaEngine,
  SimulatedHost,
  type SimulatedHostOptions,
  type SimulatedOpenDevice,
} from "../../src/hosts/simulated/index.ts";
import type { P2pProvider } from "../../src/p2p/index.ts";
import { type PageAllocator, type Steps, WAITING } from "../../src/platform/index.ts";

/** A device of the machine, open. */
export interface SharingDevice {
  readonly name: string;
  readonly engine: DmaEngine;
  readonly open: SimulatedOpenDevice;
  readonly provider: P2pProvider;
  /** What the device reads at the ranges that it was given; undefined if one byte of them is refused. */
  read(ranges: readonly DmaVec[]): Uint8Array | undefined;
  write(ranges: readonly DmaVec[], bytes: Uint8Array): boolean;
}

export interface SharingMachine {
  readonly host: SimulatedHost;
  /** `owner` and `near` below one switch, `far` and `other` below root ports of their own. */
  readonly owner: SharingDevice;
  readonly near: SharingDevice;
  readonly far: SharingDevice;
  readonly other: SharingDevice;
  readonly counters: (device: SharingDevice) => Counters;
  /** Pages of the owner's memory. */
  readonly ownPages: PageAllocator;
}

/** Bytes of memory that each device has. */
export const DEVICE_MEMORY: number = MiB;

/** What freed pages of these machines hold, so that a device that still reads them is found out. */
export const POISON = 0xdd;

/** @param options.amd the processor routes peers between root ports; true unless said. @param options.far what is said of that device */
export function sharingMachine(
  options: Partial<SimulatedHostOptions> & {
    readonly amd?: boolean;
    readonly mode?: "strict" | "lazy";
    readonly far?: OpenDeviceOptions["limits"];
  } = {},
): SharingMachine {
  const { amd = true, mode = "strict", far: limits, ...rest } = options;
  const cpu = { vendor: "AMD", family: amd ? 0x19 : 0xf };
  const host = new SimulatedHost({
    memoryBytes: 64 * MiB,
    bridges: [{ cpu, rootPorts: [{ switch: [{}, {}] }, {}, {}] }],
    iommu: { mode },
    ...rest,
  });
  const [owner, near, far, other] = ["0.0.0", "0.0.1", "0.1", "0.2"].map((slot, i) =>
    plugIn(host, slot, i === 2 ? limits : undefined),
  );
  return {
    host,
    owner: owner!,
    near: near!,
    far: far!,
    other: other!,
    counters: ({ open }) => open.dma.counters,
    ownPages: poisoned(host, new BarPages(owner!.provider)),
  };
}

function plugIn(host: SimulatedHost, slot: string, limits: OpenDeviceOptions["limits"]): SharingDevice {
  const engine = new DmaEngine({ memoryBytes: DEVICE_MEMORY });
  const [pci] = host.plug(slot, engine);
  pci!.setBusMaster(true);
  const provider = host.peers.add(pci!.node, pci!.node.bars[0]!);
  const open = host.openDevice(pci!.name, { ...(limits && { limits }) });
  open.dma.setMask(2 ** 64);
  return {
    name: pci!.name,
    engine,
    open,
    provider,
    read: (ranges) => engine.gather(ranges.map(({ address, length }) => ({ address, length }))),
    write: (ranges, bytes) =>
      engine.scatter(
        ranges.map(({ address, length }) => ({ address, length })),
        bytes,
      ),
  };
}

/** What is given back is poisoned, and what is given out is zeroed. */
export function poisoned(host: SimulatedHost, pages: PageAllocator): PageAllocator {
  const { memory } = host.machine;
  const fill = (page: PhysPage, count: number, value: number): void =>
    memory.write(PhysPage.start(page), new Uint8Array(count * 4096).fill(value));
  return {
    allocatePages: (count, lastPage) => {
      const page = pages.allocatePages(count, lastPage);
      if (page !== undefined) fill(page, count, 0);
      return page;
    },
    freePages: (page, count) => {
      fill(page, count, POISON);
      pages.freePages(page, count);
    },
  };
}

/** Writes `value` into every byte of a page of storage. */
export const fillPage = (host: SimulatedHost, phys: PhysAddr, value: number): void =>
  host.machine.memory.write(phys, new Uint8Array(4096).fill(value));

/** One number for each page of what was read; -1 where a page is not of one number. */
export const pageValues = (bytes: Uint8Array | undefined): number[] | undefined =>
  bytes &&
  Array.from({ length: bytes.length / 4096 }, (_, i) => {
    const page = bytes.subarray(i * 4096, (i + 1) * 4096);
    return page.every((value) => value === page[0]) ? page[0]! : -1;
  });

/** Goes on until the work waits for other work. @throws Error if it ends, or never waits */
export function untilItWaits(steps: Steps<unknown>): void {
  for (let i = 0; i < 1_000; i++) {
    const { done, value } = steps.next();
    if (done) throw new Error("it ended, and did not wait");
    if (value === WAITING) return;
  }
  throw new Error("it does not wait");
}
