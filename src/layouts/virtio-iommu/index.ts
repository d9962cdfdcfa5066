/** What a virtio-iommu and its driver write for each other. */
export {
  decodeFault,
  encodeFault,
  FAULT_BYTES,
  FAULT_REASON,
  type VirtioIommuFaultReport,
} from "./faults.ts";
export {
  decodeRequest,
  encodeRequest,
  type InvalidRequest,
  MAP_FLAG,
  putStatus,
  REQUEST,
  STATUS,
  statusOf,
  type VirtioIommuRequest,
} from "./requests.ts";
