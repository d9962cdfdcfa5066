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

/** What a process's memory is made of: where each page lies, and how many neighbours it has. */
interface Kind {
  readonly name: string;
  readonly pagesPerLeaf: number;
}

const KINDS: readonly Kind[] = [
  { name: "pages of 4 KiB", pagesPerLeaf: 1 },
  { name: "pages of 2 MiB", pagesPerLeaf: 512 },
];

/** Pages two by two in the wrong order: no two neighbours are neighbours. */
const frameOf = (leaf: number, { pagesPerLeaf }: Kind): number => FIRST_FRAME + (leaf ^ 1) * pagesPerLeaf;

/** A process whose memory is pinned in no time: what is measured is not the process. */
function processOf(kind: Kind): UserProcess {
  const user = { name: "bench", locked: { pages: 0 } };
  const { pagesPerLeaf } = kind;
  const memory: Partial<UserMemory> = {
    isGone: false,
    locked: { pages: 0 },
    pinned: { pages: 0 },
    pages: { unpin() {} } as unknown as UserMemory["pages"],
    pin(address, count, into, at) {
      const first = address / PAGE_SIZE;
      for (let i = 0; i < count; i++) into[at + i] = frameOf(first + i, kind);
      return count;
    },
  };
  if (pagesPerLeaf > 1)
    memory.pinRuns = (address, count, into) => {
      const first = address / PAGE_SIZE;
      for (let i = 0; i < count; i += pagesPerLeaf) into.add(frameOf((first + i) / pagesPerLeaf, kind), pagesPerLeaf);
      return count;
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

function throughIoas(kind: Kind): (units: number) => Result {
  const process = processOf(kind);
  const iommufd = new Iommufd();
  const ioas = iommufd.createIoas();
  const table: UserTable = new DomainTable({ domain: openDomain() });
  ioas.addTable(table);
  return (units) => {
    let [done, hash] = [0, HASH];
    while (done < units) {
      const length = BigInt(Math.min(GIB_PAGES / kind.pagesPerLeaf, units) * kind.pagesPerLeaf) * 4096n;
      iommufd.map(ioas, process, 0n, { iova: BigInt(IOVA), length });
      const leaves = Number(ioas.unmap(BigInt(IOVA), length)) / PAGE_SIZE / kind.pagesPerLeaf;
      hash = fold(hash, leaves);
      done += leaves;
    }
    return { units: done, hash };
  };
}

/** The same entries, of numbers that are known: what no address space can be faster than. */
function tableAlone(kind: Kind): (units: number) => Result {
  const domain = openDomain();
  const { pagesPerLeaf } = kind;
  const batch = 8192;
  const frames = new Float64Array(batch);
  const counts = new Int32Array(batch).fill(pagesPerLeaf);
  return (units) => {
    let [done, hash] = [0, HASH];
    while (done < units) {
      const leaves = Math.min(GIB_PAGES / pagesPerLeaf, units);
      const first = IOVA / PAGE_SIZE;
      for (let at = 0; at < leaves; at += batch) {
        const count = Math.min(batch, leaves - at);
        for (let i = 0; i < count; i++) frames[i] = frameOf(at + i, kind);
        domain.mapRuns((first + at * pagesPerLeaf) as IovaPage, frames, counts, count, READ | WRITE);
      }
      domain.unmapNow(first as IovaPage, leaves * pagesPerLeaf);
      hash = fold(hash, leaves);
      done += leaves;
    }
    return { units: done, hash };
  };
}

export const benches: readonly Bench[] = KINDS.map((kind) => ({
  name: `iommufd map and unmap of a gigabyte, ${kind.name}`,
  unit: "page",
  smoke: kind.pagesPerLeaf === 1 ? 16_384 : 512,
  full: (8 * GIB_PAGES) / (kind.pagesPerLeaf === 1 ? 1 : 16),
  contenders: [
    { name: "address space", prepare: () => throughIoas(kind) },
    { name: "page table alone", prepare: () => tableAlone(kind) },
  ],
}));
