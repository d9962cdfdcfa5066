/** What an observer sees, written the way the golden files of the DMA-IOMMU layer write it (the kernel's, run in user space). */
import { hex, type Observer, type PhysPage } from "../../src/base/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import { permissionLetters } from "./words.ts";

export type LayerEvent = (string | number)[];

export class LayerEvents implements Observer {
  #events: LayerEvent[] = [];

  take(): LayerEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  add(...event: LayerEvent): void {
    this.#events.push(event);
  }

  iovaAllocated(pages: number, limitPage: number, page: number): void {
    this.add("iovaAlloc", pages, hex(limitPage), hex(page));
  }
  iovaFreed(page: number, pages: number): void {
    this.add("iovaFree", hex(page), pages);
  }
  flushQueued(page: number, pages: number): void {
    this.add("queue", hex(page), pages);
  }
  mapped(iova: number, phys: number, bytes: number, prot: number): void {
    this.add("map", hex(iova), hex(phys), hex(bytes), permissionLetters(prot));
  }
  unmapped(iova: number, length: number, bytes: number): void {
    this.add("unmap", hex(iova), hex(length), hex(bytes));
  }
  mapSynced(iova: number, length: number): void {
    this.add("syncMap", hex(iova), hex(length));
  }
  iotlbSynced(start: number, last: number): void {
    this.add("inv", hex(start), hex(last), 0);
  }
  domainInvalidated(): void {
    this.add("invAll");
  }
  cacheForDevice(phys: number, length: number): void {
    this.add("cpuSyncDevice", hex(phys), hex(length));
  }
  cacheForCpu(phys: number, length: number): void {
    this.add("cpuSyncCpu", hex(phys), hex(length));
  }
  cacheBarrier(): void {
    this.add("cpuBarrier");
  }
  /** The tables that an invalidation was for come back after it: the files count them with it. */
  tableFreed(): void {
    const last = this.#events.at(-1);
    if (last?.[0] === "inv") last[3] = (last[3] as number) + 1;
  }
}

/** Table memory that says when tables go. */
export class CountedArena extends Arena {
  readonly #events: LayerEvents;

  constructor(events: LayerEvents) {
    super({ basePage: (2 ** 33) as PhysPage });
    this.#events = events;
  }

  override release(frame: number, order = 0): void {
    super.release(frame, order);
    this.#events.tableFreed();
  }
}
