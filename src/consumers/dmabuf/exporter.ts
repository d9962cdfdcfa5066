/**
 * Who owns the storage of a shared buffer.
 *
 * Idea: an exporter says *where* the storage is, as physical vectors; it never maps. Each importer maps them with its own device.
 * So an exporter needs no knowledge of IOMMUs, and a device no knowledge of exporters. Vectors are asked for at every map, under
 * the lock: what moves gives other ones then.
 * Specified by: behaviour of Linux 7.2 dma-buf exporters.
 */
import type { Direction } from "../../base/index.ts";
import type { Importer } from "./importer.ts";
import type { MappingType } from "./mapping-types.ts";
import type { StorageVec } from "./storage.ts";

/** How a mapping ends. `at-once`: when the unmap returns, no device reaches the storage, in lazy mode too. */
export type Teardown = "at-once" | "deferred";

/** What a buffer is made of. */
export interface Exporter {
  /** Kind of exporter: system-heap, user-memory, vfio-bar, device-memory. */
  readonly name: string;
  /** Bytes; never changes. */
  readonly lengthBytes: number;
  /**
   * How importers see the storage. `vectors`: linked in two steps, any mix. `scatter-table`: the classic list of pages, RAM only.
   */
  readonly form: "vectors" | "scatter-table";
  /** How importers may be given it, best first. Absent: as a list of DMA addresses, or as its vectors. */
  readonly offers?: readonly MappingType[];
  /** How mappings end; `at-once` for what can be revoked. */
  readonly teardown: Teardown;
  /** Where the storage is, in order. Locked. @throws DmaError if it is nowhere just now */
  vectors(): readonly StorageVec[];
  /** The part [offset, + length) of it, where that costs less than all. Locked. */
  part?(offset: number, length: number): readonly StorageVec[];
  /** Looks an importer over. Unlocked. @throws DmaError to refuse it */
  attach?(importer: Importer): void;
  /** Unlocked. Cannot fail. */
  detach?(importer: Importer): void;
  /** From here on the storage stays. Locked. @throws DmaError */
  pin?(importer: Importer): void;
  /** Locked. Cannot fail. */
  unpin?(importer: Importer): void;
  /** The CPU is about to look or write; mappings of devices are synced besides. @throws DmaError; the access may not begin then */
  beginCpuAccess?(direction: Direction): void;
  /** The CPU has done. @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL) if it had not begun */
  endCpuAccess?(direction: Direction): void;
  /** What processes may do with it: nothing (absent), or map it. */
  readonly processMap?: "shared" | "any";
  /** The last holder has let go. Cannot fail. */
  release?(): void;
}
