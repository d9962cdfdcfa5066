/**
 * Memory of programs as a buffer: pages of memory files, pinned for as long as the buffer lives (udmabuf).
 *
 * Idea: the file must promise not to shrink, and must still take writes; then its pages are pinned where they are, and runs of
 * neighbours become one vector. The CPU's accesses are synced by a mapping for the exporter itself, made at the first one.
 * Promises: nothing stays pinned when a buffer could not be made. Specified by: behaviour of Linux 7.2 udmabuf; judged by
 * test/golden (dmabuf).
 */
import { type Direction, MiB, PAGE_SIZE, PhysAddr, PhysPage } from "../../../base/index.ts";
import type { Dma } from "../../../dma/index.ts";
import { isMemoryFile, type MemoryFile, type OpenFile, type UserPages } from "../../../platform/index.ts";
import { BufferDescriptor, type DescriptorOptions, OPEN_FLAGS } from "../descriptor.ts";
import { DmaBuf } from "../dma-buf.ts";
import { badArgument, notMemoryFile, wrongSeals } from "../errors.ts";
import type { Exporter } from "../exporter.ts";
import type { BufferMapping } from "../mapping.ts";
import { mapScatterTable } from "../scatter-table.ts";
import type { StorageVec } from "../storage.ts";

/** A part of a file that becomes part of a buffer. Bytes, whole pages. */
export interface FilePart {
  /** A memory file, sealed against shrinking and not against writing. */
  readonly file: OpenFile;
  /** First byte of the file. */
  readonly offset: number;
  /** How many. */
  readonly length: number;
}

/** How buffers of user memory are made. */
export interface UserMemoryOptions {
  /** Whose pins the pages get. */
  readonly pages: Pick<UserPages, "unpin">;
  /** The exporter as a device: the CPU's accesses are synced by it. */
  readonly dma: Dma;
  /** Most parts in one buffer. Default 1024. */
  readonly partLimit?: number;
  /** Longest buffer, bytes. Default 64 MiB. */
  readonly lengthLimit?: number;
  /** How importers see them. Default `vectors`; Linux 7.2: `scatter-table`. */
  readonly form?: Exporter["form"];
  /** @see DescriptorOptions.syncFiles */
  readonly syncFiles?: DescriptorOptions["syncFiles"];
}

/** Makes buffers of files of memory. */
export class UserMemoryBuffers {
  readonly #options: UserMemoryOptions;

  /** Pins nothing yet: pages are pinned by each buffer. */
  constructor(options: UserMemoryOptions) {
    this.#options = options;
  }

  /**
   * A buffer of these parts, one after the other.
   *
   * @param closesOnExec how the descriptor is opened
   * @throws DmaError ERR_DMA_BUF_ARGUMENT, ERR_DMA_BUF_SEALS (EINVAL), ERR_DMA_BUF_FILE (EBADFD); what pinning says
   */
  create(parts: readonly FilePart[], closesOnExec = false): BufferDescriptor {
    const { pages, dma, form = "vectors", syncFiles } = this.#options;
    const lengthBytes = this.#check(parts);
    const frames = pinParts(pages, parts);
    const vecs = vectorsOf(frames);
    const cpu = new CpuAccess(dma, vecs);
    const exporter: Exporter = {
      name: "user-memory",
      lengthBytes,
      form,
      teardown: "deferred",
      processMap: "shared",
      vectors: () => vecs,
      beginCpuAccess: (direction) => cpu.begin(direction),
      endCpuAccess: (direction) => cpu.end(direction),
      release: () => {
        cpu.release();
        unpinFrames(pages, frames, frames.length);
      },
    };
    const openFlags = OPEN_FLAGS.readWrite + (closesOnExec ? OPEN_FLAGS.closeOnExec : 0);
    return new BufferDescriptor(new DmaBuf(exporter), { openFlags, ...(syncFiles !== undefined && { syncFiles }) });
  }

  /** Bytes of all parts, if they may become a buffer. */
  #check(parts: readonly FilePart[]): number {
    const { partLimit = 1024, lengthLimit = 64 * MiB } = this.#options;
    if (!(parts.length > 0 && parts.length <= partLimit))
      throw badArgument("a list of parts", parts.length, `1 to ${partLimit} are needed`);
    let total = 0;
    for (const { offset, length } of parts) {
      if (!(offset >= 0 && offset % PAGE_SIZE === 0)) throw badArgument("an offset", offset, "whole pages are needed");
      if (!(length > 0 && length % PAGE_SIZE === 0)) throw badArgument("a length", length, "whole pages are needed");
      total += length;
      if (total > lengthLimit) throw badArgument("a length", total, `at most ${lengthLimit} bytes`);
    }
    for (const { file, offset, length } of parts) checkFile(file, offset, length);
    return total;
  }
}

function checkFile(file: OpenFile, offset: number, length: number): void {
  if (!isMemoryFile(file) || file.medium === "tmpfs") throw notMemoryFile(file.kind);
  if (!file.seals.has("shrink")) throw wrongSeals("it may shrink; seal it against that");
  if (file.seals.has("write") || file.seals.has("future-write"))
    throw wrongSeals("it is sealed against writing, which devices would do");
  if (offset + length > file.length) throw badArgument("an end", offset + length, `the file has ${file.length} bytes`);
}

/** The number of each page, pinned. */
function pinParts(pages: Pick<UserPages, "unpin">, parts: readonly FilePart[]): Float64Array {
  const frames = new Float64Array(parts.reduce((sum, { length }) => sum + length / PAGE_SIZE, 0));
  let done = 0;
  try {
    for (const { file, offset, length } of parts) {
      const count = length / PAGE_SIZE;
      (file as MemoryFile).pin(offset, count, frames, done);
      done += count;
    }
  } catch (error) {
    unpinFrames(pages, frames, done);
    throw error;
  }
  return frames;
}

function unpinFrames(pages: Pick<UserPages, "unpin">, frames: Float64Array, count: number): void {
  for (let i = 0; i < count; i++) pages.unpin(frames[i] as PhysPage, 1, true);
}

function vectorsOf(frames: Float64Array): StorageVec[] {
  const vecs: StorageVec[] = [];
  for (let i = 0; i < frames.length; ) {
    let count = 1;
    while (i + count < frames.length && frames[i + count] === frames[i]! + count) count++;
    vecs.push({ phys: PhysAddr(PhysPage.start(frames[i] as PhysPage)), length: count * PAGE_SIZE });
    i += count;
  }
  return vecs;
}

/** The CPU's accesses, synced by a mapping for the exporter. */
class CpuAccess {
  readonly #dma: Dma;
  readonly #vecs: readonly StorageVec[];
  #mapping: BufferMapping | undefined;

  constructor(dma: Dma, vecs: readonly StorageVec[]) {
    this.#dma = dma;
    this.#vecs = vecs;
  }

  begin(direction: Direction): void {
    this.#mapping ??= mapScatterTable({ name: "user-memory", dma: this.#dma }, this.#vecs, direction);
    this.#mapping.syncForCpu(direction);
  }

  end(direction: Direction): void {
    if (!this.#mapping) throw badArgument("an end of access", direction, "no access of the CPU has begun");
    this.#mapping.syncForDevice(direction);
  }

  release(): void {
    this.#mapping?.release(false);
    this.#mapping = undefined;
  }
}
