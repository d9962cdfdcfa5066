/**
 * A driver for NVMe disks, which maps by two steps: PRP and SGL, several queues, reset, peer-to-peer.
 *
 * @module dmalink/nvme
 */
export {
  type BlockRange,
  type BufferPart,
  type Cmb,
  CommandMapping,
  DataMapper,
  DEFAULT_SGL_THRESHOLD,
  type DescriptorBlock,
  DescriptorPool,
  DescriptorPools,
  LARGE_BLOCK,
  MAX_SEGMENTS,
  type MapperCounters,
  type MapperOptions,
  Nvme,
  NvmeBuffer,
  type NvmeEvent,
  type NvmeNamespace,
  type NvmeOptions,
  type NvmeWarnings,
  type PeerMemory,
  RECORD_BYTES,
  RecordPool,
  SegmentRecords,
  type SharedMemory,
  SMALL_BLOCK,
  type TransferOptions,
} from "../consumers/nvme/index.ts";
