/**
 * The catalogue: what the events of the DMA, IOMMU and bounce-buffer subsystems mean, whatever kernel wrote them.
 *
 * Idea: a consumer asks once per event type which field plays which role, then reads numbers by index. Older kernels'
 * names (`dma_map_page`, `dma_map_resource`, …) are found by name, and their fields by name: never by position.
 * Specified by: the tracepoints of Linux 6.12 to 7.2 and the probe events that `dmalink record` sets up.
 */
import type { EventType } from "./events.ts";

/** What happened. */
export type Meaning =
  | "dma-map"
  | "dma-unmap"
  | "dma-alloc"
  | "dma-free"
  | "dma-map-list"
  | "dma-unmap-list"
  | "dma-sync"
  | "iommu-map"
  | "iommu-unmap"
  | "iommu-fault"
  | "bounced"
  | "range-reserve"
  | "range-link"
  | "range-sync"
  | "range-unlink"
  | "range-free"
  | "range-destroy";

/** What a field says. */
export type Role =
  | "device"
  | "direction"
  | "dmaAddr"
  | "physAddr"
  | "size"
  | "attrs"
  | "iova"
  | "end"
  | "unmappedSize"
  | "state"
  | "offset"
  | "ok"
  | "physAddrs"
  | "dmaAddrs"
  | "lengths";

export interface KnownEvent {
  readonly meaning: Meaning;
  /** Field index by role; a role that this kernel's event does not have is absent. */
  readonly fields: Readonly<Partial<Record<Role, number>>>;
}

const MEANINGS: Readonly<Record<string, Meaning>> = {
  dma_map_phys: "dma-map",
  dma_map_page: "dma-map",
  dma_map_resource: "dma-map",
  dma_unmap_phys: "dma-unmap",
  dma_unmap_page: "dma-unmap",
  dma_unmap_resource: "dma-unmap",
  dma_alloc: "dma-alloc",
  dma_alloc_pages: "dma-alloc",
  dma_alloc_sgt: "dma-alloc",
  dma_free: "dma-free",
  dma_free_pages: "dma-free",
  dma_free_sgt: "dma-free",
  dma_map_sg: "dma-map-list",
  dma_unmap_sg: "dma-unmap-list",
  dma_sync_single_for_cpu: "dma-sync",
  dma_sync_single_for_device: "dma-sync",
  dma_sync_sg_for_cpu: "dma-sync",
  dma_sync_sg_for_device: "dma-sync",
  map: "iommu-map",
  unmap: "iommu-unmap",
  io_page_fault: "iommu-fault",
  swiotlb_bounced: "bounced",
  dma_iova_try_alloc: "range-reserve",
  dma_iova_link: "range-link",
  dma_iova_sync: "range-sync",
  dma_iova_unlink: "range-unlink",
  dma_iova_free: "range-free",
  dma_iova_destroy: "range-destroy",
};

/** Field names that play a role, newest first. */
const ROLES: Readonly<Record<Role, readonly string[]>> = {
  device: ["device", "dev_name", "dev"],
  direction: ["dir"],
  dmaAddr: ["dma_addr", "dev_addr", "addr"],
  physAddr: ["phys_addr", "paddr", "phys"],
  size: ["size", "mapped_len"],
  attrs: ["attrs"],
  iova: ["iova"],
  end: ["end"],
  unmappedSize: ["unmapped_size"],
  state: ["state"],
  offset: ["offset"],
  ok: ["ret"],
  physAddrs: ["phys_addrs", "addrs"],
  dmaAddrs: ["dma_addrs"],
  lengths: ["lengths"],
};

/** The systems whose events are in the catalogue; an empty one is a text file that names none. */
const SYSTEMS = new Set(["", "dma", "iommu", "swiotlb", "probes", "kprobes", "fprobes", "dmalink"]);

/** What `type` means; `undefined` for events outside the catalogue (they are kept, raw). */
export function known(type: EventType): KnownEvent | undefined {
  const meaning = MEANINGS[type.name];
  if (!meaning || (!SYSTEMS.has(type.system) && !type.name.startsWith("dma_iova_"))) return undefined;
  const fields: Partial<Record<Role, number>> = {};
  for (const [role, names] of Object.entries(ROLES) as [Role, readonly string[]][]) {
    const index = names.map((name) => type.fields.findIndex((field) => field.name === name)).find((at) => at >= 0);
    if (index !== undefined) fields[role] = index;
  }
  return { meaning, fields };
}

/** Names of the transfer directions by the kernel's number; 3 is an invalid mapping direction. */
export const DIRECTION_NAMES: readonly string[] = ["BIDIRECTIONAL", "TO_DEVICE", "FROM_DEVICE", "NONE"];

/** Names of DMA attributes by bit number, as the kernel's events print them. */
export const ATTRIBUTE_BITS: Readonly<Record<string, number>> = {
  WEAK_ORDERING: 1,
  WRITE_COMBINE: 2,
  NO_KERNEL_MAPPING: 4,
  SKIP_CPU_SYNC: 5,
  FORCE_CONTIGUOUS: 6,
  ALLOC_SINGLE_PAGES: 7,
  NO_WARN: 8,
  PRIVILEGED: 9,
  MMIO: 10,
  DEBUGGING_IGNORE_CACHELINES: 11,
  /** What the events print for bit 11. */
  CACHELINES_OVERLAP: 11,
  REQUIRE_COHERENT: 12,
  CC_SHARED: 13,
};
