/**
 * How the catalogued events are printed, as templates: `{field:what}` is a value, all else is literal.
 *
 * Idea: one line per event and kernel generation, written as the kernel writes it; `compile` turns it into steps for the
 * line reader, and `valuesOf` into names for the reader of loose fields (loose-fields.ts), which takes over where a line is
 * in none of these forms. The field list is the order of the binary event, so that text and trace.dat give the same columns.
 * A value without a field (`{:hex}`) is read and left out: it follows from the others. Allocation flags are printed by
 * names whose bits differ from kernel to kernel: they stay text.
 * Specified by: the print formats of Linux 5.4 to 7.2 and of the `dma_iova_*` probes.
 */
import type { EventField, FieldKind } from "../events.ts";

/** What a value looks like in text. */
export type ValueShape =
  /** Up to the next space. */
  | "word"
  /** In double quotes, or up to the next space. */
  | "quoted"
  | "hex"
  | "decimal"
  /** Decimal, may be negative, or hexadecimal with 0x. */
  | "number"
  /** Hexadecimal with or without 0x, or (nil), (null). */
  | "pointer"
  | "direction"
  | "attrs"
  /** `{0x1000,0x2000}`, or decimals with spaces between them. */
  | "list"
  /** ` [TRUNCATED]`, or nothing. */
  | "truncated"
  /** FORCE, NORMAL or NO_FORCE. */
  | "forced"
  /** `(where <- from)`: the place of a probe. */
  | "site";

export interface Template {
  readonly fields: readonly EventField[];
  /** All literals, one behind the other. */
  readonly literals: Uint8Array;
  /** {@link STEP} numbers a value: end of the literal before it, shape (index into {@link SHAPES}), field or -1. */
  readonly steps: Int32Array;
  /** The values by the name before their `=`, in the order printed; "" where no name stands there. */
  readonly values: readonly { readonly key: string; readonly field: string; readonly shape: ValueShape }[];
}

export const STEP = 3;

/** The shapes by number. */
export const SHAPES: readonly ValueShape[] = [
  "word",
  "quoted",
  "hex",
  "decimal",
  "number",
  "pointer",
  "direction",
  "attrs",
  "list",
  "truncated",
  "forced",
  "site",
];

const KIND: Readonly<Record<ValueShape, FieldKind>> = {
  word: "string",
  quoted: "string",
  hex: "unsigned",
  decimal: "unsigned",
  number: "signed",
  pointer: "unsigned",
  direction: "unsigned",
  attrs: "unsigned",
  list: "array",
  truncated: "unsigned",
  forced: "unsigned",
  site: "string",
};

const encoder = new TextEncoder();

/** `order`: the fields in the order of the binary event. */
function compile(order: string, template: string): Template {
  const names = order.split(" ");
  const kinds = new Map<string, FieldKind>();
  const steps: number[] = [];
  const values: { key: string; field: string; shape: ValueShape }[] = [];
  let literals = "";
  let from = 0;
  for (const match of template.matchAll(/\{(\w*):(\w+)\}/g)) {
    const shape = match[2] as ValueShape;
    const name = match[1]!;
    if (name !== "") kinds.set(name, KIND[shape]);
    const literal = template.slice(from, match.index);
    literals += literal;
    values.push({ key: /(\w+)(?:=|: )$/.exec(literal)?.[1] ?? "", field: name, shape });
    steps.push(literals.length, SHAPES.indexOf(shape), names.indexOf(name));
    from = match.index + match[0].length;
  }
  const fields = names.map((name): EventField => ({ name, kind: kinds.get(name) ?? "unsigned" }));
  return { fields, literals: encoder.encode(literals), steps: Int32Array.from(steps), values };
}

const D = "{device:word} dir={dir:direction}";
const ALLOC_FIELDS = "device virt_addr dma_addr size flags dir attrs";
const FREE_FIELDS = "device virt_addr dma_addr size dir attrs";
const MEMORY = "dma_addr={dma_addr:hex} size={size:decimal}";
const alloc: readonly Template[] = [
  compile(ALLOC_FIELDS, `${D} ${MEMORY} virt_addr={virt_addr:pointer} flags={flags:word} attrs={attrs:attrs}`),
  compile(
    "device virt_addr dma_addr size flags attrs",
    `{device:word} ${MEMORY} virt_addr={virt_addr:pointer} flags={flags:word} attrs={attrs:attrs}`,
  ),
  // Linux 6.12-rc
  compile(
    "device phys_addr dma_addr size flags attrs",
    `{device:word} ${MEMORY} phys_addr={phys_addr:hex} flags={flags:word} attrs={attrs:attrs}`,
  ),
];
const free: readonly Template[] = [
  compile(FREE_FIELDS, `${D} ${MEMORY} virt_addr={virt_addr:pointer} attrs={attrs:attrs}`),
  compile(
    "device virt_addr dma_addr size attrs",
    `{device:word} ${MEMORY} virt_addr={virt_addr:pointer} attrs={attrs:attrs}`,
  ),
  compile(
    "device phys_addr dma_addr size attrs",
    `{device:word} ${MEMORY} phys_addr={phys_addr:hex} attrs={attrs:attrs}`,
  ),
];
const map: readonly Template[] = [
  compile("device phys_addr dma_addr size dir attrs", `${D} ${MEMORY} phys_addr={phys_addr:hex} attrs={attrs:attrs}`),
];
const unmap: readonly Template[] = [
  compile("device addr size dir attrs", `${D} dma_addr={addr:hex} size={size:decimal} attrs={attrs:attrs}`),
];
const syncSingle: readonly Template[] = [compile("device dma_addr size dir", `${D} ${MEMORY}`)];
const syncList: readonly Template[] = [
  compile("device dma_addrs lengths dir", `${D} dma_addrs={dma_addrs:list} sizes={lengths:list}`),
];
const group: readonly Template[] = [compile("gid device", "IOMMU: groupID={gid:number} device={device:word}")];
const attach: readonly Template[] = [compile("device", "IOMMU: device={device:word}")];
/** The Intel driver's own, Linux 5.4 to 5.10. */
const intelMap: readonly Template[] = [
  compile(
    "dev_name dev_addr phys_addr size",
    "dev={dev_name:word} dev_addr={dev_addr:hex} phys_addr={phys_addr:hex} size={size:decimal}",
  ),
];
const intelUnmap: readonly Template[] = [
  compile("dev_name dev_addr size", "dev={dev_name:word} dev_addr={dev_addr:hex} size={size:decimal}"),
];
const range = "IOMMU: iova={iova:hex} - {:hex}";
const probe = "{:site} dev={dev:quoted} state={state:pointer} addr={addr:hex}";

/** Templates by event name; the first that fits a line is taken. */
const BY_NAME: Readonly<Record<string, readonly Template[]>> = {
  dma_map_phys: map,
  dma_map_page: map,
  dma_map_resource: map,
  dma_unmap_phys: unmap,
  dma_unmap_page: unmap,
  dma_unmap_resource: unmap,
  dma_alloc: alloc,
  dma_alloc_pages: alloc,
  dma_alloc_sgt_err: alloc,
  dma_alloc_sgt: [
    compile(
      "device phys_addrs dma_addr size dir flags attrs",
      `${D} ${MEMORY} phys_addrs={phys_addrs:list} flags={flags:word} attrs={attrs:attrs}`,
    ),
  ],
  dma_free: free,
  dma_free_pages: free,
  dma_free_sgt: [compile("device phys_addrs dma_addr size dir", `${D} ${MEMORY} phys_addrs={phys_addrs:list}`)],
  dma_map_sg: [
    compile(
      "device full_nents full_ents truncated phys_addrs dma_addrs lengths dir attrs",
      `${D} nents={:number}/{full_nents:number} ents={:number}/{full_ents:number}{truncated:truncated} dma_addrs={dma_addrs:list} sizes={lengths:list} phys_addrs={phys_addrs:list} attrs={attrs:attrs}`,
    ),
    compile(
      "device phys_addrs dma_addrs lengths dir attrs",
      `${D} dma_addrs={dma_addrs:list} sizes={lengths:list} phys_addrs={phys_addrs:list} attrs={attrs:attrs}`,
    ),
  ],
  dma_map_sg_err: [
    compile("device phys_addrs err dir attrs", `${D} dma_addrs={phys_addrs:list} err={err:number} attrs={attrs:attrs}`),
  ],
  dma_unmap_sg: [compile("device addrs dir attrs", `${D} phys_addrs={addrs:list} attrs={attrs:attrs}`)],
  dma_sync_single_for_cpu: syncSingle,
  dma_sync_single_for_device: syncSingle,
  dma_sync_sg_for_cpu: syncList,
  dma_sync_sg_for_device: syncList,
  map: [
    compile("iova paddr size", `${range} paddr={paddr:hex} size={size:decimal}`),
    // Linux 5.15 and older
    compile("iova paddr size", "IOMMU: iova={iova:hex} paddr={paddr:hex} size={size:decimal}"),
  ],
  unmap: [
    compile("iova size unmapped_size", `${range} size={size:decimal} unmapped_size={unmapped_size:decimal}`),
    compile(
      "iova size unmapped_size",
      "IOMMU: iova={iova:hex} size={size:decimal} unmapped_size={unmapped_size:decimal}",
    ),
  ],
  map_single: intelMap,
  bounce_map_single: intelMap,
  unmap_single: intelUnmap,
  bounce_unmap_single: intelUnmap,
  io_page_fault: [
    compile("device driver iova flags", "IOMMU:{driver:word} {device:word} iova={iova:hex} flags={flags:number}"),
  ],
  add_device_to_group: group,
  remove_device_from_group: group,
  attach_device_to_domain: attach,
  detach_device_from_domain: attach,
  swiotlb_bounced: [
    compile(
      "dev_name dma_mask dev_addr size force",
      "dev_name: {dev_name:word} dma_mask={dma_mask:hex} dev_addr={dev_addr:hex} size={size:decimal} {force:forced}",
    ),
  ],
  dma_iova_try_alloc: [
    compile("dev state addr phys size ret", `${probe} phys={phys:hex} size={size:decimal} ret={ret:decimal}`),
  ],
  dma_iova_link: [
    compile(
      "dev state addr phys offset size dir",
      `${probe} phys={phys:hex} offset={offset:decimal} size={size:decimal} dir={dir:direction}`,
    ),
  ],
  dma_iova_sync: [compile("dev state addr offset size", `${probe} offset={offset:decimal} size={size:decimal}`)],
  dma_iova_unlink: [
    compile(
      "dev state addr offset size dir attrs",
      `${probe} offset={offset:decimal} size={size:decimal} dir={dir:direction} attrs={attrs:attrs}`,
    ),
  ],
  dma_iova_free: [compile("dev state addr", probe)],
  dma_iova_destroy: [
    compile(
      "dev state addr mapped_len dir attrs",
      `${probe} mapped_len={mapped_len:decimal} dir={dir:direction} attrs={attrs:attrs}`,
    ),
  ],
};

const NONE: readonly Template[] = [];

/** How an event of this name is printed; nothing where the name is not in the catalogue. */
export const templatesOf = (name: string): readonly Template[] =>
  Object.hasOwn(BY_NAME, name) ? BY_NAME[name]! : NONE;
