/**
 * The DMA API's contract on any host: a simulated machine, or a kernel with a real device.
 *
 * Idea: a host is a {@link Dma}, memory, and one device that copies. Reading and writing are both seen through that copy, so
 * the cases need nothing that a small real device cannot do. What a host cannot do it says by its capabilities; a case that
 * needs more is named as skipped, with the reason, and often there is a case that says what happens instead.
 * Promises: after every case, whatever it did, nothing is mapped or reserved and the counters balance.
 * Not for: vitest: the cases also run where there is none.
 */
import { deepEqual, equal, fail, ok } from "node:assert/strict";
import { PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import { Dma, type DmaMapping, type DmaVec, type HostCapabilities } from "../../src/dma/index.ts";
import { pattern } from "./outcome.ts";

/** What the device copies at once, at most: bytes. */
export const MOST_COPIED = 4096;

export interface AnyHost {
  readonly dma: Dma;
  readonly capabilities: HostCapabilities;
  /** Memory that starts on a granule of the device's address space. */
  allocate(bytes: number): { readonly phys: PhysAddr; free(): void };
  /** Hosts with peer routes: {@link MOST_COPIED} bytes of another device's memory that the device can reach. */
  peerMemory?(): PhysAddr;
  /** The device reads `length` bytes, at most {@link MOST_COPIED}, and writes them elsewhere. What is refused is silent. */
  copy(from: number, to: number, length: number): Promise<void> | void;
  /** The machine is known to misplace what starts on the last byte of a page: cases start a byte earlier then. */
  readonly missesLastBytes?: boolean;
  /** What waits for a flush is flushed. */
  settle(): void;
  /** Everything that a call can leave behind. */
  state(): unknown;
}

/** What cases ask of a host. */
export type Need = keyof HostCapabilities | "translation";

const LACKS: Readonly<Record<Need, string>> = {
  bounce: "this host has no bounce pool",
  cacheControl: "this host cannot maintain CPU caches",
  peerRoutes: "this host knows no routes between devices",
  lazy: "this host's invalidations cannot wait",
  splits: "this host cannot unmap a part of what was mapped together",
  physicalAddresses: "this host's addresses are a process's, not the machine's",
  translation: "without an IOMMU a device reaches all of memory, and there is nothing to reserve",
};

export interface Case {
  readonly name: string;
  /** What the host must be able to do. */
  readonly needs?: readonly Need[];
  /** What it must not be able to do: the case says what happens instead. */
  readonly lacks?: Need;
  run(stage: Stage): Promise<void> | void;
}

const can = ({ dma, capabilities }: AnyHost, need: Need): boolean =>
  need === "translation" ? dma.domain !== undefined : capabilities[need];

/** Why `each` does not run on `host`; undefined if it does. */
export function whyNot(host: AnyHost, each: Case): string | undefined {
  const missing = each.needs?.find((need) => !can(host, need));
  if (missing !== undefined) return LACKS[missing];
  return each.lacks !== undefined && can(host, each.lacks) ? `it is for hosts that lack ${each.lacks}` : undefined;
}

/** Runs one case, and looks at what it left. */
export async function runCase(host: AnyHost, each: Case): Promise<void> {
  host.settle();
  const before = host.state();
  const { counters } = host.dma;
  const open = counters.iovaAllocations - counters.iovaFrees;
  const mapped = counters.leavesWritten - counters.leavesCleared;
  const stage = new Stage(host);
  try {
    await each.run(stage);
  } finally {
    stage.end();
    host.settle();
  }
  deepEqual(host.state(), before, "what is left behind");
  equal(counters.iovaAllocations - counters.iovaFrees, open, "ranges that were not given back");
  if (host.capabilities.splits) return; // what a split leaves of a leaf is written once more
  equal(counters.leavesWritten - counters.leavesCleared, mapped, "pages that were not unmapped");
}

/** Names the first byte that differs. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  equal(actual.length, expected.length, `${what}: bytes`);
  const at = expected.findIndex((byte, i) => actual[i] !== byte);
  if (at >= 0) fail(`${what}: byte ${at} of ${expected.length} is ${actual[at]}, expected ${expected[at]}`);
}

/** Memory, and a copy of what must be in it. */
export class Memory {
  readonly phys: PhysAddr;
  readonly bytes: Uint8Array;
  readonly #dma: Dma;

  constructor(dma: Dma, phys: PhysAddr, bytes: Uint8Array) {
    this.#dma = dma;
    this.phys = phys;
    this.bytes = bytes;
    this.write(0, bytes);
  }

  at(offset: number): PhysAddr {
    return PhysAddr(this.phys + offset);
  }

  /** The CPU writes. */
  write(offset: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, offset);
    this.#dma.device.machine.memory!.write(this.at(offset), bytes);
  }

  /** The CPU sees what must be there, to the last byte. */
  check(what = "memory"): void {
    const seen = new Uint8Array(this.bytes.length);
    this.#dma.device.machine.memory!.read(this.phys, seen);
    sameBytes(seen, this.bytes, what);
  }
}

/** What a case works with; what it took is given back at its end. */
export class Stage {
  readonly host: AnyHost;
  readonly dma: Dma;
  /** Bytes of the smallest thing that can be mapped. */
  readonly granule: number;
  readonly #taken: (() => void)[] = [];
  #mirror: { memory: Memory; mapping: DmaMapping } | undefined;

  constructor(host: AnyHost) {
    this.host = host;
    this.dma = host.dma;
    this.granule = host.dma.domain?.granule ?? PAGE_SIZE;
  }

  /** Filled memory on a granule. */
  memory(bytes: number, seed = 1): Memory {
    const { phys, free } = this.host.allocate(bytes);
    this.#taken.push(free);
    return new Memory(this.dma, phys, pattern(bytes, seed));
  }

  /** Filled memory of another device. */
  peerMemory(): Memory {
    return new Memory(this.dma, this.host.peerMemory!(), pattern(MOST_COPIED, 2));
  }

  /** The memory that a range of the device's address space reaches; -1: none. */
  reached(address: number): number {
    const page = this.dma.domain!.lookup(Math.floor(address / PAGE_SIZE) as never);
    return page < 0 ? -1 : page * PAGE_SIZE + (address % PAGE_SIZE);
  }

  /** What the device sees at `address`. */
  async seen(address: number, length: number): Promise<Uint8Array> {
    const { memory, mapping } = this.#mirrored();
    const into = new Uint8Array(length);
    for (let at = 0; at < length; at += MOST_COPIED) {
      const part = Math.min(MOST_COPIED, length - at);
      await this.host.copy(address + at, mapping.address, part);
      mapping.syncForCpu();
      this.dma.device.machine.memory!.read(memory.phys, into.subarray(at, at + part));
      mapping.syncForDevice();
    }
    return into;
  }

  async reads(address: number, expected: Uint8Array, what = "device"): Promise<void> {
    sameBytes(await this.seen(address, expected.length), expected, what);
  }

  /** The device writes. */
  async writes(address: number, bytes: Uint8Array): Promise<void> {
    const { memory, mapping } = this.#mirrored();
    for (let at = 0; at < bytes.length; at += MOST_COPIED) {
      const part = bytes.subarray(at, at + MOST_COPIED);
      mapping.syncForCpu();
      memory.write(0, part);
      mapping.syncForDevice();
      await this.host.copy(mapping.address, address + at, part.length);
    }
  }

  /** The device neither writes `memory` through `address`, nor sees there what is in it. */
  async outOfReach(address: number, memory: Memory, inside = 0): Promise<void> {
    const secret = memory.bytes.slice(inside, inside + 16);
    await this.writes(
      address,
      secret.map((byte) => byte ^ 0xff),
    ); // besides, no older copy of the secret is left in the device
    memory.check("out of reach");
    ok(Buffer.compare(await this.seen(address, 16), secret) !== 0, "the device sees what is out of its reach");
  }

  end(): void {
    this.#mirror?.mapping.unmap();
    for (const free of this.#taken) free();
  }

  #mirrored(): { memory: Memory; mapping: DmaMapping } {
    if (this.#mirror === undefined) {
      const memory = this.memory(MOST_COPIED, 99);
      this.#mirror = { memory, mapping: this.dma.map(memory.phys, MOST_COPIED, "bidirectional") };
    }
    return this.#mirror;
  }
}

/** Where byte `offset` of all outputs lies. */
export function addressAt(outputs: readonly DmaVec[], offset: number): number {
  let left = offset;
  for (const { address, length } of outputs) {
    if (left < length) return address + left;
    left -= length;
  }
  return fail(`${offset} is past the end of the outputs`);
}

/** A second front door to the same device, which is believed to be otherwise. */
export function believed(stage: Stage, options: { untrusted?: boolean; coherent?: boolean }): Dma {
  const { domain, device } = stage.dma;
  return new Dma({
    ...(domain && { domain }),
    machine: device.machine,
    mask: device.mask,
    coherent: device.coherent,
    ...options,
  });
}
