/**
 * Files that processes open, as far as consumers care: any file by its kind, and files whose pages are memory.
 *
 * Idea: a consumer that is handed a descriptor looks at the file's kind and refuses what it cannot use. A file of memory
 * can be pinned without any address space, so it outlives the process that gave it. Not for: names, folders, disks.
 */

/** Whatever a descriptor can name: memory, a DMA buffer, an iommufd. Each kind is known by `kind`. */
export interface OpenFile {
  /** What it is, as its maker named it: `memory-file`, `iommufd`, `dma-buf`, … */
  readonly kind: string;
  /** Holds it: one more descriptor, mapping or consumer. */
  acquire(): void;
  /** Lets it go; the last one ends it. */
  release(): void;
}

/** What a file of memory must not do any more. */
export type FileSeal = "seal" | "shrink" | "grow" | "write" | "future-write";

/** A file whose pages are memory: memfd, tmpfs, hugetlb. */
export interface MemoryFile extends OpenFile {
  /** Marks files that can be pinned. */
  readonly kind: "memory-file";
  /** Which file system it is of; `hugetlb` has pages of 2 MiB only. */
  readonly medium: "memfd" | "tmpfs" | "hugetlb";
  /** Bytes. */
  readonly length: number;
  /** Bytes of one of its pages: 4096, or 2 MiB. */
  readonly pageBytes: number;
  /** What can never be done to it any more (F_ADD_SEALS); consumers refuse files that could shrink under them. */
  readonly seals: ReadonlySet<FileSeal>;
  /**
   * Pins `count` pages of 4 KiB from byte `offset` on (whole pages), and writes their numbers to `into` from `at` on. Holes are filled.
   *
   * @throws DmaError ERR_DMA_USER_FILE (EINVAL) beyond the end; ERR_DMA_USER_MEMORY (ENOMEM); nothing is pinned then
   */
  pin(offset: number, count: number, into: Float64Array, at: number): void;
  /** As of a mapping, by offset; what is past the end is not done. Returns bytes done. */
  read(offset: number, into: Uint8Array): number;
  /** Writes at byte `offset`, up to the end of the file. Returns bytes done. */
  write(offset: number, from: Uint8Array): number;
}

/** Is it a file of memory? */
export const isMemoryFile = (file: OpenFile): file is MemoryFile => file.kind === "memory-file";
