/** What the kernel's own DMA checks (CONFIG_DMA_API_DEBUG) said: explained, and counted. */
import type { MisuseCode } from "../../base/index.ts";
import type { DmaApiReport, KernelFact } from "../../trace/index.ts";
import type { Told } from "../faults/told.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { count, size } from "./words.ts";

/** Kinds of reports that are told one by one. */
const MOST_KINDS = 1000;
/** Callers that are shown. */
const SHOWN_CALLERS = 4;

type Words = readonly [meaning: string, advice: string];

const SYNC_DIRECTION: Words = [
  "syncs against the mapping's direction",
  "Sync for the CPU what the device writes, for the device what it reads; in the direction of the map.",
];
const ONE_CACHE_LINE: Words = [
  "maps one cache line twice at once",
  "Harmful where DMA is not coherent: give each buffer its own cache lines. On coherent machines it is no fault, and kernels from 7.0 on are silent there.",
];

/** What each kind of misuse means, and what to do about it. */
const MEANING: Readonly<Partial<Record<MisuseCode, Words>>> = {
  "free-invalid": [
    'unmaps the address that means "mapping failed"',
    "Check with dma_mapping_error right after the map, and do not unmap what was never mapped.",
  ],
  "free-unknown": [
    "unmaps what is not mapped",
    "A second unmap, or an address that was worked out anew: keep the address that the map returned, and clear it where it is unmapped first.",
  ],
  "different-size": [
    "unmaps with another size than it mapped",
    "Unmap with the size of the map: keep it beside the address.",
  ],
  "wrong-function": [
    "unmaps with a call that does not belong to the map",
    "Pairs belong together: dma_map_single with dma_unmap_single, _page with _page, _sg with _sg, dma_alloc_coherent with dma_free_coherent.",
  ],
  "different-cpu-address": [
    "frees coherent memory by another CPU address than it was given",
    "Free with the pointer that the allocation returned.",
  ],
  "different-entry-count": [
    "gives another number of scatterlist entries than it mapped",
    "Give unmap and sync the nents that was given to the map, not what the map returned.",
  ],
  "different-direction": ["unmaps in another direction than it mapped", "Use one direction from the map to the unmap."],
  "map-error-unchecked": [
    "never asks whether the map failed",
    "Call dma_mapping_error after each map, before the device is told.",
  ],
  "maps-stack": [
    "maps memory of the stack",
    "Memory for DMA comes from kmalloc, the page allocator or dma_alloc_*: the stack may be virtually mapped, and shares cache lines.",
  ],
  "maps-text": ["maps the kernel's own text or read-only data", "Copy it into memory from kmalloc first."],
  "maps-invalid": [
    "maps memory of vmalloc",
    "Map its pages one by one (vmalloc_to_page), or take memory from kmalloc.",
  ],
  "sync-unknown": [
    "syncs what is not mapped",
    "Sync between map and unmap only, with the address that the map returned.",
  ],
  "sync-outside": ["syncs past the end of the mapping", "Sync no more than was mapped."],
  "sync-different-direction": SYNC_DIRECTION,
  "sync-read-only-for-cpu": SYNC_DIRECTION,
  "sync-write-only-for-device": SYNC_DIRECTION,
  "segment-too-long": [
    "maps a scatterlist entry longer than the device takes",
    "Set the device's limit with dma_set_max_seg_size, or split the request.",
  ],
  "segment-across-boundary": [
    "maps a scatterlist entry over a boundary that the device cannot cross",
    "Set the device's limit with dma_set_seg_boundary, or split the request.",
  ],
  "unbound-with-live": [
    "leaves memory mapped when the driver is released",
    "Unmap and free everything in remove(); the entry that is shown was mapped by the callers below.",
  ],
  "overlapping-cache-line": ONE_CACHE_LINE,
  "too-many-overlaps": ONE_CACHE_LINE,
  "store-full": [
    "made the checks run out of entries: they are off from here on",
    "Boot with dma_debug_entries= set higher; what grows so is often a leak.",
  ],
};

const OTHER: Words = [
  "was reported by the kernel's DMA checks",
  "Read the line; the kernel's documentation of the DMA API names the check.",
];

interface Kind {
  readonly first: DmaApiReport<Told>;
  count: number;
}

class DmaApiReports implements Watcher {
  readonly #scene: RuleContext;
  readonly #kinds = new Map<string, Kind>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  said(fact: KernelFact<Told>): void {
    if (fact.kind !== "dma-api") return;
    const key = `${fact.misuse} ${fact.device ?? ""} ${fact.driver ?? ""}`;
    const kind = this.#kinds.get(key);
    if (kind) kind.count++;
    else if (this.#kinds.size < MOST_KINDS) this.#kinds.set(key, { first: fact, count: 1 });
  }

  finish(): void {
    for (const { first, count: reports } of this.#kinds.values()) {
      const { device, driver, address, size: bytes, misuse, mappedAt, at, text } = first;
      const [meaning, advice] = MEANING[misuse] ?? OTHER;
      const who =
        driver === undefined ? (device ?? "A driver") : `${driver}${device === undefined ? "" : ` (${device})`}`;
      const what =
        address === undefined ? "" : `: ${bytes === undefined ? "" : `${size(bytes)} at `}0x${address.toString(16)}`;
      const callers = mappedAt.filter((frame) => !frame.startsWith("debug_dma_") && !frame.startsWith("dma_map_"));
      const mapped = callers.length === 0 ? "" : ` Mapped by ${callers.slice(0, SHOWN_CALLERS).join(" ← ")}.`;
      const times = reports === 1 ? "" : ` (${count(reports)} times; the first)`;
      this.#scene.report({
        ...(misuse === "store-full" && { severity: "warning" }),
        device: device === undefined ? NO_DEVICE : (this.#scene.deviceIndex(device) ?? NO_DEVICE),
        ...(device !== undefined && { deviceName: device }),
        ...(address !== undefined && { iova: Number(address) }),
        ...(bytes !== undefined && { length: bytes }),
        timeNs: at.timeNs ?? -1,
        message: `${who} ${meaning}${what}${times}.${mapped}`,
        advice,
        evidence: [this.#scene.told("reported by the kernel", at, text)],
        selfEvident: true,
      });
    }
  }
}

export const dmaApiReport: Rule = {
  name: "dma-api-report",
  severity: "error",
  summary: "the kernel's own DMA checks report misuse (needs a kernel with CONFIG_DMA_API_DEBUG, and its log)",
  advice: OTHER[1],
  watch: (scene) => new DmaApiReports(scene),
};
