/** What tests of data pointers stand on: a mapper on its own, memory for its lists, and the controller's reading of them. */
import { expect } from "vitest";
import { DmaAddr, DmaError, hex, IovaPage, KiB, PAGE_SIZE } from "../../src/base/index.ts";
import {
  Bio,
  BlockRequest,
  DEFAULT_LIMITS,
  type DmaOps,
  type PeerRoute,
  PhysicalVectors,
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
  type MapperOptions,
  RecordPool,
  SMALL_BLOCK,
} from "../../src/consumers/nvme/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { DataRuns, readPrps, readSgl } from "../../src/hosts/simulated/devices/nvme/data.ts";
import { SimulatedUnit, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { COMMAND, get64, POINTERS, viewOf } from "../../src/layouts/nvme/index.ts";
import { type TableLayout, vtdSecondStage } from "../../src/layouts/pagetable/index.ts";

export type Run = readonly [address: number, length: number];
export const A: number = 0x1000_0000;
export const DESCRIPTORS: number = 2 ** 44;
export const REQUESTER = 0x100;

/** Memory for descriptors, which the controller reads. It fails the k-th time it is asked. */
export class DescriptorMemory {
  readonly #pages: Uint8Array[] = [];
  failAt = 0;
  asked = 0;

  allocate = (length: number): { address: DmaAddr; bytes: Uint8Array; free(): void } => {
    if (++this.asked === this.failAt) throw new DmaError("ERR_DMA_TEST", "ENOMEM", "no descriptor memory");
    const bytes = new Uint8Array(length);
    this.#pages.push(bytes);
    return { address: DmaAddr(DESCRIPTORS + (this.#pages.length - 1) * PAGE_SIZE), bytes, free: () => {} };
  };

  read(address: DmaAddr, into: Uint8Array): boolean {
    const at = address - DESCRIPTORS;
    const page = this.#pages[Math.floor(at / PAGE_SIZE)];
    if (!page || (at % PAGE_SIZE) + into.length > PAGE_SIZE) return false;
    into.set(page.subarray(at % PAGE_SIZE, (at % PAGE_SIZE) + into.length));
    return true;
  }

  write(): boolean {
    return false;
  }
}

/** Every address is what it is; what is mapped is counted. */
export class PlainDoor implements DmaOps {
  readonly mergeBoundary = 0;
  readonly needsUnmap: boolean = true;
  readonly live: Map<string, number> = new Map();
  peer: PeerRoute = { type: "none", busOffset: 0 };
  failAt = 0;
  calls = 0;

  providerOf(): undefined {
    return undefined;
  }

  peerRoute(): PeerRoute {
    return this.peer;
  }

  tryReserveIova(): undefined {
    return undefined;
  }

  mapPhys(phys: number, length: number): DmaAddr {
    if (++this.calls === this.failAt) throw new DmaError("ERR_DMA_TEST", "ENOMEM", "no");
    const key = `${phys} ${length}`;
    this.live.set(key, (this.live.get(key) ?? 0) + 1);
    return DmaAddr(phys);
  }

  unmapPhys(address: DmaAddr, length: number): void {
    const key = `${address} ${length}`;
    const count = this.live.get(key) ?? 0;
    if (count === 0) throw new Error(`${key} is not mapped`);
    if (count === 1) this.live.delete(key);
    else this.live.set(key, count - 1);
  }
}

export const OPTIONS: MapperOptions = { sgls: false, metadataSgls: false, sglThreshold: 32 * KiB, untrusted: false };
export const LIMITS: QueueLimits = { ...DEFAULT_LIMITS, blockBytes: 1, maxIntegritySegments: 15, peerMemory: true };

export class Bench {
  readonly memory: DescriptorMemory = new DescriptorMemory();
  readonly pools: DescriptorPools = new DescriptorPools(
    new DescriptorPool(SMALL_BLOCK, this.memory.allocate),
    new DescriptorPool(LARGE_BLOCK, this.memory.allocate),
  );
  readonly records: RecordPool = new RecordPool();
  readonly mapping: CommandMapping = new CommandMapping();
  readonly command: DataView = viewOf(new Uint8Array(64));
  readonly mapper: DataMapper;

  constructor(ops: DmaOps, options: Partial<MapperOptions> = {}) {
    this.mapper = new DataMapper(ops, LIMITS, { ...OPTIONS, ...options }, this.pools, this.records);
  }

  map(request: BlockRequest, passthrough = false): string {
    return this.mapper.mapData(this.mapping, request, this.command, 0, passthrough);
  }

  /** The controller's reading of the data pointer. */
  read(bytes: number): { status: number; runs: Run[] } {
    const runs = new DataRuns();
    const at = COMMAND.dataPointer;
    const { command, memory } = this;
    const status =
      (command.getUint8(COMMAND.flags) & POINTERS.mask) === POINTERS.prp
        ? readPrps(memory, get64(command, at), get64(command, at + 8), bytes, runs)
        : readSgl(memory, command, at, bytes, runs, false);
    return { status, runs: runs.addresses.map((address, i) => [address, runs.lengths[i]!]) };
  }

  get prps(): string[] {
    return [hex(get64(this.command, COMMAND.dataPointer)), hex(get64(this.command, COMMAND.dataPointer + 8))];
  }

  get inUse(): number {
    return this.pools.inUse + this.records.inUse;
  }
}

export function requestOf(vecs: readonly Run[], provider?: object, integrity?: readonly Run[]): BlockRequest {
  const [data, metadata] = [new VectorList(), new VectorList()];
  for (const [phys, length] of vecs) data.add(phys, length, provider);
  for (const [phys, length] of integrity ?? []) metadata.add(phys, length);
  const bio = new Bio();
  const limits = { ...LIMITS, ...(integrity && { blockBytes: 512 }) };
  bio.set("read", 0, data, limits, integrity && metadata, integrity && (metadata.bytes / data.bytes) * 512);
  const front = new Bio();
  expect(bio.split(limits, front)).toBe(false);
  const request = new BlockRequest();
  request.start(front);
  return request;
}

/** Runs with neighbours joined, as sets of bytes compare. */
export function joined(runs: Iterable<Run>): Run[] {
  const all: [number, number][] = [];
  for (const [address, length] of runs) {
    const last = all.at(-1);
    if (last && last[0] + last[1] === address) last[1] += length;
    else all.push([address, length]);
  }
  return all;
}

export function intended(request: BlockRequest): Run[] {
  const vectors = new PhysicalVectors();
  vectors.start(request.first, LIMITS);
  const runs: Run[] = [];
  while (vectors.next()) runs.push([vectors.phys, vectors.length]);
  return joined(runs);
}

export const pages = (count: number, at: number = A): Run[] =>
  Array.from({ length: count }, (_, i) => [at + i * 8192, PAGE_SIZE]);

/** An IOMMU, and a way back from its addresses. */
export function translated(options: { lastPage?: number; layout?: TableLayout; countSteps?: boolean } = {}): {
  dma: Dma;
  ops: TwoStepOps;
  /** Where the device's addresses lead. */
  back(runs: readonly Run[]): Run[];
  /** Entries in the page table. */
  mapped(): number;
  unit: SimulatedUnit;
} {
  const unit = new SimulatedUnit();
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit,
    clock: new VirtualClock(),
    mode: "strict",
    ...options,
  });
  unit.attach(REQUESTER, domain.tables);
  const dma = new Dma({ domain });
  const back = (runs: readonly Run[]): Run[] => {
    const found: Run[] = [];
    for (const [address, length] of runs)
      for (let at = 0; at < length; ) {
        const offset = (address + at) % PAGE_SIZE;
        const piece = Math.min(PAGE_SIZE - offset, length - at);
        const page = unit.translate(REQUESTER, IovaPage.of(DmaAddr(address + at)), "write");
        found.push([page * PAGE_SIZE + offset, piece]);
        at += piece;
      }
    return joined(found);
  };
  const mapped = (): number => dma.counters.leavesWritten - dma.counters.leavesCleared;
  return { dma, ops: new TwoStepOps(dma), back, mapped, unit };
}
