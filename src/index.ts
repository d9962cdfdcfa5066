/**
 * dmalink: the two-step DMA mapping API in TypeScript, as a driver sees it.
 *
 * Reserve address space once, then link, sync and unlink physical memory in it. What is below (domains, IOVA allocation, page
 * tables, IOMMUs) is in `dmalink/iommu`; machines to run on in `dmalink/sim` and `dmalink/linux`; the block layer in
 * `dmalink/block`, a driver for NVMe disks in `dmalink/nvme`. Recorded kernel traces are read in `dmalink/trace`, understood
 * in `dmalink/analysis`, replayed in `dmalink/replay`; whole machines from a seed are `dmalink/simulation`.
 *
 * @module dmalink
 */
export {
  COUNTER_NAMES,
  type CounterName,
  Counters,
  type Direction,
  DmaAddr,
  DmaError,
  type DmaEvent,
  type DmaEventName,
  ERRNO,
  type Errno,
  type ErrorCode,
  GiB,
  hex,
  Iova,
  IovaPage,
  KiB,
  MiB,
  type Observer,
  PAGE_SIZE,
  PhysAddr,
  PhysPage,
  Random,
  TiB,
  type TwoStepEvent,
} from "./base/index.ts";
export {
  type AllocationKind,
  type BatchLimits,
  type Chunk,
  ChunkIndex,
  type CoherentMemory,
  ConfidentialMemory,
  type DeviceOptions,
  type DeviceWatch,
  Dma,
  type DmaAttributes,
  type DmaBatch,
  type DmaDevice,
  type DmaLimits,
  type DmaMachine,
  type DmaMapping,
  type DmaOptions,
  type DmaVec,
  type DmaWatcher,
  type Host,
  type HostCapabilities,
  type IovaRange,
  type LinearOptions,
  type MappedList,
  type OpenDevice,
  type OpenDeviceOptions,
  type PhysColumns,
  type PhysVec,
  type ScatterlistMapping,
  type Terms,
  type VecsMapping,
} from "./dma/index.ts";
export {
  type DebugCounters,
  type DebugFinding,
  type DeviceDebug,
  DmaDebug,
  type DmaDebugOptions,
  type FindingSite,
  type LiveRow,
  type MappingKind,
  type MemoryRange,
  MISUSE_NUMBERS,
  type MisuseCode,
} from "./dma-debug/index.ts";
export type { AddressSpace } from "./iommu/index.ts";
export { requesterId, requesterName } from "./layouts/pci/index.ts";
export type {
  CacheMaintenance,
  Clock,
  DeviceAccess,
  HostBuffer,
  HostMemory,
  MemoryEncryption,
  PageAllocator,
  PciBar,
  PciDevice,
  PciNode,
  PhysicalMemory,
  Registers,
  Timer,
} from "./platform/index.ts";
