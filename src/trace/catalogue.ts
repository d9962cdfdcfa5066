/**
 * The catalogue: what the events of the DMA, IOMMU and bounce-buffer subsystems mean, whatever kernel wrote them.
 *
 * Idea: a consumer asks once per event type which field plays which role, then reads numbers by index. Older kernels'
 * names (`dma_map_page`, `map_single`, …) are found by name, and their fields by name: never by position.
 * Promises: an event is only known when every field its meaning rests on is there and holds what it should (an address is a
 * number, a device is text): what a file calls `dma_map_phys` and describes otherwise is another event.
 * Specified by: the tracepoints of Linux 5.4 to 7.2 and the probe events that `dmalink record` sets up.
 */
import { DIRECTIONS, KERNEL_ATTRIBUTES, kernelDirection } from "../base/index.ts";
import type { EventType, FieldKind } from "./events.ts";

/** What happened. */
export type Meaning =
  | "dma-map"
  | "dma-unmap"
  | "dma-alloc"
  | "dma-free"
  | "dma-map-list"
  | "dma-unmap-list"
  | "dma-sync"
  /** A call that failed, by an event of its own: `dma_map_sg_err`, `dma_alloc_sgt_err`. */
  | "dma-failed"
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
  | "virtAddr"
  | "size"
  | "attrs"
  | "iova"
  | "end"
  | "unmappedSize"
  | "state"
  | "offset"
  | "ok"
  | "error"
  | "physAddrs"
  | "dmaAddrs"
  | "lengths";

/** An event whose meaning is known: its fields' roles, and what it begins or ends. */
export interface KnownEvent {
  /** What it tells. */
  readonly meaning: Meaning;
  /** Field index by role; a role that this kernel's event does not have is absent. */
  readonly fields: Readonly<Partial<Record<Role, number>>>;
}

const MEANINGS: ReadonlyMap<string, Meaning> = new Map<string, Meaning>([
  ["dma_map_phys", "dma-map"],
  ["dma_map_page", "dma-map"],
  ["dma_map_resource", "dma-map"],
  ["dma_unmap_phys", "dma-unmap"],
  ["dma_unmap_page", "dma-unmap"],
  ["dma_unmap_resource", "dma-unmap"],
  ["dma_alloc", "dma-alloc"],
  ["dma_alloc_pages", "dma-alloc"],
  ["dma_alloc_sgt", "dma-alloc"],
  ["dma_alloc_sgt_err", "dma-failed"],
  ["dma_free", "dma-free"],
  ["dma_free_pages", "dma-free"],
  ["dma_free_sgt", "dma-free"],
  ["dma_map_sg", "dma-map-list"],
  ["dma_map_sg_err", "dma-failed"],
  ["dma_unmap_sg", "dma-unmap-list"],
  ["dma_sync_single_for_cpu", "dma-sync"],
  ["dma_sync_single_for_device", "dma-sync"],
  ["dma_sync_sg_for_cpu", "dma-sync"],
  ["dma_sync_sg_for_device", "dma-sync"],
  ["map", "iommu-map"],
  ["unmap", "iommu-unmap"],
  ["io_page_fault", "iommu-fault"],
  ["swiotlb_bounced", "bounced"],
  ["dma_iova_try_alloc", "range-reserve"],
  ["dma_iova_link", "range-link"],
  ["dma_iova_sync", "range-sync"],
  ["dma_iova_unlink", "range-unlink"],
  ["dma_iova_free", "range-free"],
  ["dma_iova_destroy", "range-destroy"],
]);

/** The Intel driver's own tracepoints of Linux 5.4 to 5.10, before it used the common DMA layer. */
const INTEL_MEANINGS: ReadonlyMap<string, Meaning> = new Map<string, Meaning>([
  ["map_single", "dma-map"],
  ["bounce_map_single", "dma-map"],
  ["unmap_single", "dma-unmap"],
  ["bounce_unmap_single", "dma-unmap"],
]);

/** Field names that play a role, newest first. */
const ROLES: Readonly<Record<Role, readonly string[]>> = {
  device: ["device", "dev_name", "dev"],
  direction: ["dir"],
  dmaAddr: ["dma_addr", "dev_addr", "addr"],
  physAddr: ["phys_addr", "paddr", "phys"],
  virtAddr: ["virt_addr"],
  size: ["size", "mapped_len"],
  attrs: ["attrs"],
  iova: ["iova"],
  end: ["end"],
  unmappedSize: ["unmapped_size"],
  state: ["state"],
  offset: ["offset"],
  ok: ["ret"],
  error: ["err"],
  physAddrs: ["phys_addrs", "addrs"],
  dmaAddrs: ["dma_addrs"],
  lengths: ["lengths"],
};

const TEXT_ROLES: ReadonlySet<Role> = new Set<Role>(["device"]);
const LIST_ROLES: ReadonlySet<Role> = new Set<Role>(["physAddrs", "dmaAddrs", "lengths"]);

/** The roles without which an event says nothing that may be believed; of a sync, one of the two sets. */
const NEEDED: Readonly<Record<Meaning, readonly (readonly Role[])[]>> = {
  "dma-map": [["dmaAddr", "size"]],
  "dma-unmap": [["dmaAddr"]],
  "dma-alloc": [["dmaAddr", "size"]],
  "dma-free": [["dmaAddr"]],
  "dma-map-list": [["dmaAddrs", "lengths"]],
  "dma-unmap-list": [["physAddrs"]],
  "dma-sync": [
    ["dmaAddr", "size"],
    ["dmaAddrs", "lengths"],
  ],
  "dma-failed": [[]],
  "iommu-map": [["iova", "physAddr", "size"]],
  "iommu-unmap": [["iova", "size"]],
  "iommu-fault": [["iova"]],
  bounced: [["dmaAddr", "size"]],
  "range-reserve": [["state", "dmaAddr", "size", "ok"]],
  "range-link": [["state", "dmaAddr", "offset", "size"]],
  "range-sync": [["state"]],
  "range-unlink": [["state", "offset", "size"]],
  "range-free": [["state"]],
  "range-destroy": [["state"]],
};

/** The systems whose events are in the catalogue; an empty one is a text file that names none. */
const SYSTEMS = new Set(["", "dma", "iommu", "swiotlb", "probes", "kprobes", "fprobes", "dmalink"]);

/** What an event of this name means, if its fields are as they should be. */
export function meaningOf({ system, name }: Pick<EventType, "system" | "name">): Meaning | undefined {
  if (system === "intel_iommu" || (system === "" && INTEL_MEANINGS.has(name))) return INTEL_MEANINGS.get(name);
  const meaning = MEANINGS.get(name);
  return meaning && (SYSTEMS.has(system) || name.startsWith("dma_iova_")) ? meaning : undefined;
}

const isFit = (role: Role, kind: FieldKind): boolean =>
  TEXT_ROLES.has(role)
    ? kind === "string"
    : LIST_ROLES.has(role)
      ? kind === "array"
      : kind === "unsigned" || kind === "signed";

/**
 * What `type` means; `undefined` for events outside the catalogue, and for those whose fields are not what the meaning
 * rests on. They are kept, raw.
 */
export function known(type: EventType): KnownEvent | undefined {
  const meaning = meaningOf(type);
  if (!meaning) return undefined;
  const fields: Partial<Record<Role, number>> = {};
  for (const [role, names] of Object.entries(ROLES) as [Role, readonly string[]][]) {
    const index = names.map((name) => type.fields.findIndex((field) => field.name === name)).find((at) => at >= 0);
    if (index === undefined) continue;
    if (!isFit(role, type.fields[index]!.kind)) return undefined;
    fields[role] = index;
  }
  if (!NEEDED[meaning].some((roles) => roles.every((role) => fields[role] !== undefined))) return undefined;
  return { meaning, fields };
}

/** Whether `type` bears the name of an event of the catalogue and yet is none. */
export const isStrange = (type: EventType): boolean => meaningOf(type) !== undefined && known(type) === undefined;

/** Names of the transfer directions by the kernel's number; 3 is an invalid mapping direction. */
export const DIRECTION_NAMES: readonly string[] = [...DIRECTIONS.map(kernelDirection), "NONE"];

/** Numbers of the bits of the DMA attributes, by the names that the kernel's events print, older ones too. */
export const ATTRIBUTE_BITS: Readonly<Record<string, number>> = Object.fromEntries(
  KERNEL_ATTRIBUTES.flatMap(({ bit, printed }) => printed.map((name) => [name, bit])),
);
