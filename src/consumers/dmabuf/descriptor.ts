/**
 * A buffer as a program holds it: a file descriptor, and the calls that can be made on one.
 *
 * Idea: only what the file layer adds is here: how it was opened, positions that only tell the size, processes that map it, the
 * CPU's begin and end, a name, and fences in and out. Specified by: behaviour of Linux 7.2 dma-buf files; judged by test/golden
 * (dmabuf).
 */
import type { Direction } from "../../base/index.ts";
import { PAGE_SIZE } from "../../base/index.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { badArgument, badVectors, noSuchCall, notPermitted } from "./errors.ts";
import type { Fence } from "./reservation.ts";

/** Flags of an open descriptor, as C programs write them. */
export const OPEN_FLAGS = {
  /** The bits that say how it may be mapped: 0 read only, 1 write only, 2 both. */
  accessMode: 0x3,
  /** May be mapped for both. */
  readWrite: 0x2,
  /** Closed when the program is replaced by another. */
  closeOnExec: 0x8_0000,
} as const;

/** Bits of a sync call: which access, and whether it begins or ends. */
export const SYNC_FLAGS = {
  /** The CPU reads. */
  read: 1,
  /** The CPU writes. */
  write: 2,
  /** It has done; else it begins. */
  end: 4,
} as const;

/** A name has at most so many bytes, the end among them. */
const NAME_BYTES = 32;

/** How a process maps a buffer. Bytes. */
export interface ProcessMapOptions {
  /** First byte of the buffer, whole pages. */
  readonly offset: number;
  /** How many. */
  readonly length: number;
  /** Writes are seen by all who map it; else they are the process's own. */
  readonly shared: boolean;
  /** The process is going to write. */
  readonly write: boolean;
}

/** What the machine can do with descriptors. */
export interface DescriptorOptions {
  /** `openFlags` as given to the exporter. */
  readonly openFlags: number;
  /** Fences can be handed out and taken in as files. Default true. */
  readonly syncFiles?: boolean;
}

/** An open descriptor of a buffer; {@link BufferDescriptor.close} lets the buffer go. */
export class BufferDescriptor {
  /** What it is of. */
  readonly buffer: DmaBuf;
  /** Bits of {@link OPEN_FLAGS}, as it was opened. */
  readonly openFlags: number;
  readonly #syncFiles: boolean;
  #label = "";
  #isOpen = true;

  /** Takes over the holder that the buffer was made with. */
  constructor(buffer: DmaBuf, { openFlags, syncFiles = true }: DescriptorOptions) {
    this.buffer = buffer;
    this.openFlags = openFlags;
    this.#syncFiles = syncFiles;
  }

  /** Closed when the program is replaced by another. */
  get closesOnExec(): boolean {
    return Math.floor(this.openFlags / OPEN_FLAGS.closeOnExec) % 2 === 1;
  }

  /** What the buffer is called in reports. */
  get label(): string {
    return this.#label;
  }

  /** Tells the size: from the end 0 gives it, from the start 0 gives 0. @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL) for anything else */
  seek(whence: "set" | "cur" | "end", offset: number): number {
    if (offset === 0 && whence === "end") return this.buffer.lengthBytes;
    if (offset === 0 && whence === "set") return 0;
    throw badArgument(`a seek from ${whence}`, offset, "only 0 from the start or the end is one");
  }

  /** @throws DmaError ERR_DMA_BUF_CALL (EINVAL), always: a buffer is mapped, not read */
  read(): never {
    throw noSuchCall("read of a buffer", "EINVAL");
  }

  /** @throws DmaError ERR_DMA_BUF_CALL (EINVAL), always */
  write(): never {
    throw noSuchCall("write to a buffer", "EINVAL");
  }

  /**
   * May a process map [offset, + length) of it like this?
   *
   * @throws DmaError ERR_DMA_BUF_ACCESS (EACCES) if the descriptor was opened for less; ERR_DMA_BUF_CALL, ERR_DMA_BUF_VECTORS (EINVAL)
   */
  processMap({ offset, length, shared, write }: ProcessMapOptions): void {
    const mode = this.openFlags % 4;
    const mayRead = mode === 0 || mode === OPEN_FLAGS.readWrite;
    if (!mayRead) throw notPermitted("a mapping needs reading");
    if (shared && write && mode !== OPEN_FLAGS.readWrite) throw notPermitted("a shared mapping for writing needs both");
    const { processMap } = this.buffer.exporter;
    if (processMap === undefined) throw noSuchCall("mapping by processes", "EINVAL");
    const pages = Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
    if (!(offset >= 0 && pages > 0 && offset + pages <= this.buffer.lengthBytes))
      throw badVectors(`${length} bytes at ${offset} are not inside its ${this.buffer.lengthBytes}`, {
        offset,
        length,
      });
    if (!shared && processMap === "shared") throw noSuchCall("private mapping of such a buffer", "EINVAL");
  }

  /** The CPU begins or ends: bits of {@link SYNC_FLAGS}. @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL); what the exporter says */
  sync(flags: number): void {
    const access = flags % 4;
    const ends = flags >= SYNC_FLAGS.end;
    if (!(Number.isInteger(flags) && flags >= 0 && flags < 8 && access !== 0))
      throw badArgument("sync flags", flags, "read (1), write (2) or both, and end (4)");
    const direction = SYNC_DIRECTIONS[access]!;
    if (ends) this.buffer.endCpuAccess(direction);
    else this.buffer.beginCpuAccess(direction);
  }

  /** @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL) if it has 32 bytes or more */
  setName(name: string): void {
    const bytes = new TextEncoder().encode(name).length;
    if (bytes >= NAME_BYTES) throw badArgument("a name", name, `at most ${NAME_BYTES - 1} bytes`);
    this.#label = name;
  }

  /**
   * The fences that one waits for before reading (1), or writing too (2).
   *
   * @throws DmaError ERR_DMA_BUF_CALL (ENOTTY) where there are no sync files; ERR_DMA_BUF_ARGUMENT (EINVAL)
   */
  exportSyncFile(flags: number): readonly Fence[] {
    this.#checkSyncFile(flags);
    return this.buffer.reservation.pending(flags >= SYNC_FLAGS.write ? "read" : "write");
  }

  /** Others wait for `fence` from here on: before they write (1), or read too (2). @throws as {@link exportSyncFile} */
  importSyncFile(flags: number, fence: Fence): void {
    this.#checkSyncFile(flags);
    const { reservation } = this.buffer;
    reservation.locked(() => reservation.addFence(fence, flags >= SYNC_FLAGS.write ? "write" : "read"));
  }

  /** Lets the buffer go. A second time does nothing. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.buffer.release();
  }

  #checkSyncFile(flags: number): void {
    if (!this.#syncFiles) throw noSuchCall("sync file", "ENOTTY");
    if (!(flags === 1 || flags === 2 || flags === 3)) throw badArgument("sync file flags", flags, "1, 2 or 3");
  }
}

/** By the two low bits of a sync call. */
const SYNC_DIRECTIONS: readonly (Direction | undefined)[] = [undefined, "from-device", "to-device", "bidirectional"];
