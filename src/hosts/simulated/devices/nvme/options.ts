/** What a simulated NVMe controller is like. */
import type { CmbUses } from "./cmb.ts";
import type { FaultPlan } from "./faults.ts";
import type { NamespaceOptions } from "./namespace.ts";

/** Properties of one controller. */
export interface NvmeModelOptions {
  /** Its disks; the first has namespace id 1. */
  readonly namespaces: readonly NamespaceOptions[];
  /** Interrupt vectors; one more than I/O queues unless said; 0: it must be polled. */
  readonly vectors?: number;
  /** I/O queues of each kind; 8 unless said. */
  readonly ioQueues?: number;
  /** Entries of the largest I/O queue; 1024 unless said. */
  readonly maxQueueEntries?: number;
  /** Longest transfer: 2^n pages of 4 KiB; 0, the default, is no limit. */
  readonly maxTransferShift?: number;
  /** SGLS: byte-aligned SGLs, also for metadata, unless said. */
  readonly sgls?: number;
  /** CAP.DSTRD: doorbells lie 4 bytes shifted left by this apart; 0 to 15, 0 unless said. */
  readonly doorbellStride?: number;
  /** Smallest memory page: 4 KiB shifted left by this. */
  readonly minPageShift?: number;
  /** Memory of its own that others may use; none unless said. */
  readonly cmbBytes?: number;
  /** What it may be used for; everything unless said. */
  readonly cmbUses?: CmbUses;
  /** From enabled to ready; 1 ms unless said. */
  readonly readyMs?: number;
  /** From fetched to done; 0.02 ms unless said. */
  readonly serviceMs?: number;
  /** At most 20 characters; "SIM0" unless said. */
  readonly serialNumber?: string;
  /** At most 40 characters; "dmalink simulated NVMe" unless said. */
  readonly modelNumber?: string;
  /** Which commands go wrong, and how; none unless given. */
  readonly faults?: FaultPlan;
}
