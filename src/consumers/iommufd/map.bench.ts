/** Mapping and unmapping a gigabyte through an address space, beside the page table alone doing the same. */
import { type Bench, fold, HASH, type Result } from "../../../bench/bench.ts";
import { type IovaPage, PAGE_SIZE } from "../../base/index.ts";
import { PagingDomain } from "../../iommu/index.ts";
import { READ, vtdSecondStage, WRITE } from "../../layouts/pagetable/index.ts";
import type { TranslationUnit, UserMemory, UserProcess } from "../../platform/index.ts";
import type { UserTable } from "./hardware.ts";
import { Iommufd } from "./iommufd.ts";
import { DomainTable } from "./paging-table.ts";

const GIB_PAGES = 262_144;
const IOVA = 2 ** 30;
const FIRST_FRAME = 2 ** 20;

const UNIT: TranslationUnit = {
  attach() {},
  detach() {},
  invalidateRange() {},
  invalidateDomain() {},
  syncMap: () => false,
};

/** Pages two by two in the wrong order: no two neighbours are neighbours. */
const scattered = (page: number): number => FIRST_FRAME + (page ^ 1);
const contiguous = (page: number): number => FIRST_FRAME + page;

/** A process whose memory is pinned in no time: what is measured is not the process. */
function processOf(frameOf: (page: number) => number): UserProcess {
  const user = { name: "bench", locked: { pages: 0 } };
  const memory: Partial<UserMemory> = {
    isGone: false,
    locked: { pages: 0 },
    pinned: { pages: 0 },
    pages: { unpin() {} } as unknown as UserMemory["pages"],
    pin(address, count, into, at) {
      const first = address / PAGE_SIZE;
      for (let i = 0; i < count; i++) into[at + i] = frameOf(first + i);
      return count;
    },
  };
  const process: Partial<UserProcess> = {
    user,
    memory: memory as UserMemory,
    memlockBytes: Number.POSITIVE_INFINITY,
    has: () => false,
  };
  return process as UserProcess;
}

const openDomain = (): PagingDomain => new PagingDomain({ layout: vtdSecondStage(), unit: UNIT });

function throughIoas(frameOf: (page: number) => number): (units: number) => Result {
  const process = processOf(frameOf);
  const ioas = new Iommufd().createIoas();
  const table: UserTable = new DomainTable({ domain: openDomain() });
  ioas.addTable(table);
  const iommufd = new Iommufd();
  return (units) => {
    let [done, hash] = [0, HASH];
    while (done < units) {
      const length = BigInt(Math.min(GIB_PAGES, units)) * 4096n;
      iommufd.map(ioas, process, 0n, { iova: BigInt(IOVA), length });
      const pages = Number(ioas.unmap(BigInt(IOVA), length)) / PAGE_SIZE;
      hash = fold(hash, pages);
      done += pages;
    }
    return { units: done, hash };
  };
}

function tableAlone(frameOf: (page: number) => number): (units: number) => Result {
  const domain = openDomain();
  const runs = frameOf(0) === contiguous(0);
  const batch = 8192;
  const frames = new Float64Array(batch);
  const counts = new Int32Array(batch).fill(1);
  return (units) => {
    let [done, hash] = [0, HASH];
    while (done < units) {
      const pages = Math.min(GIB_PAGES, units);
      const first = IOVA / PAGE_SIZE;
      if (runs) domain.map(first as IovaPage, frameOf(0) as never, pages, READ | WRITE);
      else
        for (let at = 0; at < pages; at += batch) {
          const count = Math.min(batch, pages - at);
          for (let i = 0; i < count; i++) frames[i] = frameOf(at + i);
          domain.mapRuns((first + at) as IovaPage, frames, counts, count, READ | WRITE);
        }
      domain.unmapNow(first as IovaPage, pages);
      hash = fold(hash, pages);
      done += pages;
    }
    return { units: done, hash };
  };
}

const bench = (name: string, frameOf: (page: number) => number): Bench => ({
  name: `iommufd map and unmap of a gigabyte, ${name}`,
  unit: "page",
  smoke: 16_384,
  full: 8 * GIB_PAGES,
  contenders: [
    { name: "address space", prepare: () => throughIoas(frameOf) },
    { name: "page table alone", prepare: () => tableAlone(frameOf) },
  ],
});

export const benches: readonly Bench[] = [bench("scattered", scattered), bench("contiguous", contiguous)];
