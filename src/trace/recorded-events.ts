/**
 * The events that a recorder writes: the kernel's own, field by field as its binary records have them, and how it prints
 * them; and those of the two-step functions, as probes on the kernel's functions give them.
 *
 * Beyond the kernel's fields a record has a `caller`: where the call was made, if the recorder knows. Readers find fields
 * by their names, so one more does no harm.
 * Specified by: the event formats of Linux 7.2 (include/trace/events/dma.h, iommu.h, swiotlb.h).
 */
import { KERNEL_ATTRIBUTES } from "../base/index.ts";
import { DIRECTION_NAMES } from "./catalogue.ts";
import type { EventValues } from "./write-dat.ts";

type FieldType = "string" | "u64" | "size" | "u32" | "u8" | "u64[]" | "u32[]";

export interface RecordedEvent {
  readonly name: string;
  readonly system: string;
  readonly fields: Readonly<Record<string, FieldType>>;
  /** The payload as the kernel prints it. */
  readonly print: (values: EventValues) => string;
}

const hex = (value: unknown): string => BigInt.asUintN(64, BigInt((value as number | bigint) ?? 0)).toString(16);
const wide = (value: unknown): string => `0x${hex(value).padStart(16, "0")}`;
const list = (value: unknown): string =>
  `{${((value as readonly number[]) ?? []).map((one) => `0x${hex(one)}`).join(",")}}`;
const direction = (value: unknown): string => DIRECTION_NAMES[Number(value)] ?? "NONE";

const attributes = (value: unknown): string =>
  KERNEL_ATTRIBUTES.filter(({ bit }) => (Number(value) & (1 << bit)) !== 0)
    .map(({ printed }) => printed[0])
    .join("|");

const start = (v: EventValues): string => `${v["device"]} dir=${direction(v["dir"])}`;
const memory = (v: EventValues): string => `dma_addr=${hex(v["dma_addr"])} size=${v["size"]}`;
const range = (v: EventValues): string =>
  `IOMMU: iova=${wide(v["iova"])} - ${wide(Number(v["iova"]) + Number(v["size"]))}`;
const probe = (name: string, v: EventValues): string =>
  `(${String(v["caller"] || name).replace(/[() ]+/g, "_")}) dev="${v["dev"]}" state=0x${hex(v["state"])} addr=0x${hex(v["addr"])}`;

const SINGLE = { device: "string", dma_addr: "u64", size: "size", dir: "u32" } as const;
const ALLOC = {
  device: "string",
  virt_addr: "u64",
  dma_addr: "u64",
  size: "size",
  flags: "size",
  dir: "u32",
  attrs: "size",
} as const;
const FREE = { device: "string", virt_addr: "u64", dma_addr: "u64", size: "size", dir: "u32", attrs: "size" } as const;
const PROBE = { dev: "string", state: "u64", addr: "u64" } as const;

const event = (
  system: string,
  name: string,
  fields: Readonly<Record<string, FieldType>>,
  print: RecordedEvent["print"],
): RecordedEvent => ({ name, system, fields: { ...fields, caller: "string" }, print });

const alloc = (name: string): RecordedEvent =>
  event(
    "dma",
    name,
    ALLOC,
    (v) => `${start(v)} ${memory(v)} virt_addr=${wide(v["virt_addr"])} flags= attrs=${attributes(v["attrs"])}`,
  );
const free = (name: string): RecordedEvent =>
  event(
    "dma",
    name,
    FREE,
    (v) => `${start(v)} ${memory(v)} virt_addr=${wide(v["virt_addr"])} attrs=${attributes(v["attrs"])}`,
  );
const syncSingle = (name: string): RecordedEvent => event("dma", name, SINGLE, (v) => `${start(v)} ${memory(v)}`);
const syncList = (name: string): RecordedEvent =>
  event(
    "dma",
    name,
    { device: "string", dma_addrs: "u64[]", lengths: "u32[]", dir: "u32" },
    (v) => `${start(v)} dma_addrs=${list(v["dma_addrs"])} sizes=${list(v["lengths"])}`,
  );

export const RECORDED_EVENTS: readonly RecordedEvent[] = [
  event(
    "dma",
    "dma_map_phys",
    { device: "string", phys_addr: "u64", dma_addr: "u64", size: "size", dir: "u32", attrs: "size" },
    (v) => `${start(v)} ${memory(v)} phys_addr=${hex(v["phys_addr"])} attrs=${attributes(v["attrs"])}`,
  ),
  event(
    "dma",
    "dma_unmap_phys",
    { device: "string", addr: "u64", size: "size", dir: "u32", attrs: "size" },
    (v) => `${start(v)} dma_addr=${hex(v["addr"])} size=${v["size"]} attrs=${attributes(v["attrs"])}`,
  ),
  event(
    "dma",
    "dma_map_sg",
    {
      device: "string",
      full_nents: "u32",
      full_ents: "u32",
      truncated: "u8",
      phys_addrs: "u64[]",
      dma_addrs: "u64[]",
      lengths: "u32[]",
      dir: "u32",
      attrs: "size",
    },
    (v) => {
      const [phys, addresses] = [v["phys_addrs"], v["dma_addrs"]] as (readonly number[])[];
      const cut = Number(v["truncated"]) ? " [TRUNCATED]" : "";
      return (
        `${start(v)} nents=${phys!.length}/${v["full_nents"]} ents=${addresses!.length}/${v["full_ents"]}${cut} ` +
        `dma_addrs=${list(addresses)} sizes=${list(v["lengths"])} phys_addrs=${list(phys)} attrs=${attributes(v["attrs"])}`
      );
    },
  ),
  event(
    "dma",
    "dma_map_sg_err",
    { device: "string", phys_addrs: "u64[]", err: "u32", dir: "u32", attrs: "size" },
    (v) => `${start(v)} dma_addrs=${list(v["phys_addrs"])} err=${v["err"]} attrs=${attributes(v["attrs"])}`,
  ),
  event(
    "dma",
    "dma_unmap_sg",
    { device: "string", addrs: "u64[]", dir: "u32", attrs: "size" },
    (v) => `${start(v)} phys_addrs=${list(v["addrs"])} attrs=${attributes(v["attrs"])}`,
  ),
  syncSingle("dma_sync_single_for_cpu"),
  syncSingle("dma_sync_single_for_device"),
  syncList("dma_sync_sg_for_cpu"),
  syncList("dma_sync_sg_for_device"),
  alloc("dma_alloc"),
  free("dma_free"),
  alloc("dma_alloc_pages"),
  free("dma_free_pages"),
  event(
    "dma",
    "dma_alloc_sgt",
    { device: "string", phys_addrs: "u64[]", dma_addr: "u64", size: "size", dir: "u32", flags: "size", attrs: "size" },
    (v) => `${start(v)} ${memory(v)} phys_addrs=${list(v["phys_addrs"])} flags= attrs=${attributes(v["attrs"])}`,
  ),
  event(
    "dma",
    "dma_free_sgt",
    { device: "string", phys_addrs: "u64[]", dma_addr: "u64", size: "size", dir: "u32" },
    (v) => `${start(v)} ${memory(v)} phys_addrs=${list(v["phys_addrs"])}`,
  ),
  event(
    "iommu",
    "map",
    { iova: "u64", paddr: "u64", size: "size" },
    (v) => `${range(v)} paddr=${wide(v["paddr"])} size=${v["size"]}`,
  ),
  event(
    "iommu",
    "unmap",
    { iova: "u64", size: "size", unmapped_size: "size" },
    (v) => `${range(v)} size=${v["size"]} unmapped_size=${v["unmapped_size"]}`,
  ),
  event(
    "swiotlb",
    "swiotlb_bounced",
    { dev_name: "string", dma_mask: "u64", dev_addr: "u64", size: "size", force: "u8" },
    (v) =>
      `dev_name: ${v["dev_name"]} dma_mask=${hex(v["dma_mask"])} dev_addr=${hex(v["dev_addr"])} size=${v["size"]} ${Number(v["force"]) ? "FORCE" : "NORMAL"}`,
  ),
  event(
    "twostep",
    "dma_iova_try_alloc",
    { ...PROBE, phys: "u64", size: "size", ret: "u8" },
    (v) => `${probe("dma_iova_try_alloc", v)} phys=0x${hex(v["phys"])} size=${v["size"]} ret=${v["ret"]}`,
  ),
  event(
    "twostep",
    "dma_iova_link",
    { ...PROBE, phys: "u64", offset: "size", size: "size", dir: "u32" },
    (v) =>
      `${probe("dma_iova_link", v)} phys=0x${hex(v["phys"])} offset=${v["offset"]} size=${v["size"]} dir=${v["dir"]}`,
  ),
  event(
    "twostep",
    "dma_iova_sync",
    { ...PROBE, offset: "size", size: "size" },
    (v) => `${probe("dma_iova_sync", v)} offset=${v["offset"]} size=${v["size"]}`,
  ),
  event(
    "twostep",
    "dma_iova_unlink",
    { ...PROBE, offset: "size", size: "size", dir: "u32", attrs: "size" },
    (v) =>
      `${probe("dma_iova_unlink", v)} offset=${v["offset"]} size=${v["size"]} dir=${v["dir"]} attrs=0x${hex(v["attrs"])}`,
  ),
  event("twostep", "dma_iova_free", PROBE, (v) => probe("dma_iova_free", v)),
  event(
    "twostep",
    "dma_iova_destroy",
    { ...PROBE, mapped_len: "size", dir: "u32", attrs: "size" },
    (v) => `${probe("dma_iova_destroy", v)} mapped_len=${v["mapped_len"]} dir=${v["dir"]} attrs=0x${hex(v["attrs"])}`,
  ),
  // What the kernel has no events for.
  event(
    "dmalink",
    "iova_alloc",
    { pages: "u64", limit: "u64", iova: "u64" },
    (v) => `pages=${v["pages"]} limit=0x${hex(v["limit"])} iova=0x${hex(v["iova"])}`,
  ),
  event("dmalink", "iova_free", { iova: "u64", pages: "u64" }, (v) => `iova=0x${hex(v["iova"])} pages=${v["pages"]}`),
  event("dmalink", "fq_queue", { iova: "u64", pages: "u64" }, (v) => `iova=0x${hex(v["iova"])} pages=${v["pages"]}`),
  event("dmalink", "fq_flush", { domains: "u64" }, (v) => `domains=${v["domains"]}`),
  event(
    "dmalink",
    "iotlb_sync",
    { start: "u64", end: "u64" },
    (v) => `start=0x${hex(v["start"])} end=0x${hex(v["end"])}`,
  ),
  event("dmalink", "map_sync", { iova: "u64", size: "size" }, (v) => `iova=0x${hex(v["iova"])} size=${v["size"]}`),
];

/** The C type, bytes, and whether it is signed. */
const TYPES: Readonly<Record<FieldType, readonly [string, number]>> = {
  string: ["__data_loc char[]", 4],
  u64: ["u64", 8],
  size: ["size_t", 8],
  u32: ["u32", 4],
  u8: ["bool", 1],
  "u64[]": ["__data_loc u64[]", 4],
  "u32[]": ["__data_loc u32[]", 4],
};

/** The format description, as tracefs would print it. */
export function formatOf({ name, fields }: RecordedEvent, id: number): string {
  const lines = [
    `name: ${name}`,
    `ID: ${id}`,
    "format:",
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;",
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;",
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;",
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;",
    "",
  ];
  let offset = 8;
  for (const [field, type] of Object.entries(fields)) {
    const [declared, size] = TYPES[type];
    offset = Math.ceil(offset / size) * size;
    lines.push(`\tfield:${declared} ${field};\toffset:${offset};\tsize:${size};\tsigned:0;`);
    offset += size;
  }
  lines.push("", 'print fmt: ""', "");
  return lines.join("\n");
}
