/**
 * Three ways to make the pages of a buffer reachable: one range in two steps, a scatterlist, each page by itself.
 *
 * Whichever it is, the device gets one address per page. A way that fails half-way has undone what it did.
 */
import { type DmaAddr, PAGE_SIZE, PhysPage } from "../../../../base/index.ts";
import type { Direction, Dma, DmaAttributes, IovaRange } from "../../../../dma/index.ts";
import { PAGE_ENTRY_BYTES } from "./buffer-cost.ts";
import type { PageStore } from "./page-stores.ts";
import type { ScatterTable } from "./scatter-table.ts";

/** Pages that a device can reach. */
export interface MappedPages {
  /** Bytes of addresses that are kept. */
  readonly addressBytes: number;
  /** There is one range for all. */
  readonly hasRange: boolean;
  /** What the device calls page `index`. */
  addressAt(index: number): DmaAddr;
  syncForCpu(): void;
  syncForDevice(): void;
  /** Cannot fail. */
  unmap(): void;
}

interface HowMapped {
  readonly pages: number;
  readonly direction: Direction;
  readonly attributes: DmaAttributes | undefined;
}

/** Pieces that are linked by one call: they are objects, and those of a gigabyte would be many. */
const LINK_BATCH = 512;

/**
 * Links all pages into `range`, which is then the mapping's. The address of a page follows from its number; it is kept all the
 * same if so asked.
 *
 * @throws DmaError what link or sync says; the range is gone then
 */
export function mapInTwoSteps(
  range: IovaRange,
  store: PageStore,
  how: HowMapped,
  keepsAddresses: boolean,
): MappedPages {
  const { pages, direction, attributes } = how;
  try {
    for (let at = 0; at < pages; ) {
      const vecs = store.vecs(at, LINK_BATCH);
      range.linkVecs(at * PAGE_SIZE, vecs, direction, attributes);
      for (const { length } of vecs) at += length / PAGE_SIZE;
    }
    range.sync();
  } catch (error) {
    range.destroy();
    throw error;
  }
  const { address } = range;
  const kept = keepsAddresses ? Float64Array.from({ length: pages }, (_, i) => address + i * PAGE_SIZE) : undefined;
  return {
    addressBytes: kept?.byteLength ?? 0,
    hasRange: true,
    addressAt: (index) => (kept?.[index] ?? address + index * PAGE_SIZE) as DmaAddr,
    syncForCpu: () => range.syncForCpu(),
    syncForDevice: () => range.syncForDevice(),
    unmap: () => range.destroy(),
  };
}

/**
 * Maps a scatter table; what comes out is noted in it.
 *
 * @throws DmaError what mapping says
 */
export function mapTable(dma: Dma, table: ScatterTable, { direction, attributes }: HowMapped): MappedPages {
  const mapping = dma.mapScatterlist(table.vecs(), direction, attributes);
  mapping.segments.forEach(({ address, length }, i) => {
    table.noteSegment(i, address, length);
  });
  let segment = 0;
  let before = 0;
  return {
    addressBytes: 0,
    hasRange: false,
    addressAt(index) {
      // Asked for in order: go on from where the last page was.
      if (index < before) [segment, before] = [0, 0];
      for (;;) {
        const { address, length } = table.segmentAt(segment);
        if (index < before + length / PAGE_SIZE) return (address + (index - before) * PAGE_SIZE) as DmaAddr;
        before += length / PAGE_SIZE;
        segment++;
      }
    },
    syncForCpu: () => mapping.syncForCpu(),
    syncForDevice: () => mapping.syncForDevice(),
    unmap: () => mapping.unmap(),
  };
}

/**
 * Maps each page by itself: there is no address space, or no room in it. The addresses are kept, to unmap them.
 *
 * @throws DmaError what mapping says; no page is mapped then
 */
export function mapEachPage(dma: Dma, store: PageStore, { pages, direction, attributes }: HowMapped): MappedPages {
  const addresses = new Float64Array(pages);
  const each = (call: (address: DmaAddr) => void) => (): void => {
    for (const address of addresses) call(address as DmaAddr);
  };
  for (let i = 0; i < pages; i++) {
    try {
      addresses[i] = dma.mapPhys(PhysPage.start(store.pageAt(i)), PAGE_SIZE, direction, attributes);
    } catch (error) {
      for (let done = i - 1; done >= 0; done--)
        dma.unmapPhys(addresses[done] as DmaAddr, PAGE_SIZE, direction, attributes);
      throw error;
    }
  }
  return {
    addressBytes: pages * PAGE_ENTRY_BYTES,
    hasRange: false,
    addressAt: (index) => addresses[index] as DmaAddr,
    syncForCpu: each((address) => dma.syncForCpu(address, PAGE_SIZE, direction)),
    syncForDevice: each((address) => dma.syncForDevice(address, PAGE_SIZE, direction)),
    unmap: each((address) => dma.unmapPhys(address, PAGE_SIZE, direction, attributes)),
  };
}
