/**
 * One address space of a GPU, for one process: its table, user pointers in it, and the process's own addresses if they are shared.
 *
 * Idea: a page fault of the GPU is for whoever has the address: a user pointer, else shared memory. A space that cannot fault has its user
 * pointers made whole before each piece of work.
 * Promises: when it is closed the GPU reaches nothing by it, and nothing of the process is watched.
 */
import { DmaError, PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import type { GpuAdapter, GpuWork, GpuWorkResult, Steps, UserMemory } from "../../platform/index.ts";
import type { DmaBuf } from "../dmabuf/index.ts";
import type { BackingOptions } from "./backing.ts";
import { SpaceCounts } from "./counts.ts";
import { badWindow, noArea, released } from "./errors.ts";
import { GpuBuffer } from "./gpu-buffer.ts";
import { GpuTable } from "./gpu-table.ts";
import { SvmContext, type SvmOptions } from "./svm-context.ts";
import { UserPointer, type UserPointerOptions } from "./user-pointer.ts";

/** An address space of a GPU. Made by `GpuDevice.openSpace`. */
export class GpuSpace implements Disposable {
  readonly number: number;
  readonly table: GpuTable;
  readonly counts: SpaceCounts = new SpaceCounts();
  /** The GPU asks for pages that are not there. */
  readonly isFaulting: boolean;
  readonly #adapter: GpuAdapter;
  readonly #base: Pick<BackingOptions, "dma" | "table" | "memory" | "counts">;
  readonly #pointers = new Set<UserPointer>();
  readonly #buffers = new Set<GpuBuffer>();
  readonly #onClose: (space: GpuSpace) => void;
  #shared: SvmContext | undefined;
  #closed = false;

  constructor(
    adapter: GpuAdapter,
    dma: Dma,
    memory: UserMemory,
    options: { readonly number: number; readonly faulting: boolean; readonly onClose: (space: GpuSpace) => void },
  ) {
    this.number = options.number;
    this.isFaulting = options.faulting;
    this.#adapter = adapter;
    this.#onClose = options.onClose;
    this.table = new GpuTable({ adapter, space: options.number });
    this.#base = { dma, table: this.table, memory, counts: this.counts };
    adapter.setFaulting(options.number, options.faulting);
  }

  /** The shared memory of this space, if there is any. */
  get shared(): SvmContext | undefined {
    return this.#shared;
  }

  /** User pointers that are bound now. */
  get userPointers(): readonly UserPointer[] {
    return [...this.#pointers];
  }

  /**
   * Gives the GPU a part of the process under an address. Nothing is brought yet.
   *
   * @throws DmaError ERR_DMA_GPU_RANGE (EINVAL), also where another one is; as {@link UserPointer}
   */
  bindUserPointer(options: UserPointerOptions): UserPointer {
    this.#check();
    this.#checkFree((options.gpuAddress ?? options.start) / PAGE_SIZE, options.length / PAGE_SIZE);
    const pointer = new UserPointer(this.#base, options, (gone) => void this.#pointers.delete(gone));
    this.#pointers.add(pointer);
    return pointer;
  }

  /**
   * Gives the GPU a shared buffer under an address. Nothing is mapped yet.
   *
   * @throws DmaError ERR_DMA_GPU_RANGE (EINVAL), also where something else is; as `DmaBuf.attach`
   */
  bindBuffer(buffer: DmaBuf, gpuAddress: number): GpuBuffer {
    this.#check();
    this.#checkFree(gpuAddress / PAGE_SIZE, buffer.lengthBytes / PAGE_SIZE);
    const bound = new GpuBuffer(this.#base, buffer, gpuAddress, (gone) => void this.#buffers.delete(gone));
    this.#buffers.add(bound);
    return bound;
  }

  /** From now on the GPU has the process's addresses as they are. Once. @throws DmaError ERR_DMA_GPU_RANGE, ERR_DMA_RELEASED (EINVAL) */
  shareMemory(options: SvmOptions = {}): SvmContext {
    this.#check();
    if (this.#shared) throw badWindow("shared memory a second time in space", this.number);
    this.#shared = new SvmContext(this.#base, options);
    return this.#shared;
  }

  /** The GPU needs the page at `address`. @throws DmaError as the user pointer or the shared memory that has the address; ENOENT: nobody has it */
  *faultSteps(address: number, write: boolean): Steps<void> {
    this.counts.faults++;
    const page = Math.floor(address / PAGE_SIZE);
    for (const pointer of this.#pointers) if (pointer.holds(page)) return yield* pointer.faultSteps(page, write);
    for (const buffer of this.#buffers) if (buffer.holds(page)) return buffer.bring();
    if (!this.#shared) throw noArea(address);
    yield* this.#shared.faultSteps(address, write);
  }

  /**
   * Has the GPU work. In a space that does not fault, user pointers that have lost pages are made whole before; those that cannot be are left as they
   * are, and the work ends where it meets them.
   */
  *executeSteps(work: GpuWork): Steps<GpuWorkResult> {
    this.#check();
    if (!this.isFaulting)
      for (const each of [...this.#pointers, ...this.#buffers]) {
        try {
          if (each instanceof GpuBuffer) each.bring();
          else if (!each.isWhole) yield* each.bringSteps();
        } catch (error) {
          if (!(error instanceof DmaError)) throw error;
        }
      }
    return yield* this.#adapter.execute(this.number, work);
  }

  /** Everything is taken from the GPU, and nothing watched any more. A second time does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const pointer of [...this.#pointers]) pointer.release();
    for (const buffer of [...this.#buffers]) buffer.release();
    this.#shared?.close();
    this.table.destroy();
    this.#onClose(this);
  }

  /** As `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #checkFree(page: number, pages: number): void {
    for (const each of [...this.#pointers, ...this.#buffers])
      if (page < each.gpuPage + each.pages && each.gpuPage < page + pages)
        throw badWindow("something where a user pointer or a buffer is:", page * PAGE_SIZE);
  }

  #check(): void {
    if (this.#closed) throw released("address space");
  }
}
