/**
 * One region over all of an address space: parts of it are made by the first fault in them, and go when nothing of them is mapped.
 *
 * Idea: the list holds keys, one for each part of a fixed size; a part is a region on demand of its own. A part that an invalidation has
 * emptied is taken out later, never inside the invalidation.
 * Promises: memory is needed only for parts that are in use. A part that is needed again before it was taken out stays.
 * Specified by: behaviour of Linux 7.2 mlx5 implicit on-demand paging.
 */

import { PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import { isWritableAccess } from "../../layouts/rdma/index.ts";
import type { Clock, Steps, UserProcess } from "../../platform/index.ts";
import type { BringOptions, RegionBacking, RegionList } from "./backing.ts";
import { gone, outsideRegion } from "./errors.ts";
import { OnDemandBacking } from "./on-demand-backing.ts";
import { PageList } from "./page-list.ts";

/** An address space, as a region is made of it. */
interface ImplicitBackingOptions {
  readonly process: UserProcess;
  readonly access: number;
  readonly dma: Dma;
  readonly clock: Clock;
  /** Bytes of a part: a power of two. */
  readonly partBytes: number;
  /** Bytes of the address space. */
  readonly spanBytes: number;
  /** A key for a part that has this backing, known to the adapter when this returns. @throws DmaError */
  readonly enter: (part: OnDemandBacking, start: number) => number;
  /** The part's key names nothing any more, and the device does not use it. */
  readonly leave: (key: number) => void;
  /** The device forgets pages [first, end) of the part. */
  readonly forgetPart: (key: number, first: number, end: number) => void;
  /** The device forgets the keys [first, end) of the list. */
  readonly forget: (first: number, end: number) => void;
  readonly batched?: boolean;
}

interface Part {
  readonly backing: OnDemandBacking;
  readonly key: number;
  /** Faults that are under way in it. */
  uses: number;
}

/** An address space with its list of keys. */
export class ImplicitBacking implements RegionBacking {
  readonly kind = "implicit";
  readonly writable: boolean;
  readonly #options: ImplicitBackingOptions;
  readonly #keys: PageList;
  readonly #parts = new Map<number, Part>();
  readonly #empty = new Set<number>();
  #isReaping = false;
  #released = false;

  /** @throws DmaError as `PageList` */
  constructor(options: ImplicitBackingOptions) {
    this.#options = options;
    this.writable = isWritableAccess(options.access);
    this.#keys = new PageList(options.dma, options.spanBytes / options.partBytes, "keys");
  }

  get list(): RegionList {
    const { address, entries } = this.#keys;
    return { list: address, entries, blockBytes: this.#options.partBytes, listOf: "keys", onDemand: true };
  }

  get listBytes(): number {
    let bytes = this.#keys.lengthBytes;
    for (const { backing } of this.#parts.values()) bytes += backing.listBytes;
    return bytes;
  }

  /** Parts that are there now. */
  get parts(): number {
    return this.#parts.size;
  }

  *bringSteps(address: number, length: number, how: BringOptions): Steps<void> {
    const { partBytes, spanBytes } = this.#options;
    if (!(address >= 0 && address + length <= spanBytes)) throw outsideRegion(address, length, spanBytes);
    for (let at = address; at < address + length; ) {
      if (this.#released) throw gone("region");
      const index = Math.floor(at / partBytes);
      const end = Math.min(address + length, (index + 1) * partBytes);
      const part = this.#parts.get(index) ?? this.#make(index);
      part.uses++;
      try {
        yield* part.backing.bringSteps(at, end - at, how);
      } finally {
        part.uses--;
        if (part.backing.memory.mappedPages === 0) this.#emptied(index);
      }
      at = end;
    }
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    for (const index of [...this.#parts.keys()]) this.#remove(index);
    this.#keys.free();
  }

  #make(index: number): Part {
    const { process, dma, access, partBytes, forgetPart, enter, batched = true } = this.#options;
    const start = index * partBytes;
    let key: number | undefined;
    const backing = new OnDemandBacking({
      process,
      address: start,
      length: partBytes,
      virt: start,
      access,
      pageBytes: PAGE_SIZE,
      dma,
      batched,
      forget: (first, end) => {
        if (key !== undefined) forgetPart(key, first, end);
      },
      emptied: () => this.#emptied(index),
    });
    try {
      key = enter(backing, start);
    } catch (error) {
      backing.release();
      throw error;
    }
    const part: Part = { backing, key, uses: 0 };
    this.#parts.set(index, part);
    this.#keys.setKey(index, { length: 0, key, address: BigInt(start) });
    this.#options.forget(index, index + 1);
    return part;
  }

  #emptied(index: number): void {
    if (this.#released) return;
    this.#empty.add(index);
    if (this.#isReaping) return;
    this.#isReaping = true;
    this.#options.clock.after(0, () => {
      this.#isReaping = false;
      for (const each of this.#empty) {
        const part = this.#parts.get(each);
        if (part && part.uses === 0 && part.backing.memory.mappedPages === 0) this.#remove(each);
      }
      this.#empty.clear();
    });
  }

  #remove(index: number): void {
    const part = this.#parts.get(index)!;
    this.#parts.delete(index);
    this.#keys.clear(index, index + 1);
    this.#options.forget(index, index + 1);
    this.#options.leave(part.key);
    part.backing.release();
  }
}
