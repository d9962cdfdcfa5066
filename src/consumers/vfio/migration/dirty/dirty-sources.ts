/**
 * Where it is known who wrote to a guest's memory: a device's own log, the IOMMU's dirty bits, and whoever watches the processor.
 *
 * Idea: each source tells what was written since it told last, as runs of pages; none knows everything. A device's log has its own
 * writes only, in units of its own; the IOMMU's bits have those of all devices of the domain, as coarse as its leaves. The
 * processor's writes are the virtual machine monitor's to know.
 */
import { IovaPage, PAGE_SIZE } from "../../../../base/index.ts";
import type { DmaLogging } from "../dma-logging.ts";
import type { RamLayout } from "./ram-layout.ts";

/** Sets pages, by number in the guest's memory. */
export type MarkPages = (first: number, count: number) => void;

/** Who knows of writes. */
export interface DirtySource {
  /** For messages. */
  readonly name: string;
  /** From now on writes are noted. @throws DmaError nothing is noted then */
  start(): void;
  /** Cannot fail; a second time does nothing. */
  stop(): void;
  /**
   * Tells what was written since the last time, or since the start, and forgets it.
   *
   * @throws DmaError what it knew is lost: everything may have been written
   */
  collect(mark: MarkPages): void;
}

/** A device's own log. `pageBytes`: the unit that is wished for; 4096 unless said. */
export function deviceLogSource(
  name: string,
  logging: DmaLogging,
  ram: RamLayout,
  pageBytes: number = PAGE_SIZE,
): DirtySource {
  const ranges = ram.blocks.map(({ start, length }) => ({ iova: BigInt(start), length: BigInt(length) }));
  return {
    name,
    start: () => void logging.start(BigInt(pageBytes), ranges.length, (i) => ranges[i]!),
    stop: () => logging.stop(),
    collect(mark) {
      for (const { start, length } of ram.blocks)
        logging.report(BigInt(start), BigInt(length), BigInt(PAGE_SIZE), (first, last) =>
          ram.eachRun(start + first * PAGE_SIZE, (last - first + 1) * PAGE_SIZE, mark),
        );
    },
  };
}

/** Page tables with dirty bits: `PagingDomain` is one. */
export interface DirtyTable {
  /** Tells leaves that were written to; with `clear` they are clean, and a write after it is noted again. @throws DmaError */
  readDirty(page: IovaPage, pages: number, clear: boolean, report: (page: IovaPage, pages: number) => void): void;
}

/** The dirty bits of an IOMMU's page table, by which the guest's devices reach its memory at guest addresses. */
export function iommuSource(name: string, domain: DirtyTable, ram: RamLayout): DirtySource {
  const each = (report: (page: IovaPage, pages: number) => void): void => {
    for (const { start, length } of ram.blocks)
      domain.readDirty((start / PAGE_SIZE) as IovaPage, length / PAGE_SIZE, true, report);
  };
  return {
    name,
    start: () => each(() => {}), // what was written before is nobody's business
    stop: () => {},
    collect: (mark) => each((page, pages) => ram.eachRun(IovaPage.start(page), pages * PAGE_SIZE, mark)),
  };
}
