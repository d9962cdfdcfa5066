/**
 * The system heap: buffers of plain RAM.
 *
 * Idea: large blocks first (1 MiB, 64 KiB, pages), so that a buffer is few vectors; zeroed, so that nobody sees what was there. What a
 * device has mapped is synced around the CPU's accesses by the buffer.
 * Promises: a failed allocation gives everything back. Specified by: behaviour of Linux 7.2 dma-heap system; judged by test/golden
 * (dmabuf). Linux has no upper limit, and ends processes for a length above memory; here that is ENOMEM.
 */
import { PAGE_SIZE } from "../../../base/index.ts";
import type { PageAllocator } from "../../../platform/index.ts";
import { BufferDescriptor, type DescriptorOptions, OPEN_FLAGS } from "../descriptor.ts";
import { DmaBuf } from "../dma-buf.ts";
import { badArgument, noSuchCall } from "../errors.ts";
import type { Exporter } from "../exporter.ts";
import { allocateBlocks, freeBlocks } from "./blocks.ts";

const VALID_OPEN_FLAGS: number = OPEN_FLAGS.accessMode + OPEN_FLAGS.closeOnExec;

/** What a program asks of a heap. */
export interface HeapRequest {
  /** Bytes; rounded up to whole pages. */
  readonly lengthBytes: number;
  /** How the descriptor is opened: access mode and close-on-exec, nothing else. */
  readonly openFlags?: number;
  /** None is known. */
  readonly heapFlags?: number;
  /** The place for the answer: must be 0. */
  readonly descriptor?: number;
}

/** How buffers of a heap are given out. */
export interface SystemHeapOptions {
  /** Where the RAM comes from. */
  readonly pages: PageAllocator;
  /** How importers see them. Default `vectors`; Linux 7.2: `scatter-table`. */
  readonly form?: Exporter["form"];
  /** @see DescriptorOptions.syncFiles */
  readonly syncFiles?: DescriptorOptions["syncFiles"];
}

/** Gives out buffers of RAM. */
export class SystemHeap {
  readonly #options: SystemHeapOptions;

  /** Takes nothing yet: pages are taken by each allocation. */
  constructor(options: SystemHeapOptions) {
    this.#options = options;
  }

  /**
   * A new buffer, zeroed.
   *
   * @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL), ERR_DMA_BUF_NO_MEMORY (ENOMEM)
   */
  allocate({
    lengthBytes,
    openFlags = OPEN_FLAGS.readWrite,
    heapFlags = 0,
    descriptor = 0,
  }: HeapRequest): BufferDescriptor {
    if (descriptor !== 0) throw badArgument("a descriptor", descriptor, "0 is needed: the heap gives one");
    if (!isSubset(openFlags, VALID_OPEN_FLAGS))
      throw badArgument("open flags", openFlags, "access mode and close-on-exec only");
    if (heapFlags !== 0) throw badArgument("heap flags", heapFlags, "none is known");
    const pages = Math.ceil(lengthBytes / PAGE_SIZE);
    if (!(lengthBytes > 0 && pages * PAGE_SIZE < 2 ** 64))
      throw badArgument("a length", lengthBytes, "1 to 2^64 - 4096 bytes");
    const { pages: allocator, form = "vectors", syncFiles } = this.#options;
    const vecs = allocateBlocks(allocator, pages);
    const exporter: Exporter = {
      name: "system-heap",
      lengthBytes: pages * PAGE_SIZE,
      form,
      teardown: "deferred",
      processMap: "any",
      vectors: () => vecs,
      release: () => freeBlocks(allocator, vecs),
    };
    return new BufferDescriptor(new DmaBuf(exporter), { openFlags, ...(syncFiles !== undefined && { syncFiles }) });
  }

  /** The heap's call by number: 0 is {@link allocate}. @throws DmaError ERR_DMA_BUF_CALL (EINVAL, EFAULT); as {@link allocate} */
  call(number: number, request: HeapRequest | undefined): BufferDescriptor {
    if (number !== 0) throw noSuchCall(`call ${number} of a heap`, "EINVAL");
    if (request === undefined) throw noSuchCall("request at that address", "EFAULT");
    return this.allocate(request);
  }
}

/** Has `flags` no bit but those of `allowed`? Both may have more than 32 bits. */
const isSubset = (flags: number, allowed: number): boolean =>
  Number.isInteger(flags) && flags >= 0 && (BigInt(flags) & ~BigInt(allowed)) === 0n;
