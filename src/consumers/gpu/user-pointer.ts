/**
 * A user pointer: memory of a process that a GPU uses under an address of its own, and whose parts can go.
 *
 * Idea: address space is reserved once for all of it, each page at the offset of its own address, for as long as the object lives. A munmap of a
 * part takes that part from the GPU and from the IOMMU with one invalidation each; no other entry changes, and what comes back
 * lies where it lay. With `wholeObject` everything goes at any change, as in Linux 7.2, to be compared.
 * Promises: the GPU never reaches a page that the process has lost. Bringing a page that is there costs nothing. A failed bring leaves what was
 * there. Not for: memory that should move to the GPU (svm).
 * Specified by: behaviour of Linux 7.2 xe_userptr; partial unlinks are this project's.
 */
import { DmaError, MiB, PAGE_SIZE } from "../../base/index.ts";
import {
  finish,
  type IntervalNotifier,
  type Invalidation,
  type Steps,
  UserAddr,
  type UserMemory,
} from "../../platform/index.ts";
import type { BackingOptions, PageBacking } from "./backing.ts";
import { bringPages } from "./bring-pages.ts";
import { badWindow, released } from "./errors.ts";
import { KeptPages } from "./kept-pages.ts";
import { PackedPages } from "./packed-pages.ts";

/** Memory for a GPU. */
export interface UserPointerOptions {
  /** First byte in the process, and bytes: whole pages. */
  readonly start: number;
  readonly length: number;
  /** Where it is in the GPU's addresses, whole pages. The same as in the process unless said. */
  readonly gpuAddress?: number;
  /** The GPU only reads. False unless said. */
  readonly readOnly?: boolean;
  /** Everything goes when any part changes, as in Linux 7.2. False unless said. */
  readonly wholeObject?: boolean;
  /**
   * `small`: entries of the IOMMU of 4 KiB, any of which goes alone at no further cost. `large`: larger ones where pages lie together; one that
   * loses a page is split, which costs an invalidation. Below 64 MiB `small`, else `large`, unless said.
   */
  readonly leaves?: "small" | "large";
  /** Memory of other devices may be among the pages. Refused unless said. */
  readonly allowPeers?: boolean;
}

/** Objects from this size on have large entries unless said otherwise. */
const LARGE_FROM = 64 * MiB;
/** Pages that one fault brings at most: those of the same 2 MiB. */
const AROUND = 512;

/** Part of a process that a GPU uses under an address. Made by `GpuSpace.bindUserPointer`. */
export class UserPointer implements Disposable {
  readonly start: number;
  readonly pages: number;
  /** First page in the GPU's addresses. */
  readonly gpuPage: number;
  readonly backing: PageBacking;
  readonly #memory: UserMemory;
  readonly #options: BackingOptions;
  readonly #notifier: IntervalNotifier;
  readonly #isWhole: boolean;
  readonly #onRelease: (pointer: UserPointer) => void;
  #released = false;

  /** @throws DmaError ERR_DMA_GPU_RANGE (EINVAL); ERR_DMA_USER_RANGE (EINVAL, EOVERFLOW), ERR_DMA_USER_GONE (EFAULT); nothing is left then */
  constructor(
    base: Pick<BackingOptions, "dma" | "table" | "memory" | "counts">,
    options: UserPointerOptions,
    onRelease: (pointer: UserPointer) => void,
  ) {
    const { start, length, gpuAddress = start, readOnly = false, wholeObject = false, allowPeers = false } = options;
    if (!(start >= 0 && start % PAGE_SIZE === 0)) throw badWindow("a user pointer at", start);
    if (!(length > 0 && length % PAGE_SIZE === 0)) throw badWindow("a user pointer of length", length);
    if (!(gpuAddress >= 0 && gpuAddress % PAGE_SIZE === 0 && gpuAddress + length <= 2 ** 47))
      throw badWindow("a user pointer for the GPU at", gpuAddress);
    this.start = start;
    this.pages = length / PAGE_SIZE;
    this.gpuPage = gpuAddress / PAGE_SIZE;
    this.#memory = base.memory;
    this.#isWhole = wholeObject;
    this.#onRelease = onRelease;
    this.#options = {
      ...base,
      start,
      pages: this.pages,
      gpuPage: this.gpuPage,
      direction: readOnly ? "to-device" : "bidirectional",
      leaves: options.leaves ?? (length < LARGE_FROM ? "small" : "large"),
      allowMixed: false,
      allowPeers,
    };
    this.#notifier = base.memory.watch(UserAddr(start), UserAddr(start + length), (what) => this.#changed(what));
    this.backing = wholeObject ? new PackedPages(this.#options) : new KeptPages(this.#options);
  }

  /** Does `gpuPage` belong to it? */
  holds(gpuPage: number): boolean {
    return gpuPage >= this.gpuPage && gpuPage < this.gpuPage + this.pages;
  }

  /** Every page is there for the GPU, and may be written if the object is not read-only. */
  get isWhole(): boolean {
    for (let i = 0; i < this.pages; i++) if (!this.backing.has(i, !this.#isReadOnly)) return false;
    return true;
  }

  /**
   * Brings pages [first, + count): all unless said.
   *
   * @throws DmaError ERR_DMA_HMM_FAULT (EFAULT) where the process has nothing; ERR_DMA_HMM_READ_ONLY (EPERM); ERR_DMA_GPU_BUSY (EBUSY);
   *   ERR_DMA_GPU_PEER (EOPNOTSUPP); ERR_DMA_MAP (ENOMEM); ERR_DMA_RELEASED (EINVAL); what was there stays
   */
  bring(first = 0, count: number = this.pages - first): void {
    finish(this.bringSteps(first, count));
  }

  /** As {@link UserPointer.bring}, in steps. @param write so that the GPU may write; unless the object is read only, if not said */
  *bringSteps(first = 0, count: number = this.pages - first, write: boolean = !this.#isReadOnly): Steps<void> {
    if (!(first >= 0 && count > 0 && first + count <= this.pages)) throw badWindow("pages of a user pointer:", first);
    yield* bringPages({
      memory: this.#memory,
      notifier: this.#notifier,
      backing: this.backing,
      counts: this.#options.counts,
      first: this.#isWhole ? 0 : first,
      count: this.#isWhole ? this.pages : count,
      write: this.#isWhole ? !this.#isReadOnly : write,
      check: () => this.#check(),
    });
  }

  /** The GPU needs `gpuPage`: brings it, with what is around it in the same 2 MiB if that can be had. @throws DmaError as {@link bring} */
  *faultSteps(gpuPage: number, write: boolean): Steps<void> {
    const index = gpuPage - this.gpuPage;
    if (this.backing.has(index, write)) return;
    const inside = (this.start / PAGE_SIZE + index) % AROUND;
    const first = Math.max(0, index - inside);
    const end = Math.min(this.pages, index - inside + AROUND);
    try {
      yield* this.bringSteps(first, end - first, write);
    } catch (error) {
      // Something around it cannot be had: then it alone.
      if (this.#isWhole || !(error instanceof DmaError) || (error.errno !== "EFAULT" && error.errno !== "EPERM"))
        throw error;
      yield* this.bringSteps(index, 1, write);
    }
  }

  /** The GPU loses all of it, and its address space is given back. A second time does nothing. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.backing.release();
    this.#notifier.remove();
    this.#onRelease(this);
  }

  /** As `release`, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }

  get #isReadOnly(): boolean {
    return this.#options.direction === "to-device";
  }

  #check(): void {
    if (this.#released) throw released("user pointer");
  }

  #changed({ start, end }: Invalidation): boolean {
    const { counts } = this.#options;
    counts.invalidations++;
    const event = { first: start / PAGE_SIZE, end: end / PAGE_SIZE };
    counts.touched(event.first, event.end);
    const base = this.start / PAGE_SIZE;
    const first = Math.max(0, event.first - base);
    const last = Math.min(this.pages, event.end - base);
    if (first < last) this.backing.drop(first, last, event);
    return true;
  }
}
