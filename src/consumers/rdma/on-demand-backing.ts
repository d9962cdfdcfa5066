/**
 * Regions whose pages come when the device needs them: entries are written by faults, and zeroed by invalidations.
 *
 * Promises: an entry says what its page allows now: a right to write that comes later rewrites the entry and no entry of the IOMMU.
 */
import type { Dma } from "../../dma/index.ts";
import { isWritableAccess, MTT } from "../../layouts/rdma/index.ts";
import type { Steps, UserProcess } from "../../platform/index.ts";
import { HMM } from "../hmm/index.ts";
import type { BringOptions, RegionBacking, RegionList } from "./backing.ts";
import { memoryReadOnly, noPageSize } from "./errors.ts";
import { OnDemandMemory } from "./on-demand.ts";
import { PageList } from "./page-list.ts";

/** Memory on demand, as a region is made of it. */
export interface OnDemandBackingOptions {
  /** Whose memory. */
  readonly process: UserProcess;
  /** First byte, in the process. */
  readonly address: number;
  /** How many bytes. */
  readonly length: number;
  /** Where the region begins, as its users count. */
  readonly virt: number;
  /** {@link ACCESS} bits. */
  readonly access: number;
  /** Bytes of a page of the region: 4096, or 2 MiB. */
  readonly pageBytes: number;
  /** By which it is mapped; absent for a software device. */
  readonly dma?: Dma;
  /** The device forgets entries [first, end), and uses them no more. */
  readonly forget: (first: number, end: number) => void;
  /** Nothing is mapped any more, after an invalidation. */
  readonly emptied?: () => void;
  /** One invalidation of the IOMMU for all pages of an event. True unless said; Linux 7.2: each page. */
  readonly batched?: boolean;
}

/** Addresses of a fault: grown as needed, used again. */
let scratch = new Float64Array(64);

/** Memory on demand with its page list. */
export class OnDemandBacking implements RegionBacking {
  readonly kind = "on-demand";
  /** The range that it follows. */
  readonly memory: OnDemandMemory;
  readonly writable: boolean;
  readonly #virt: number;
  readonly #pages: PageList | undefined;
  readonly #showAll = (first: number, count: number): void => this.#show(first, count, false);
  readonly #showToRead = (first: number, count: number): void => this.#show(first, count, true);

  /** @throws DmaError as {@link OnDemandMemory}; ERR_DMA_RDMA_PAGE_SIZE (EINVAL); as `PageList`; nothing is left then */
  constructor(options: OnDemandBackingOptions) {
    const { process, address, length, virt, access, pageBytes, dma, forget, emptied, batched = true } = options;
    this.writable = isWritableAccess(access);
    this.#virt = virt;
    this.memory = new OnDemandMemory({
      process,
      address,
      length,
      pageBytes,
      ...(dma && { dma }),
      batched,
      forget: (first, end) => {
        this.#pages?.clear(first, end);
        forget(first, end);
      },
      ...(emptied && { emptied }),
    });
    if (!dma) return;
    try {
      if (address % pageBytes !== virt % pageBytes) throw noPageSize(virt, length);
      this.#pages = new PageList(dma, this.memory.pages);
    } catch (error) {
      this.memory.release();
      throw error;
    }
  }

  get list(): RegionList | undefined {
    if (!this.#pages) return undefined;
    const { address, entries } = this.#pages;
    return { list: address, entries, blockBytes: this.memory.pageBytes, listOf: "blocks", onDemand: true };
  }

  get listBytes(): number {
    return (this.#pages?.lengthBytes ?? 0) + this.memory.listBytes;
  }

  /** The entry of page `index`, as the device would read it. */
  entry(index: number):
    | {
        /** DMA address of the page. */
        readonly address: number;
        /** {@link MTT} bits: what the device may do. */
        readonly flags: number;
      }
    | undefined {
    return this.#pages?.get(index);
  }

  *bringSteps(address: number, length: number, how: BringOptions): Steps<void> {
    const show = how.readOnly ? this.#showToRead : this.#showAll;
    yield* this.memory.faultSteps(this.#offsetOf(address, how), length, how, show);
  }

  bring(address: number, length: number, how: BringOptions): void {
    this.memory.fault(this.#offsetOf(address, how), length, how, how.readOnly ? this.#showToRead : this.#showAll);
  }

  #offsetOf(address: number, { write }: BringOptions): number {
    if (write && !this.writable) throw memoryReadOnly(0);
    return address - this.#virt + (this.memory.address - this.memory.start);
  }

  release(): void {
    this.memory.release();
    this.#pages?.free();
  }

  #show(first: number, count: number, readOnly: boolean): void {
    const pages = this.#pages;
    if (!pages) return;
    if (scratch.length < count) scratch = new Float64Array(count);
    const { memory } = this;
    memory.mapPages(first, count, scratch);
    for (let i = 0; i < count; i++) {
      if (Number.isNaN(scratch[i]!)) continue;
      const write = this.writable && !readOnly && memory.has(first + i, HMM.write);
      pages.set(first + i, scratch[i]!, write ? MTT.read | MTT.write : MTT.read);
    }
  }
}
