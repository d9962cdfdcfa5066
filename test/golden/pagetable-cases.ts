/**
 * Judges of what page tables decide before anything is written: kinds leaf-sizes (a map on an empty table, and the leaves it
 * makes), split (rounds of the legacy splitter), arm-geometry (start level, top table, configuration words).
 */
import type { IovaPage } from "../../src/base/index.ts";
import { armGeometry, READ, sizesOfBitmap, WRITE } from "../../src/layouts/pagetable/index.ts";
import { PageSizes } from "../../src/pagetable/index.ts";
import { type Judge, judgeLines, NotJudged } from "./judge.ts";
import { armInit, bytes, compare, hex, layoutOf, pageOf, Subject } from "./pagetable-subject.ts";

const judgeLeafSizes: Judge = (header, lines) => {
  layoutOf(header); // not judged at all if there is none
  return judgeLines(lines, false, (line) => {
    const { table, layout, counters } = new Subject(header);
    const at = (name: string): bigint => BigInt(line[name] as string);
    const ret = table.mapBytes(at("iova"), at("pa"), at("len"), READ | WRITE);
    const leaves: [string, number][] = [];
    for (let page = pageOf(line.iova), end = page + table.mappedPages; page < end; ) {
      const found = table.translate(page as IovaPage)!;
      const size = hex(bytes(found.leafPages));
      const last = leaves.at(-1);
      if (last?.[0] === size) last[1]++;
      else leaves.push([size, 1]);
      page += found.leafPages;
    }
    const tables = counters.tablePagesAllocated / 2 ** Math.max(0, layout.indexBits - 9);
    const found = { ret, mapped: hex(bytes(table.mappedPages)), tables, leaves };
    return compare(line, found, ["ret", "mapped", "tables", "leaves"]);
  });
};

/** Rounds of the legacy splitter, at most 200. */
function rounds(sizes: PageSizes, iova: number, phys: number, pages: number): [string, number][] {
  const list: [string, number][] = [];
  for (let done = 0; done < pages && list.length < 200; ) {
    const lg = sizes.best(iova + done, phys + done, pages - done);
    const count = sizes.count(lg, iova + done, phys + done, pages - done);
    list.push([hex(bytes(2 ** lg)), count]);
    done += count * 2 ** lg;
  }
  return list;
}

const judgeSplit: Judge = (_header, lines) =>
  judgeLines(lines, false, (line) => {
    const bitmap = BigInt(line.pageSizes as string);
    if ((bitmap & 0xfffn) !== 0n) throw new NotJudged("pages of less than 4 KiB: dmalink has none");
    const sizes = new PageSizes(sizesOfBitmap(bitmap));
    const [iova, phys, pages] = [pageOf(line.iova), pageOf(line.pa), pageOf(line.len)];
    const found = { map: rounds(sizes, iova, phys, pages), unmap: rounds(sizes, iova, iova, pages) };
    return compare(line, found, ["map", "unmap"]);
  });

const judgeGeometry: Judge = (_header, lines) =>
  judgeLines(lines, false, (line) => {
    const asked = line.asked as Record<string, unknown>;
    const stage = line.stage as 1 | 2;
    const geometry = armGeometry({
      stage,
      pageSizes: BigInt(asked.pageSizes as string),
      inputBits: asked.ias as number,
      outputBits: asked.oas as number,
      incoherentWalker: !asked.coherent,
      upperHalf: asked.ttbr1 === true,
    });
    return compare(line, { init: geometry === undefined ? null : armInit(stage, geometry) }, ["init"]);
  });

export const judges: Readonly<Record<string, Judge>> = {
  "leaf-sizes": judgeLeafSizes,
  split: judgeSplit,
  "arm-geometry": judgeGeometry,
};
