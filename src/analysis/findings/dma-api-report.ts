/** What the kernel's own DMA checks (CONFIG_DMA_API_DEBUG) said: explained, and counted. */
import type { DmaApiReport, DmaApiVerdict, KernelFact } from "../../trace/index.ts";
import type { Told } from "../faults/told.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { count, size } from "./words.ts";

/** Kinds of reports that are told one by one. */
const MOST_KINDS = 1000;
/** Callers that are shown. */
const SHOWN_CALLERS = 4;

/** What each verdict means, and what to do about it. */
const MEANING: Readonly<Record<DmaApiVerdict, readonly [string, string]>> = {
  "unmap-error-address": [
    'unmaps the address that means "mapping failed"',
    "Check with dma_mapping_error right after the map, and do not unmap what was never mapped.",
  ],
  "unmap-unknown": [
    "unmaps what is not mapped",
    "A second unmap, or an address that was worked out anew: keep the address that the map returned, and clear it where it is unmapped first.",
  ],
  "size-mismatch": [
    "unmaps with another size than it mapped",
    "Unmap with the size of the map: keep it beside the address.",
  ],
  "wrong-function": [
    "unmaps with a call that does not belong to the map",
    "Pairs belong together: dma_map_single with dma_unmap_single, _page with _page, _sg with _sg, dma_alloc_coherent with dma_free_coherent.",
  ],
  "cpu-address-mismatch": [
    "frees coherent memory by another CPU address than it was given",
    "Free with the pointer that the allocation returned.",
  ],
  "entry-count": [
    "gives another number of scatterlist entries than it mapped",
    "Give unmap and sync the nents that was given to the map, not what the map returned.",
  ],
  "direction-mismatch": ["unmaps in another direction than it mapped", "Use one direction from the map to the unmap."],
  "error-unchecked": [
    "never asks whether the map failed",
    "Call dma_mapping_error after each map, before the device is told.",
  ],
  "stack-memory": [
    "maps memory of the stack",
    "Memory for DMA comes from kmalloc, the page allocator or dma_alloc_*: the stack may be virtually mapped, and shares cache lines.",
  ],
  "kernel-text": ["maps the kernel's own text or read-only data", "Copy it into memory from kmalloc first."],
  "vmalloc-memory": [
    "maps memory of vmalloc",
    "Map its pages one by one (vmalloc_to_page), or take memory from kmalloc.",
  ],
  "sync-unknown": [
    "syncs what is not mapped",
    "Sync between map and unmap only, with the address that the map returned.",
  ],
  "sync-outside": ["syncs past the end of the mapping", "Sync no more than was mapped."],
  "sync-direction": [
    "syncs against the mapping's direction",
    "Sync for the CPU what the device writes, for the device what it reads; in the direction of the map.",
  ],
  "segment-too-long": [
    "maps a scatterlist entry longer than the device takes",
    "Set the device's limit with dma_set_max_seg_size, or split the request.",
  ],
  "segment-boundary": [
    "maps a scatterlist entry over a boundary that the device cannot cross",
    "Set the device's limit with dma_set_seg_boundary, or split the request.",
  ],
  "left-at-release": [
    "leaves memory mapped when the driver is released",
    "Unmap and free everything in remove(); the entry that is shown was mapped by the callers below.",
  ],
  "cacheline-overlap": [
    "maps one cache line twice at once",
    "Harmful where DMA is not coherent: give each buffer its own cache lines. On coherent machines it is no fault, and kernels from 7.0 on are silent there.",
  ],
  "out-of-entries": [
    "made the checks run out of entries: they are off from here on",
    "Boot with dma_debug_entries= set higher; what grows so is often a leak.",
  ],
  other: [
    "was reported by the kernel's DMA checks",
    "Read the line; the kernel's documentation of the DMA API names the check.",
  ],
};

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
    const key = `${fact.verdict} ${fact.device ?? ""} ${fact.driver ?? ""}`;
    const kind = this.#kinds.get(key);
    if (kind) kind.count++;
    else if (this.#kinds.size < MOST_KINDS) this.#kinds.set(key, { first: fact, count: 1 });
  }

  finish(): void {
    for (const { first, count: reports } of this.#kinds.values()) {
      const { device, driver, address, size: bytes, verdict, mappedAt, at, text } = first;
      const [meaning, advice] = MEANING[verdict];
      const who =
        driver === undefined ? (device ?? "A driver") : `${driver}${device === undefined ? "" : ` (${device})`}`;
      const what =
        address === undefined ? "" : `: ${bytes === undefined ? "" : `${size(bytes)} at `}0x${address.toString(16)}`;
      const callers = mappedAt.filter((frame) => !frame.startsWith("debug_dma_") && !frame.startsWith("dma_map_"));
      const mapped = callers.length === 0 ? "" : ` Mapped by ${callers.slice(0, SHOWN_CALLERS).join(" ← ")}.`;
      const times = reports === 1 ? "" : ` (${count(reports)} times; the first)`;
      this.#scene.report({
        ...(verdict === "out-of-entries" && { severity: "warning" }),
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
  advice: MEANING.other[1],
  watch: (scene) => new DmaApiReports(scene),
};
