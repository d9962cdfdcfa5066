/**
 * What an observer sees, written the way the golden files of the running kernel write it.
 *
 * Addresses, sizes and page numbers are hex strings, counts are numbers; one array per event.
 */
import type { Observer } from "../../src/base/index.ts";

export type KernelEvent = readonly (string | number | boolean | null)[];

/** The last number below 2^64 stands for the last address. */
export const hex = (value: number): string => (value >= 2 ** 64 - 2048 ? ALL_ONES : `0x${value.toString(16)}`);
export const ALL_ONES = "0xffffffffffffffff";

export class KernelEvents implements Observer {
  events: KernelEvent[] = [];
  /** What happens while a machine is set up is in no file. */
  recording = true;
  /** The unit is a virtio-iommu, whose driver syncs without saying what. */
  isVirtio = false;

  take(): KernelEvent[] {
    const { events } = this;
    this.events = [];
    return events;
  }

  #add(...event: KernelEvent): void {
    if (this.recording) this.events.push(event);
  }

  iovaAllocated(pages: number, limitPage: number, page: number): void {
    this.#add("iovaAlloc", pages, hex(limitPage), hex(page));
  }
  iovaFreed(page: number, pages: number): void {
    this.#add("iovaFree", hex(page), pages);
  }
  flushQueued(page: number, pages: number): void {
    this.#add("queue", hex(page), pages);
  }
  mapped(iova: number, phys: number, bytes: number): void {
    this.#add("map", hex(iova), hex(phys), hex(bytes));
  }
  unmapped(iova: number, length: number, bytes: number): void {
    this.#add("unmap", hex(iova), hex(length), hex(bytes));
  }
  lookedUp(iova: number): void {
    this.#add("lookup", hex(iova));
  }
  mapSynced(iova: number, length: number): void {
    this.#add("syncMap", hex(iova), hex(length));
  }
  iotlbSynced(start: number, last: number, leavesOnly: boolean): void {
    if (this.isVirtio) this.#add("viommuSync");
    else this.#add("iotlbSync", hex(start), hex(last), leavesOnly);
  }
  cacheInvalidated(why: "unmap" | "map", start: number, last: number, address: number, order: number): void {
    this.#add(why === "map" ? "invMap" : "inv", hex(start), hex(last), hex(address), order);
  }
  domainInvalidated(): void {
    this.#add("invAll");
  }
  mapRequested(iova: number, phys: number, pageBytes: number, count: number): void {
    this.#add("viommuMap", hex(iova), hex(phys), hex(pageBytes), count);
  }
  unmapRequested(iova: number, pageBytes: number, count: number): void {
    this.#add("viommuUnmap", hex(iova), hex(pageBytes), count);
  }
  descriptorsSubmitted(words: Uint32Array, at: number, count: number, slotWords: number): void {
    this.#add("submit", count);
    for (let i = 0; i < count; i++) {
      const word = (n: number): string => {
        const low = words[at + i * slotWords + n]!;
        const high = words[at + i * slotWords + n + 1]!;
        return `0x${((BigInt(high) << 32n) | BigInt(low)).toString(16)}`;
      };
      this.#add("qi", word(0), word(2));
    }
  }
  bounceAsked(address: number, size: number): void {
    this.#add("bounced", hex(address), hex(size));
  }
  slotsTaken(phys: number, size: number, alignMask: number, offset: number | undefined): void {
    this.#add("slot", hex(phys), hex(size), hex(alignMask), offset === undefined ? null : hex(offset));
  }
  bounceCopied(offset: number, size: number, way: "in" | "out"): void {
    this.#add("copy", hex(offset), hex(size), way);
  }
  slotsFreed(offset: number): void {
    this.#add("slotFree", hex(offset));
  }
  dmaCalled({ name }: { name: string }): void {
    this.#add("trace", name);
  }
  tableAllocated(): void {
    this.#add("tableAlloc");
  }
  tablesFreed(count: number): void {
    const last = this.events.at(-1);
    if (last?.[0] !== "tableFree") this.#add("tableFree", count);
    else this.events[this.events.length - 1] = ["tableFree", (last[1] as number) + count];
  }
}
