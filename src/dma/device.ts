/**
 * What the DMA layer knows of one device and of the machine around it.
 *
 * Idea: a plain record that every path reads: what the device can address, whether it looks into the CPU's caches, whether
 * it is trusted; and the parts of the machine that a path may need. What is not given does not exist on this machine.
 * Not for: deciding anything; that is the paths' work.
 * Specified by: behaviour of Linux 7.2 DMA API (device limits, masks).
 */
import { Counters, type DmaEvent, type Observer, type PhysAddr, type TwoStepEvent } from "../base/index.ts";
import type { P2pRouter } from "../p2p/index.ts";
import type { CacheMaintenance, MemoryEncryption, PageAllocator, PciNode, PhysicalMemory } from "../platform/index.ts";
import type { BouncePool } from "../swiotlb/index.ts";
import type { MappingContract } from "./contract.ts";

/** The parts of a machine that mapping may need. */
export interface DmaMachine {
  /** Memory as the CPU sees it. */
  readonly memory?: PhysicalMemory;
  /** Where coherent memory comes from; without it there is none. */
  readonly pages?: PageAllocator;
  /** The bounce pool; without it what cannot be reached is refused. */
  readonly pool?: BouncePool;
  /** Maintenance of the CPU's caches, for devices that do not look into them. */
  readonly caches?: CacheMaintenance;
  /** Which addresses are shared and which private, in a confidential guest. */
  readonly encryption?: MemoryEncryption;
  /** Which physical addresses are other devices' memory, and the ways there. */
  readonly peers?: P2pRouter;
  /** End of RAM; a device that cannot address all of it may need bounce buffers. No end unless said. */
  readonly ramEnd?: PhysAddr;
}

/** What a device can and cannot do. Changeable while nothing is mapped. */
export interface DmaLimits {
  /** Highest address that the device can emit, inclusive. All addresses unless said. */
  mask: number;
  /** The same for coherent memory; {@link mask} unless said. */
  coherentMask: number;
  /** Highest address that the bus in between can carry, inclusive; 0 for no limit. */
  busLimit: number;
  /** Longest output segment of a scatterlist, bytes; 64 KiB unless said, as in Linux. */
  maxSegmentSize: number;
  /** A segment must not cross a multiple of this + 1; a power of two less one. No boundary unless said. */
  segmentBoundaryMask: number;
  /** Low bits of an address that a bounce buffer must keep; 0 unless said. */
  minAlignMask: number;
}

/** What mapping must know of a device. Everything has a default that fits a coherent, trusted device without limits. */
export interface DeviceOptions extends Partial<DmaLimits> {
  /** For messages, findings and traces; `ssss:bb:dd.f` for PCI devices. */
  readonly name?: string;
  /** The device in the PCI tree: needed for peer-to-peer. */
  readonly node?: PciNode;
  /** The parts of the machine that mapping may need (pages, bounce pool, caches, peers); those not given do not exist. */
  readonly machine?: DmaMachine;
  /** The device's accesses look into the CPU's caches. True unless said. */
  readonly coherent?: boolean;
  /** The device may be anybody's: it must reach nothing but what is mapped, to the byte. False unless said. */
  readonly untrusted?: boolean;
  /** Without an IOMMU: every streaming mapping goes through the bounce pool. */
  readonly forceBounce?: boolean;
  /** Without an IOMMU: what the bus adds to a physical address. 0 unless said. */
  readonly busOffset?: number;
  /** Non-coherent devices: buffers that do not fill cache lines of this many bytes are bounced; 0: never. */
  readonly cacheLine?: number;
  /** Confidential guests: the device proved itself and may reach private memory (TDISP run state). */
  readonly tdi?: "none" | "run";
  /** Asked before anything is mapped. Default: all is allowed. */
  readonly contract?: MappingContract;
  /** Told of each call and of each copy, cache operation and bounce. */
  readonly observer?: Observer;
  /** Counted into; unless given those of the domain, or counters of its own where there is none. */
  readonly counters?: Counters;
  /**
   * Refuses what Linux leaves undefined: links past the end or over each other, unlinks of holes, use after release. True
   * unless said.
   */
  readonly refusesMisuse?: boolean;
  /** Where Linux's answer is a defect, give that answer and not the better one (docs/two-step.md lists them). */
  readonly linuxCompatible?: boolean;
}

/** Every address: 2^64 - 1 as near as a double comes. */
export const ALL_ADDRESSES: number = 2 ** 64;

/** A device as mapping sees it: its limits, its trust, and the parts of the machine around it. Made by {@link Dma}. */
export class DmaDevice implements DmaLimits {
  /** For messages, findings and traces; `device` unless said. */
  readonly name: string;
  /** Its place in the PCI tree; undefined if it has none: it reaches no peers. */
  readonly node: PciNode | undefined;
  /** The parts of the machine that mapping may use. */
  readonly machine: DmaMachine;
  /** Its accesses look into the CPU's caches. */
  readonly coherent: boolean;
  /** It must reach nothing but what is mapped, to the byte. */
  readonly untrusted: boolean;
  /** Without an IOMMU every streaming mapping of it goes through the bounce pool. */
  readonly forceBounce: boolean;
  /** Without an IOMMU: what the bus adds to a physical address, bytes. */
  readonly busOffset: number;
  /** Buffers that do not fill cache lines of this many bytes are bounced; 0: never. */
  readonly cacheLine: number;
  /** `run`: it proved itself to a confidential guest, and may reach private memory. */
  readonly tdi: "none" | "run";
  /** Asked before anything is mapped; undefined: all is allowed. */
  readonly contract: MappingContract | undefined;
  /**
   * The bit of an address that says that memory is shared, for a device inside the trust: its mappings say whether they are,
   * and each range is of one kind. 0 for any other device.
   */
  readonly sharedBit: number;
  /** Who is told of each call and copy; undefined: nobody. */
  readonly observer: Observer | undefined;
  /** Where work for it is counted. */
  readonly counters: Counters;
  /** Misuse that Linux leaves undefined is refused. */
  readonly refusesMisuse: boolean;
  /** Linux's answer is given where it is a defect, too. */
  readonly linuxCompatible: boolean;
  /** Somebody looks over its calls, syncs too. */
  readonly #isWatched: boolean;
  mask: number;
  coherentMask: number;
  busLimit: number;
  maxSegmentSize: number;
  segmentBoundaryMask: number;
  minAlignMask: number;
  /** Nothing is ever to be synced: the device is coherent and has not bounced since its mask was set. */
  skipSync: boolean;
  /** Mappings that hold bounce slots. */
  bounces = 0;

  constructor(
    options: DeviceOptions,
    counters: Counters = options.counters ?? new Counters(),
    isWatched: boolean = false,
  ) {
    this.name = options.name ?? "device";
    this.node = options.node;
    this.machine = options.machine ?? {};
    this.coherent = options.coherent ?? true;
    this.untrusted = options.untrusted ?? false;
    this.forceBounce = options.forceBounce ?? false;
    this.busOffset = options.busOffset ?? 0;
    this.cacheLine = options.cacheLine ?? 0;
    this.tdi = options.tdi ?? "none";
    this.contract = options.contract;
    this.sharedBit = (this.tdi === "run" && this.machine.encryption?.sharedBit) || 0;
    this.observer = options.observer;
    this.counters = counters;
    this.refusesMisuse = options.refusesMisuse ?? true;
    this.linuxCompatible = options.linuxCompatible ?? false;
    this.#isWatched = isWatched;
    this.mask = options.mask ?? ALL_ADDRESSES;
    this.coherentMask = options.coherentMask ?? this.mask;
    this.busLimit = options.busLimit ?? 0;
    this.maxSegmentSize = options.maxSegmentSize ?? 65_536;
    this.segmentBoundaryMask = options.segmentBoundaryMask ?? ALL_ADDRESSES;
    this.minAlignMask = options.minAlignMask ?? 0;
    this.skipSync = this.coherent && !isWatched;
  }

  /** The mask was set: syncs are skipped again if they may be. Linux does not look whether slots are held. */
  maskChanged(): void {
    this.skipSync = this.coherent && !this.#isWatched && (this.linuxCompatible || this.bounces === 0);
  }

  /** Highest address that reaches memory from this device, with `mask`; a mask of 0 was never set, and means 32 bits. */
  reach(mask: number): number {
    const set = mask === 0 ? 2 ** 32 - 1 : mask;
    return this.busLimit !== 0 && this.busLimit < set ? this.busLimit : set;
  }

  /** Tells the observer, if there is one, of a call that the kernel has an event for. */
  announce(event: DmaEvent): void {
    this.observer?.dmaCalled?.(event);
  }

  /** Tells the observer, if there is one, of a two-step call. */
  announceTwoStep(event: TwoStepEvent): void {
    this.observer?.twoStepCalled?.(event);
  }
}
