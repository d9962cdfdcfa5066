/**
 * Handles: what holds a mapping and gives it back.
 *
 * Promises: releasing cannot fail, and a second release does nothing. The syncs move ownership for as long as the mapping
 * lives; for a coherent device that has not bounced they cost one comparison.
 */
import type { DmaAddr, DmaAttributes, PhysAddr } from "../base/index.ts";
import type { DmaDevice } from "./device.ts";
import { badOffset, machineLacks, released } from "./errors.ts";
import { type PageBlock, placeOf } from "./path/coherent.ts";
import type { MappedList } from "./path/path.ts";
import type { Direction, DmaVec } from "./vectors.ts";

/** The calls by which a one-shot mapping changes hands and ends: `Dma` has them. */
interface MappingCalls {
  syncForCpu(address: DmaAddr, length: number, direction: Direction): void;
  syncForDevice(address: DmaAddr, length: number, direction: Direction): void;
  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void;
}

/** The same for a mapped scatterlist. */
export interface ListCalls {
  unmap(mapped: MappedList): void;
  syncForCpu(mapped: MappedList): void;
  syncForDevice(mapped: MappedList): void;
}

/** A one-shot mapping: one piece of memory at one DMA address. */
export class DmaMapping implements Disposable {
  /** Where the device finds the memory. */
  readonly address: DmaAddr;
  /** Bytes. */
  readonly length: number;
  /** As it was mapped. */
  readonly direction: Direction;
  /** As it was mapped; undefined for none. */
  readonly attributes: DmaAttributes | undefined;
  readonly #calls: MappingCalls;
  #released = false;

  /** Made by {@link Dma.map}. */
  constructor(calls: MappingCalls, address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes) {
    this.#calls = calls;
    this.address = address;
    this.length = length;
    this.direction = direction;
    this.attributes = attributes;
  }

  /** What the device wrote in [offset, + length) is the CPU's to read; the device must not write meanwhile. */
  syncForCpu(offset = 0, length: number = this.length - offset): void {
    this.#check(offset, length);
    if (this.attributes?.mmio) return; // no cache holds device memory
    this.#calls.syncForCpu((this.address + offset) as DmaAddr, length, this.direction);
  }

  /** What the CPU wrote in [offset, + length) is the device's again. */
  syncForDevice(offset = 0, length: number = this.length - offset): void {
    this.#check(offset, length);
    if (this.attributes?.mmio) return;
    this.#calls.syncForDevice((this.address + offset) as DmaAddr, length, this.direction);
  }

  /** Takes the memory away from the device. Cannot fail; a second time does nothing. */
  unmap(): void {
    if (this.#released) return;
    this.#released = true;
    this.#calls.unmapPhys(this.address, this.length, this.direction, this.attributes);
  }

  /** As `unmap`, for `using`. */
  [Symbol.dispose](): void {
    this.unmap();
  }

  #check(offset: number, length: number): void {
    if (this.#released) throw released("sync");
    if (!(offset >= 0 && length >= 0 && offset + length <= this.length)) throw badOffset(offset, length, this.length);
  }
}

/** A mapped scatterlist: its output segments, at most as many as its input had. One invalidation ends it. */
export class ScatterlistMapping implements Disposable {
  /** What the device is told, in the order of the input; void once unmapped. */
  readonly segments: readonly DmaVec[];
  readonly #calls: ListCalls;
  readonly #mapped: MappedList;
  #released = false;

  /** Made by {@link Dma.mapScatterlist}. */
  constructor(mapped: MappedList, calls: ListCalls) {
    this.#calls = calls;
    this.#mapped = mapped;
    this.segments = mapped.segments;
  }

  /** The CPU may look at the memory, until it gives it back. @throws DmaError ERR_DMA_RELEASED (EINVAL) */
  syncForCpu(): void {
    if (this.#released) throw released("sync");
    this.#calls.syncForCpu(this.#mapped);
  }

  /** The device may use the memory again. @throws DmaError ERR_DMA_RELEASED (EINVAL) */
  syncForDevice(): void {
    if (this.#released) throw released("sync");
    this.#calls.syncForDevice(this.#mapped);
  }

  /** Takes the memory from the device; its segments are void. Cannot fail; a second time does nothing. */
  unmap(): void {
    if (this.#released) return;
    this.#released = true;
    this.#calls.unmap(this.#mapped);
  }

  /** As `unmap`, for `using`. */
  [Symbol.dispose](): void {
    this.unmap();
  }
}

/** Memory of its own that a device and the CPU share, zeroed. */
export class CoherentMemory implements Disposable {
  /** Where the device finds it. */
  readonly address: DmaAddr;
  /** Bytes, as they were asked for. */
  readonly length: number;
  /** Where it lies. */
  readonly blocks: readonly PageBlock[];
  readonly #device: DmaDevice;
  readonly #release: () => void;
  #released = false;

  /** Made by {@link Dma.allocCoherent}. */
  constructor(device: DmaDevice, address: DmaAddr, length: number, blocks: readonly PageBlock[], release: () => void) {
    this.#device = device;
    this.address = address;
    this.length = length;
    this.blocks = blocks;
    this.#release = release;
  }

  /** Physical address of its first byte. */
  get phys(): PhysAddr {
    return placeOf(this.blocks, 0)!.phys;
  }

  /** It is one physical block. */
  get contiguous(): boolean {
    return this.blocks.length === 1;
  }

  /**
   * The bytes themselves, as a view.
   *
   * @throws DmaError ERR_DMA_MACHINE (EOPNOTSUPP) if the machine cannot show them in one piece: read and write then, or
   * allocate with `forceContiguous`; ERR_DMA_RELEASED (EINVAL)
   */
  get bytes(): Uint8Array {
    if (this.#released) throw released("show bytes");
    const view = this.contiguous ? this.#device.machine.memory?.view?.(this.phys, this.length) : undefined;
    if (view === undefined) throw machineLacks("memory.view over one block", "a view of coherent memory");
    return view;
  }

  /** As the CPU reads it. @throws DmaError ERR_DMA_OFFSET, ERR_DMA_RELEASED (EINVAL) */
  read(offset: number, into: Uint8Array): void {
    this.#each(offset, into.length, (phys, at, length) =>
      this.#device.machine.memory?.read(phys, into.subarray(at, at + length)),
    );
  }

  /** As the CPU writes it. @throws DmaError ERR_DMA_OFFSET, ERR_DMA_RELEASED (EINVAL) */
  write(offset: number, from: Uint8Array): void {
    this.#each(offset, from.length, (phys, at, length) =>
      this.#device.machine.memory?.write(phys, from.subarray(at, at + length)),
    );
  }

  /** Takes the memory from the device and gives it back. Cannot fail; a second time does nothing. Views of it are void. */
  free(): void {
    if (this.#released) return;
    this.#released = true;
    this.#release();
  }

  /** As `free`, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }

  #each(offset: number, length: number, visit: (phys: PhysAddr, at: number, length: number) => void): void {
    if (this.#released) throw released("access coherent memory");
    if (!(offset >= 0 && offset + length <= this.length)) throw badOffset(offset, length, this.length);
    for (let at = 0; at < length; ) {
      const place = placeOf(this.blocks, offset + at)!;
      const piece = Math.min(place.length, length - at);
      visit(place.phys, at, piece);
      at += piece;
    }
  }
}
