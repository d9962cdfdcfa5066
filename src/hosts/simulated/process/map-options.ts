/** What a program says when it maps memory or changes what it may do there. Specified by: mmap(2), mprotect(2). */
import type { PhysPage } from "../../../base/index.ts";
import type { MemoryFile, UserAddr } from "../../../platform/index.ts";

/** What a program may do with memory: "none", or letters of r (read), w (write), x (execute). */
export type Access = "none" | "r" | "rw" | "rwx" | "rx" | "w" | "x" | "wx";

/** What to map, in bytes. */
export interface MapOptions {
  /** Chosen from the top down, unless said. */
  readonly address?: UserAddr;
  /** Bytes, more than 0; rounded up to whole pages. */
  readonly length: number;
  /** "rw" unless said. */
  readonly access?: Access;
  /** Writes are seen by others that map the same, and by a child. False unless said. */
  readonly shared?: boolean;
  /** Anonymous memory unless said. */
  readonly file?: MemoryFile;
  /** Where in the file the mapping begins, bytes, whole pages; 0 unless said. */
  readonly offset?: number;
  /** Pages of 2 MiB that were set aside. */
  readonly hugetlb?: boolean;
  /** Registers of a device from this page on. */
  readonly io?: PhysPage;
  /** Peer memory from this page on: pages that devices may be given. */
  readonly peer?: PhysPage;
  /** What is mapped there goes. */
  readonly replace?: boolean;
}
