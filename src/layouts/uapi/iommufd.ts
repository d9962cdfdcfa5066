/**
 * The kernel's interface to /dev/iommu: every request with its structure, as passed by the newest caller.
 *
 * `least` is the size of the oldest version that is still taken: what a shorter caller leaves out counts as zero.
 * Specified by: include/uapi/linux/iommufd.h of Linux 7.2, names and numbers.
 */
import { type CStruct, cStruct } from "./c-struct.ts";

/** A request of /dev/iommu: its number, its structure, and the bytes of its first version. */
export interface IommufdRequest<Name extends string = string> {
  /** What ioctl takes. */
  readonly number: number;
  /** Its structure, of the newest version. */
  readonly layout: CStruct<Name>;
  /** Bytes of the oldest version that is still taken; what a shorter caller leaves out counts as zero. */
  readonly least: number;
}

type Fields<Name extends string> = Readonly<Record<Name, readonly [number, 1 | 2 | 4 | 8]>>;

const request = <Name extends string>(
  index: number,
  name: string,
  bytes: number,
  fields: Fields<Name>,
  least: number = bytes,
): IommufdRequest<Name> => ({ number: 0x3b80 + index, layout: cStruct(`iommu_${name}`, bytes, fields), least });

/** The name of a request here. */
export type IommufdRequestName =
  | "destroy"
  | "ioasAlloc"
  | "allowIovas"
  | "copy"
  | "iovaRanges"
  | "map"
  | "unmap"
  | "option"
  | "vfioIoas"
  | "hwptAlloc"
  | "getHwInfo"
  | "setDirtyTracking"
  | "getDirtyBitmap"
  | "invalidate"
  | "faultQueueAlloc"
  | "mapFile"
  | "viommuAlloc"
  | "vdeviceAlloc"
  | "changeProcess"
  | "veventqAlloc"
  | "hwQueueAlloc";

/** All requests, in the order of their numbers. */
export const IOMMUFD_REQUESTS: Readonly<Record<IommufdRequestName, IommufdRequest>> = {
  destroy: request(0x00, "destroy", 8, { id: [4, 4] }),
  ioasAlloc: request(0x01, "ioas_alloc", 12, { flags: [4, 4], out_ioas_id: [8, 4] }),
  allowIovas: request(0x02, "ioas_allow_iovas", 24, {
    ioas_id: [4, 4],
    num_iovas: [8, 4],
    __reserved: [12, 4],
    allowed_iovas: [16, 8],
  }),
  copy: request(0x03, "ioas_copy", 40, {
    flags: [4, 4],
    dst_ioas_id: [8, 4],
    src_ioas_id: [12, 4],
    length: [16, 8],
    dst_iova: [24, 8],
    src_iova: [32, 8],
  }),
  iovaRanges: request(0x04, "ioas_iova_ranges", 32, {
    ioas_id: [4, 4],
    num_iovas: [8, 4],
    __reserved: [12, 4],
    allowed_iovas: [16, 8],
    out_iova_alignment: [24, 8],
  }),
  map: request(0x05, "ioas_map", 40, {
    flags: [4, 4],
    ioas_id: [8, 4],
    __reserved: [12, 4],
    user_va: [16, 8],
    length: [24, 8],
    iova: [32, 8],
  }),
  unmap: request(0x06, "ioas_unmap", 24, { ioas_id: [4, 4], iova: [8, 8], length: [16, 8] }),
  option: request(0x07, "option", 24, {
    option_id: [4, 4],
    op: [8, 2],
    __reserved: [10, 2],
    object_id: [12, 4],
    val64: [16, 8],
  }),
  vfioIoas: request(0x08, "vfio_ioas", 12, { ioas_id: [4, 4], op: [8, 2], __reserved: [10, 2] }),
  hwptAlloc: request(
    0x09,
    "hwpt_alloc",
    48,
    {
      flags: [4, 4],
      dev_id: [8, 4],
      pt_id: [12, 4],
      out_hwpt_id: [16, 4],
      __reserved: [20, 4],
      data_type: [24, 4],
      data_len: [28, 4],
      data_uptr: [32, 8],
      fault_id: [40, 4],
      __reserved2: [44, 4],
    },
    24,
  ),
  getHwInfo: request(
    0x0a,
    "hw_info",
    40,
    {
      flags: [4, 4],
      dev_id: [8, 4],
      data_len: [12, 4],
      data_uptr: [16, 8],
      data_type: [24, 4],
      out_max_pasid_log2: [28, 1],
      __reserved0: [29, 1],
      __reserved1: [30, 2],
      out_capabilities: [32, 8],
    },
    32,
  ),
  setDirtyTracking: request(0x0b, "hwpt_set_dirty_tracking", 16, {
    flags: [4, 4],
    hwpt_id: [8, 4],
    __reserved: [12, 4],
  }),
  getDirtyBitmap: request(0x0c, "hwpt_get_dirty_bitmap", 48, {
    hwpt_id: [4, 4],
    flags: [8, 4],
    __reserved: [12, 4],
    iova: [16, 8],
    length: [24, 8],
    page_size: [32, 8],
    data: [40, 8],
  }),
  invalidate: request(0x0d, "hwpt_invalidate", 32, {
    hwpt_id: [4, 4],
    data_uptr: [8, 8],
    data_type: [16, 4],
    entry_len: [20, 4],
    entry_num: [24, 4],
    __reserved: [28, 4],
  }),
  faultQueueAlloc: request(0x0e, "fault_alloc", 16, { flags: [4, 4], out_fault_id: [8, 4], out_fault_fd: [12, 4] }),
  mapFile: request(0x0f, "ioas_map_file", 40, {
    flags: [4, 4],
    ioas_id: [8, 4],
    fd: [12, 4],
    start: [16, 8],
    length: [24, 8],
    iova: [32, 8],
  }),
  viommuAlloc: request(
    0x10,
    "viommu_alloc",
    40,
    {
      flags: [4, 4],
      type: [8, 4],
      dev_id: [12, 4],
      hwpt_id: [16, 4],
      out_viommu_id: [20, 4],
      data_len: [24, 4],
      __reserved: [28, 4],
      data_uptr: [32, 8],
    },
    24,
  ),
  vdeviceAlloc: request(0x11, "vdevice_alloc", 24, {
    viommu_id: [4, 4],
    dev_id: [8, 4],
    out_vdevice_id: [12, 4],
    virt_id: [16, 8],
  }),
  changeProcess: request(0x12, "ioas_change_process", 8, { __reserved: [4, 4] }),
  veventqAlloc: request(
    0x13,
    "veventq_alloc",
    32,
    {
      flags: [4, 4],
      viommu_id: [8, 4],
      type: [12, 4],
      veventq_depth: [16, 4],
      out_veventq_id: [20, 4],
      out_veventq_fd: [24, 4],
      __reserved: [28, 4],
    },
    28,
  ),
  hwQueueAlloc: request(0x14, "hw_queue_alloc", 40, {
    flags: [4, 4],
    viommu_id: [8, 4],
    type: [12, 4],
    index: [16, 4],
    out_hw_queue_id: [20, 4],
    nesting_parent_iova: [24, 8],
    length: [32, 8],
  }),
};

/** Flags of MAP, MAP_FILE and COPY. */
export const IOAS_MAP_FLAGS = {
  /** The caller chooses the address; else the kernel does, and says which. */
  FIXED_IOVA: 1,
  /** Devices may write it. */
  WRITEABLE: 2,
  /** Devices may read it. */
  READABLE: 4,
} as const;

/** Flags of HWPT_ALLOC. */
export const HWPT_FLAGS = {
  /** It will be the parent of nested tables. */
  NEST_PARENT: 1,
  /** It must be able to say which pages were written. */
  DIRTY_TRACKING: 2,
  /** `fault_id` names the queue that faults of it go to. */
  FAULT_ID_VALID: 4,
  /** It can be attached to PASIDs. */
  PASID: 8,
} as const;

/** Capabilities that GET_HW_INFO tells. */
export const HW_CAPABILITIES = {
  /** The unit says which pages were written. */
  DIRTY_TRACKING: 1,
  /** The device may ask to execute, with a PASID. */
  PASID_EXEC: 2,
  /** The device may ask as privileged, with a PASID. */
  PASID_PRIV: 4,
  /** The device has no address translation service that could be used. */
  NO_ATS: 8,
} as const;

/** A page fault as a queue gives it out: bytes of one record, and of one answer. */
export const PAGE_FAULT_BYTES = 40;
export const PAGE_RESPONSE_BYTES = 8;
