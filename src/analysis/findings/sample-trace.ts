/**
 * Small traces for tests, written as `trace-cmd report` prints them: one call is what the kernel prints for one step.
 *
 * Idea: a step gives all its events in the kernel's order (`iommu:map` before `dma_map_phys`, `dma_iova_destroy` before
 * `iommu:unmap`), one microsecond apart, so that a test reads as the life of its mappings.
 */
import { openTrace, type Trace } from "../../trace/index.ts";
import { type CheckOptions, type CheckResult, checkTrace } from "../check-trace.ts";
import type { Finding } from "./finding.ts";

export const DISK = "0000:00:04.0";
export const NIC = "0000:00:05.0";
type Way = "BIDIRECTIONAL" | "TO_DEVICE" | "FROM_DEVICE";

interface SampleOptions {
  /** Print `iommu:*` events. */
  readonly iommu?: boolean;
}

const hex16 = (value: number): string => `0x${value.toString(16).padStart(16, "0")}`;
const pageOf = (address: number): number => Math.floor(address / 4096) * 4096;
const end = (address: number, size: number): number => Math.ceil((address + size) / 4096) * 4096;
const list = (values: readonly number[]): string => `{${values.map((value) => `0x${value.toString(16)}`).join(",")}}`;

export class SampleTrace {
  readonly #lines: string[] = ["cpus=4"];
  readonly #iommu: boolean;
  #timeNs = 1_000_000_000;
  #cpu = 0;
  #task = "test-1";

  constructor({ iommu = true }: SampleOptions = {}) {
    this.#iommu = iommu;
  }

  on(cpu: number, task: string = this.#task): this {
    this.#cpu = cpu;
    this.#task = task;
    return this;
  }

  wait(microseconds: number): this {
    this.#timeNs += microseconds * 1000;
    return this;
  }

  /** Any event. */
  event(name: string, payload: string): this {
    this.#timeNs += 1000;
    const seconds = (this.#timeNs / 1e9).toFixed(6);
    this.#lines.push(`  ${this.#task}  [00${this.#cpu}]  ${seconds}: ${name}: ${payload}`);
    return this;
  }

  map(device: string, iova: number, phys: number, size: number, way: Way = "FROM_DEVICE"): this {
    if (this.#iommu && iova !== phys) this.iommuMap(pageOf(iova), pageOf(phys), end(iova, size) - pageOf(iova));
    return this.mapOnly(device, iova, phys, size, way);
  }

  mapOnly(device: string, iova: number, phys: number, size: number, way: Way = "FROM_DEVICE"): this {
    const addresses = `dma_addr=${iova.toString(16)} size=${size} phys_addr=${phys.toString(16)}`;
    return this.event("dma_map_phys", `${device} dir=${way} ${addresses} attrs=`);
  }

  /** A map that failed. */
  mapFailed(device: string, phys: number, size: number): this {
    const addresses = `dma_addr=ffffffffffffffff size=${size} phys_addr=${phys.toString(16)}`;
    return this.event("dma_map_phys", `${device} dir=FROM_DEVICE ${addresses} attrs=`);
  }

  unmap(device: string, iova: number, size: number, way: Way = "FROM_DEVICE"): this {
    if (this.#iommu) this.iommuUnmap(pageOf(iova), end(iova, size) - pageOf(iova));
    return this.unmapOnly(device, iova, size, way);
  }

  /** Without its `iommu:unmap`. */
  unmapOnly(device: string, iova: number | string, size: number, way: Way = "FROM_DEVICE"): this {
    const address = typeof iova === "string" ? iova : iova.toString(16);
    return this.event("dma_unmap_phys", `${device} dir=${way} dma_addr=${address} size=${size} attrs=`);
  }

  alloc(device: string, iova: number, phys: number, size: number): this {
    if (this.#iommu) this.iommuMap(iova, phys, end(iova, size) - iova);
    const memory = `dma_addr=${iova.toString(16)} size=${size} virt_addr=0xffff888000000000`;
    return this.event("dma_alloc", `${device} dir=BIDIRECTIONAL ${memory} flags=GFP_KERNEL attrs=`);
  }

  free(device: string, iova: number, size: number): this {
    const memory = `dma_addr=${iova.toString(16)} size=${size} virt_addr=0xffff888000000000`;
    this.event("dma_free", `${device} dir=BIDIRECTIONAL ${memory} attrs=`);
    return this.#iommu ? this.iommuUnmap(iova, end(iova, size) - iova) : this;
  }

  /** A scatterlist that becomes one run of device addresses; `full`: entries that it has in all. */
  mapList(
    device: string,
    iova: number,
    pieces: readonly { phys: number; size: number }[],
    full: number = pieces.length,
  ): this {
    const total = pieces.reduce((sum, { size }) => sum + size, 0);
    let at = iova;
    for (const { phys, size } of pieces) {
      if (this.#iommu) this.iommuMap(at, phys, size);
      at += size;
    }
    const counts = `nents=${pieces.length}/${full} ents=1/${full === pieces.length ? 1 : full}${full > pieces.length ? " [TRUNCATED]" : ""}`;
    const phys = list(pieces.map((piece) => piece.phys));
    return this.event(
      "dma_map_sg",
      `${device} dir=FROM_DEVICE ${counts} dma_addrs=${list([iova])} sizes=${list([total])} phys_addrs=${phys} attrs=`,
    );
  }

  unmapList(
    device: string,
    iova: number,
    pieces: readonly { phys: number; size: number }[],
    way: Way = "FROM_DEVICE",
  ): this {
    const phys = list(pieces.map((piece) => piece.phys));
    this.event("dma_unmap_sg", `${device} dir=${way} phys_addrs=${phys} attrs=`);
    const total = pieces.reduce((sum, { size }) => sum + size, 0);
    return this.#iommu ? this.iommuUnmap(iova, total) : this;
  }

  sync(device: string, iova: number, size: number, way: Way): this {
    return this.event("dma_sync_single_for_cpu", `${device} dir=${way} dma_addr=${iova.toString(16)} size=${size}`);
  }

  /** `state`: which request of the driver it is in. */
  reserve(device: string, state: number, iova: number, size: number): this {
    return this.event("dma_iova_try_alloc", `${this.#range(device, state, iova)} phys=0x0 size=${size} ret=1`);
  }

  link(device: string, state: number, iova: number, offset: number, phys: number, size: number, way = 2): this {
    const what = `phys=0x${phys.toString(16)} offset=${offset} size=${size} dir=${way}`;
    this.event("dma_iova_link", `${this.#range(device, state, iova)} ${what}`);
    return this.#iommu ? this.iommuMap(iova + offset, phys, size) : this;
  }

  /** A link that failed: its probe has fired, nothing was mapped. */
  linkFailed(device: string, state: number, iova: number, offset: number, phys: number, size: number): this {
    const what = `phys=0x${phys.toString(16)} offset=${offset} size=${size} dir=2`;
    this.event("dma_iova_link", `${this.#range(device, state, iova)} ${what}`);
    return this.iommuMap(iova + offset, phys, 0).iommuUnmap(iova + offset, 0);
  }

  syncRange(device: string, state: number, iova: number, size: number): this {
    return this.event("dma_iova_sync", `${this.#range(device, state, iova)} offset=0 size=${size}`);
  }

  unlink(device: string, state: number, iova: number, offset: number, size: number, done: number = size): this {
    const what = `offset=${offset} size=${size} dir=FROM_DEVICE attrs=0x0`;
    this.event("dma_iova_unlink", `${this.#range(device, state, iova)} ${what}`);
    return this.#iommu ? this.iommuUnmap(iova + offset, size, done) : this;
  }

  destroy(device: string, state: number, iova: number, mapped: number, way = 2): this {
    this.event("dma_iova_destroy", `${this.#range(device, state, iova)} mapped_len=${mapped} dir=${way} attrs=0x0`);
    return this.#iommu && mapped > 0 ? this.iommuUnmap(iova, mapped) : this;
  }

  freeRange(device: string, state: number, iova: number): this {
    return this.event("dma_iova_free", this.#range(device, state, iova));
  }

  iommuMap(iova: number, phys: number, size: number): this {
    return this.event("map", `IOMMU: iova=${hex16(iova)} - ${hex16(iova + size)} paddr=${hex16(phys)} size=${size}`);
  }

  iommuUnmap(iova: number, size: number, done: number = size): this {
    return this.event("unmap", `IOMMU: iova=${hex16(iova)} - ${hex16(iova + size)} size=${size} unmapped_size=${done}`);
  }

  /** Invalidation; without a range of everything. */
  flush(iova = 0, last: number = 2 ** 52 - 1): this {
    const range = `[0x${iova.toString(16)}-0x${last.toString(16)}]`;
    return this.event("cache_tag_flush_range", `dmar0 dmar0[0] type 0x0 did 3 ${range} addr 0x0 mask 0x0`);
  }

  bounced(device: string, mask: string, phys: number, size: number, how: "FORCE" | "NORMAL"): this {
    const what = `dma_mask=${mask} dev_addr=${phys.toString(16)} size=${size} ${how}`;
    return this.event("swiotlb_bounced", `dev_name: ${device} ${what}`);
  }

  /** Events were lost on this CPU before the next one. */
  lose(count: number): this {
    this.#lines.push(`CPU:${this.#cpu} [LOST ${count} EVENTS]`);
    return this;
  }

  get text(): string {
    return `${this.#lines.join("\n")}\n`;
  }

  async open(): Promise<Trace> {
    const bytes = new TextEncoder().encode(this.text);
    return openTrace({
      name: "sample",
      size: bytes.length,
      read: async (at, length) => bytes.subarray(at, at + length),
    });
  }

  async check(options: CheckOptions = {}): Promise<CheckResult> {
    return checkTrace(await this.open(), options);
  }

  /** What one rule finds. */
  async findings(rule: string, options: CheckOptions = {}): Promise<readonly Finding[]> {
    return (await this.check({ ...options, rules: [rule] })).findings;
  }

  /** Names of the rules that find errors. */
  async errors(options: CheckOptions = {}): Promise<string[]> {
    const { findings } = await this.check(options);
    return findings.filter(({ severity }) => severity === "error").map(({ rule }) => rule);
  }

  #range(device: string, state: number, iova: number): string {
    const pointer = `0xffff8880${(0x1000_0000 + state * 0x100).toString(16)}`;
    return `(ffffffff81e31a04) dev="${device}" state=${pointer} addr=0x${iova.toString(16)}`;
  }
}
