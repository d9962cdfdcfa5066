/**
 * Judges of page tables: kinds pagetable and pagetable-named, operations on a table or on several.
 *
 * A table is built as the file says and driven by its operations; compared is every answer, every effect (tables, syncs,
 * write-backs, invalidated walks), the gather, and at each check the whole table by two digests.
 */
import { ERRNO, type IovaPage, type PhysPage } from "../../src/base/index.ts";
import { armGeometry, itemLg, levelOfSize, READ, type TableLayout } from "../../src/layouts/pagetable/index.ts";
import { Gather, PageSizes } from "../../src/pagetable/index.ts";
import { type Judge, judgeLines, type Line, NotJudged } from "./judge.ts";
import { armInit, armOptions, bytes, compare, hex, pageOf, Subject } from "./pagetable-subject.ts";
import { permissionsOf } from "./words.ts";

type Rule = (name: string) => void;
const UNALIGNED = "an unmap that is not of whole pages leaves the gather alone";

/**
 * The calls of the legacy splitter, [size, count], for a map or (`phys` = `iova`) an unmap of which `done` pages worked. A
 * call does what lies in one table, and tables that stand one after the other at the top are several for that.
 */
function calls(layout: TableLayout, iova: number, phys: number, pages: number, done: number): [string, number][] {
  const sizes = new PageSizes(layout.leafSizes);
  const list: [string, number][] = [];
  for (let at = 0; at < pages; ) {
    const lg = sizes.best(iova + at, phys + at, pages - at);
    const count = sizes.count(lg, iova + at, phys + at, pages - at);
    list.push([hex(bytes(2 ** lg)), count]);
    const level = levelOfSize(layout, lg);
    const entries = 2 ** layout.indexBits;
    const index = Math.floor((iova + at) / 2 ** itemLg(layout, level)) % entries;
    const mapped = Math.min(Math.min(count, entries - index) * 2 ** lg, done - at);
    if (mapped === 0) break;
    at += mapped;
  }
  return list;
}

function judgeMap(subject: Subject, line: Line, rule: Rule): string[] {
  const { table, arena, counters } = subject;
  const before = counters.snapshot();
  const topLevel = table.topLevel;
  arena.failAt = (line.failAlloc as number | undefined) ?? 0;
  const ret = table.mapBytes(
    BigInt(line.iova as string),
    BigInt(line.pa as string),
    BigInt(line.len as string),
    permissionsOf(line.prot),
  );
  arena.failAt = 0;
  const found: Record<string, unknown> = {
    ret,
    mapped: hex(bytes(table.mappedPages)),
    ...subject.effects(before),
    ...(table.topLevel !== topLevel && { top: [hex(bytes(table.root)), table.topLevel] }),
  };
  if (subject.legacy && line.calls !== undefined)
    found.calls = calls(subject.layout, pageOf(line.iova), pageOf(line.pa), pageOf(line.len), table.mappedPages);
  const whatever = ["ret", "mapped", "newTables", "top", "walkFlushes", "calls"];
  const differences = compare(line, found, [...whatever, "freedTables", "syncs", "flushes"]);
  if (differences.length === 0) return [];
  const [kernelRuns, kernelBytes] = (line.flushes as number[] | undefined) ?? [0, 0];
  const [runs, written] = subject.flushes;
  if (differences.length === 1 && ret < 0 && kernelRuns === runs! + 1 && kernelBytes === written) {
    rule("an empty run is not written back");
    return [];
  }
  const refused = ret === -ERRNO.EADDRINUSE && line.freedTables !== undefined && subject.layout.name === "amd-v1";
  if (refused && compare(line, found, [...whatever, "flushes"]).length === 0) {
    // Follow the kernel's state: the empty tables that it dropped go, by way of a leaf over them; just as many.
    rule("a refused contiguous leaf changes nothing");
    const frames = arena.framesInUse;
    for (const [start, last] of line.syncs as [string, string][])
      dropEmptyTables(subject, pageOf(start), pageOf(last) + 1);
    const freed = frames - arena.framesInUse + ((found.freedTables as number | undefined) ?? 0);
    const within = subject.syncs.every((sync) => {
      const [first, end] = (sync as [string, string]).map(BigInt);
      return (line.syncs as [string, string][]).some(([a, b]) => first! >= BigInt(a) && end! <= BigInt(b));
    });
    return [
      ...compare({ freedTables: line.freedTables }, { freedTables: freed }, ["freedTables"]),
      ...(within ? [] : [`syncs: kernel ${JSON.stringify(line.syncs)}, dmalink ${JSON.stringify(subject.syncs)}`]),
    ];
  }
  return differences;
}

function dropEmptyTables(subject: Subject, start: number, end: number): void {
  const { table } = subject;
  const gather = new Gather();
  for (let page = start; page < end; ) {
    const leaf = table.translate(page as IovaPage);
    let size = leaf ? leaf.leafPages : 2 ** 36;
    if (!leaf) {
      while (page % size !== 0 || page + size > end || table.map(page as IovaPage, 0 as PhysPage, size, READ) !== 0)
        size /= 2;
      table.unmap(page as IovaPage, size, gather);
    }
    page += size;
  }
  table.complete(gather);
}

function judgeUnmap(subject: Subject, line: Line, rule: Rule): string[] {
  const { table, counters } = subject;
  const before = counters.snapshot();
  const aligned = ((BigInt(line.iova as string) | BigInt(line.len as string)) & 0xfffn) === 0n;
  const pages = aligned ? table.unmap(pageOf(line.iova) as IovaPage, pageOf(line.len), subject.gather) : 0;
  const names = [
    "ret",
    "gather",
    "syncs",
    "flushes",
    ...(subject.legacy ? ["freedTables", "walkFlushes", "calls"] : []),
  ];
  if (!aligned && subject.shown(subject.gather).join() !== (line.gather as unknown[]).join()) {
    // The kernel's gather got the point at which it stopped: the empty interval in front of the address.
    rule(UNALIGNED);
    const iova = BigInt(line.iova as string);
    const [start, last] = subject.interval(subject.gather);
    subject.extra = [start < iova ? start : iova, last > iova - 1n ? last : iova - 1n];
  } else if (subject.extra !== undefined) {
    rule(UNALIGNED);
    // An empty interval is not worth keeping for a kernel that keeps gaps, once something is added elsewhere.
    if (aligned && subject.keepGaps && BigInt(line.iova as string) !== subject.extra[0]) subject.extra = undefined;
  }
  const found = {
    ret: hex(bytes(pages)),
    gather: subject.shown(subject.gather),
    ...subject.effects(before),
    ...(line.calls !== undefined && {
      calls: calls(subject.layout, pageOf(line.iova), pageOf(line.iova), pageOf(line.len), pages),
    }),
  };
  return compare(line, found, names);
}

function judgeDirty(subject: Subject, line: Line, rule: Rule): string[] {
  const before = subject.counters.snapshot();
  const gather = new Gather();
  const ranges: [number, number][] = [];
  const ret = subject.table.readDirty(
    pageOf(line.iova) as IovaPage,
    pageOf(line.len),
    line.clear as boolean,
    gather,
    (iova, pages) => ranges.push([iova, pages]),
  );
  const shown = ranges.map(([iova, pages]) => [hex(bytes(iova)), hex(bytes(pages))]);
  const found = {
    ret,
    ranges: shown,
    ...(gather.end !== 0 && { gather: subject.shown(gather).slice(0, 2) }),
    ...subject.effects(before),
  };
  const differences = compare(line, found, ["ret", "ranges", "gather", "syncs"]);
  if (differences.length === 0) return [];
  // Better answers: the same call with the ranges, and the flush range, that the rule says; all the rest as it is.
  const better = (ranges: [string, string][]): string[] => {
    const ends = ranges.map(([start, size]) => BigInt(start) + BigInt(size) - 1n);
    const gathered = line.gather as [string, string] | undefined;
    const expected = {
      ret: line.ret,
      syncs: line.syncs,
      ranges,
      ...(gathered && { gather: [gathered[0], hex(ends.reduce((a, b) => (a > b ? a : b)))] }),
    };
    return compare(expected, found, ["ret", "ranges", "gather", "syncs"]);
  };
  if (line.whole !== undefined) {
    rule("a contiguous dirty leaf is reported to its end");
    return better(line.whole as [string, string][]);
  }
  if (line.ret === ret) {
    rule("a dirty query from inside a large leaf ends with the leaf");
    return better(
      (line.ranges as [string, string][]).map(([start, size], i) => {
        const inside = BigInt(start) % BigInt(size);
        return i > 0 ? [hex(BigInt(start) - inside), size] : [start, hex(BigInt(size) - inside)];
      }),
    );
  }
  return differences;
}

function judgeLine(subject: Subject, line: Line, rule: Rule): string[] {
  subject.begin();
  switch (line.op) {
    case "map":
      return judgeMap(subject, line, rule);
    case "unmap":
      return judgeUnmap(subject, line, rule);
    case "sync": {
      const [start, last] = subject.interval(subject.gather);
      const done = start < last;
      const syncs = done ? [subject.shown(subject.gather)] : undefined;
      if (subject.extra !== undefined) rule(UNALIGNED);
      subject.extra = undefined;
      subject.table.complete(subject.gather);
      return compare(line, { done, syncs }, ["done", "syncs"]);
    }
    case "probe":
      return compare(line, { pa: subject.probe(BigInt(line.iova as string)) }, ["pa"]);
    case "touch":
      return compare(line, { ret: subject.touch(BigInt(line.iova as string)) }, ["ret"]);
    case "dirty":
      return judgeDirty(subject, line, rule);
    case "image":
      return compare(line, { entries: subject.image() }, ["entries"]);
    case "check":
      return compare(line, subject.check(), ["root", "topLevel", "tables", "frames", "entries", "raw", "norm"]);
    case "deinit":
      subject.table.destroy();
      return compare(line, { frames: subject.arena.framesInUse }, ["frames"]);
    default:
      throw new NotJudged(`the operation ${JSON.stringify(line.op)} on a page table is not known to the judge`);
  }
}

/** What the line that a table begins with says of it, and does not ask for. */
function compareHeader(line: Line, { layout, table }: Subject): string[] {
  const stage = line.format === "arm_64_lpae_s1" ? 1 : 2;
  const geometry = layout.rules === "legacy" ? armGeometry(armOptions(line, stage)) : undefined;
  const found = {
    root: hex(bytes(table.root)),
    startLevel: 3 - layout.topLevel,
    topBits: layout.topIndexBits,
    ...(geometry && armInit(stage, geometry)),
  };
  const said = ["root", "startLevel", "topBits", "tcr", "vtcr", "mair"].filter((name) => name in line);
  return compare(line, found, said);
}

const judgeTable: Judge = (header, lines) => {
  let subject = header.kind === "pagetable" ? new Subject(header) : undefined;
  let fromHeader = subject ? compareHeader(header, subject) : [];
  let unknown = "no table was begun";
  return judgeLines(lines, false, (line, _index, tally) => {
    try {
      if (line.op === "begin") {
        subject = undefined;
        subject = new Subject(line);
        return compareHeader(line, subject);
      }
      if (subject === undefined) throw new NotJudged(unknown);
      const differences = [...fromHeader, ...judgeLine(subject, line, (name) => tally.rule(name))];
      fromHeader = [];
      return differences;
    } catch (error) {
      // Every line builds on those before it, up to the next table.
      if (error instanceof NotJudged && subject !== undefined) unknown = `after: ${error.message}`;
      else if (error instanceof NotJudged && line.op === "begin") unknown = error.message;
      if (error instanceof NotJudged) subject = undefined;
      throw error;
    }
  });
};

export const judges: Readonly<Record<string, Judge>> = { pagetable: judgeTable, "pagetable-named": judgeTable };
