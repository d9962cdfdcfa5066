/**
 * The kernel's interface to VFIO and iommufd: requests and structures that this host uses.
 *
 * Sizes and offsets are of the structures as passed: the kernel takes longer ones if the rest is zero, and shorter ones of
 * earlier versions. `test/hardware/uapi.test.ts` asks the kernel's headers whether every number here is theirs.
 * Specified by: include/uapi/linux/vfio.h and iommufd.h of Linux 7.2, names and numbers.
 */
import { type CStruct, cStruct } from "./c-struct.ts";

/** Numbers of the requests, by the headers' names. */
const NUMBERS = {
  VFIO_GET_API_VERSION: 100,
  VFIO_CHECK_EXTENSION: 101,
  VFIO_SET_IOMMU: 102,
  VFIO_GROUP_GET_STATUS: 103,
  VFIO_GROUP_SET_CONTAINER: 104,
  VFIO_GROUP_UNSET_CONTAINER: 105,
  VFIO_GROUP_GET_DEVICE_FD: 106,
  VFIO_DEVICE_GET_INFO: 107,
  VFIO_DEVICE_GET_REGION_INFO: 108,
  VFIO_DEVICE_GET_IRQ_INFO: 109,
  VFIO_DEVICE_SET_IRQS: 110,
  VFIO_DEVICE_RESET: 111,
  VFIO_IOMMU_GET_INFO: 112,
  VFIO_IOMMU_MAP_DMA: 113,
  VFIO_IOMMU_UNMAP_DMA: 114,
  VFIO_DEVICE_FEATURE: 117,
  VFIO_DEVICE_BIND_IOMMUFD: 118,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: 119,
  VFIO_DEVICE_DETACH_IOMMUFD_PT: 120,
  IOMMU_DESTROY: 0x80,
  IOMMU_IOAS_ALLOC: 0x81,
  IOMMU_IOAS_IOVA_RANGES: 0x84,
  IOMMU_IOAS_MAP: 0x85,
  IOMMU_IOAS_UNMAP: 0x86,
  IOMMU_IOAS_MAP_FILE: 0x8f,
} as const;
export type RequestName = keyof typeof NUMBERS;

/** What ioctl takes: both interfaces have the same letter, and say neither size nor direction. */
export const REQUESTS: Readonly<Record<RequestName, number>> = Object.fromEntries(
  Object.entries(NUMBERS).map(([name, number]) => [name, (0x3b << 8) | number]),
) as Record<RequestName, number>;

/** Constants, by the headers' names. */
export const CONSTANTS = {
  VFIO_API_VERSION: 0,
  VFIO_TYPE1v2_IOMMU: 3,
  VFIO_GROUP_FLAGS_VIABLE: 1,
  VFIO_DEVICE_FLAGS_RESET: 1,
  VFIO_REGION_INFO_FLAG_MMAP: 4,
  VFIO_PCI_CONFIG_REGION_INDEX: 7,
  VFIO_PCI_MSI_IRQ_INDEX: 1,
  VFIO_PCI_MSIX_IRQ_INDEX: 2,
  VFIO_PCI_ERR_IRQ_INDEX: 3,
  VFIO_PCI_REQ_IRQ_INDEX: 4,
  VFIO_IRQ_SET_DATA_NONE: 1,
  VFIO_IRQ_SET_DATA_EVENTFD: 4,
  VFIO_IRQ_SET_ACTION_TRIGGER: 32,
  VFIO_DEVICE_FEATURE_GET: 65536,
  VFIO_DEVICE_FEATURE_DMA_BUF: 11,
  VFIO_DMA_MAP_FLAG_READ: 1,
  VFIO_DMA_MAP_FLAG_WRITE: 2,
  VFIO_IOMMU_INFO_CAPS: 2,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE: 1,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL: 3,
  IOMMU_IOAS_MAP_FIXED_IOVA: 1,
  IOMMU_IOAS_MAP_WRITEABLE: 2,
  IOMMU_IOAS_MAP_READABLE: 4,
} as const;

export const GROUP_STATUS: CStruct<"argsz" | "flags"> = cStruct("vfio_group_status", 8, {
  argsz: [0, 4],
  flags: [4, 4],
});

export const DEVICE_INFO: CStruct<"argsz" | "flags" | "num_regions" | "num_irqs"> = cStruct("vfio_device_info", 16, {
  argsz: [0, 4],
  flags: [4, 4],
  num_regions: [8, 4],
  num_irqs: [12, 4],
});

export const REGION_INFO: CStruct<"argsz" | "flags" | "index" | "cap_offset" | "size" | "offset"> = cStruct(
  "vfio_region_info",
  32,
  { argsz: [0, 4], flags: [4, 4], index: [8, 4], cap_offset: [12, 4], size: [16, 8], offset: [24, 8] },
);

export const IRQ_INFO: CStruct<"argsz" | "flags" | "index" | "count"> = cStruct("vfio_irq_info", 16, {
  argsz: [0, 4],
  flags: [4, 4],
  index: [8, 4],
  count: [12, 4],
});

/** Followed by one eventfd, 4 bytes, per vector. */
export const IRQ_SET: CStruct<"argsz" | "flags" | "index" | "start" | "count"> = cStruct("vfio_irq_set", 20, {
  argsz: [0, 4],
  flags: [4, 4],
  index: [8, 4],
  start: [12, 4],
  count: [16, 4],
});

export const TYPE1_INFO: CStruct<"argsz" | "flags" | "iova_pgsizes" | "cap_offset"> = cStruct(
  "vfio_iommu_type1_info",
  24,
  { argsz: [0, 4], flags: [4, 4], iova_pgsizes: [8, 8], cap_offset: [16, 4] },
);

/** At each link of the chain of capabilities. */
export const CAPABILITY: CStruct<"id" | "version" | "next"> = cStruct("vfio_info_cap_header", 8, {
  id: [0, 2],
  version: [2, 2],
  next: [4, 4],
});

export const TYPE1_MAP: CStruct<"argsz" | "flags" | "vaddr" | "iova" | "size"> = cStruct(
  "vfio_iommu_type1_dma_map",
  32,
  { argsz: [0, 4], flags: [4, 4], vaddr: [8, 8], iova: [16, 8], size: [24, 8] },
);

export const TYPE1_UNMAP: CStruct<"argsz" | "flags" | "iova" | "size"> = cStruct("vfio_iommu_type1_dma_unmap", 24, {
  argsz: [0, 4],
  flags: [4, 4],
  iova: [8, 8],
  size: [16, 8],
});

export const BIND: CStruct<"argsz" | "flags" | "iommufd" | "out_devid"> = cStruct("vfio_device_bind_iommufd", 16, {
  argsz: [0, 4],
  flags: [4, 4],
  iommufd: [8, 4],
  out_devid: [12, 4],
});

export const ATTACH: CStruct<"argsz" | "flags" | "pt_id"> = cStruct("vfio_device_attach_iommufd_pt", 12, {
  argsz: [0, 4],
  flags: [4, 4],
  pt_id: [8, 4],
});

export const DETACH: CStruct<"argsz" | "flags"> = cStruct("vfio_device_detach_iommufd_pt", 8, {
  argsz: [0, 4],
  flags: [4, 4],
});

/** Followed by what the feature takes. */
export const FEATURE: CStruct<"argsz" | "flags"> = cStruct("vfio_device_feature", 8, {
  argsz: [0, 4],
  flags: [4, 4],
});

/** Followed by the ranges. */
export const FEATURE_DMA_BUF: CStruct<"region_index" | "open_flags" | "flags" | "nr_ranges"> = cStruct(
  "vfio_device_feature_dma_buf",
  16,
  { region_index: [0, 4], open_flags: [4, 4], flags: [8, 4], nr_ranges: [12, 4] },
);

export const REGION_DMA_RANGE: CStruct<"offset" | "length"> = cStruct("vfio_region_dma_range", 16, {
  offset: [0, 8],
  length: [8, 8],
});

export const DESTROY: CStruct<"size" | "id"> = cStruct("iommu_destroy", 8, { size: [0, 4], id: [4, 4] });

export const IOAS_ALLOC: CStruct<"size" | "flags" | "out_ioas_id"> = cStruct("iommu_ioas_alloc", 12, {
  size: [0, 4],
  flags: [4, 4],
  out_ioas_id: [8, 4],
});

export const IOAS_RANGES: CStruct<"size" | "ioas_id" | "num_iovas" | "allowed_iovas" | "out_iova_alignment"> = cStruct(
  "iommu_ioas_iova_ranges",
  32,
  {
    size: [0, 4],
    ioas_id: [4, 4],
    num_iovas: [8, 4],
    allowed_iovas: [16, 8],
    out_iova_alignment: [24, 8],
  },
);

/** One of the ranges; `last` is inclusive. */
export const IOVA_RANGE: CStruct<"start" | "last"> = cStruct("iommu_iova_range", 16, {
  start: [0, 8],
  last: [8, 8],
});

export const IOAS_MAP: CStruct<"size" | "flags" | "ioas_id" | "user_va" | "length" | "iova"> = cStruct(
  "iommu_ioas_map",
  40,
  { size: [0, 4], flags: [4, 4], ioas_id: [8, 4], user_va: [16, 8], length: [24, 8], iova: [32, 8] },
);

export const IOAS_MAP_FILE: CStruct<"size" | "flags" | "ioas_id" | "fd" | "start" | "length" | "iova"> = cStruct(
  "iommu_ioas_map_file",
  40,
  { size: [0, 4], flags: [4, 4], ioas_id: [8, 4], fd: [12, 4], start: [16, 8], length: [24, 8], iova: [32, 8] },
);

export const IOAS_UNMAP: CStruct<"size" | "ioas_id" | "iova" | "length"> = cStruct("iommu_ioas_unmap", 24, {
  size: [0, 4],
  ioas_id: [4, 4],
  iova: [8, 8],
  length: [16, 8],
});

/** All of them, for the test. */
export const STRUCTURES: readonly CStruct[] = [
  GROUP_STATUS,
  DEVICE_INFO,
  REGION_INFO,
  IRQ_INFO,
  IRQ_SET,
  TYPE1_INFO,
  CAPABILITY,
  TYPE1_MAP,
  TYPE1_UNMAP,
  BIND,
  ATTACH,
  DETACH,
  FEATURE,
  FEATURE_DMA_BUF,
  REGION_DMA_RANGE,
  DESTROY,
  IOAS_ALLOC,
  IOAS_RANGES,
  IOVA_RANGE,
  IOAS_MAP,
  IOAS_MAP_FILE,
  IOAS_UNMAP,
];
