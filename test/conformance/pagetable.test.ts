/**
 * What every page-table format promises: random work against a model of single pages, failures of every allocation, misuse,
 * and the vectors of the specification (section numbers in the titles).
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Counters, ERRNO, type IovaPage, type PhysPage } from "../../src/base/index.ts";
import { READ, type TableLayout, vtdSecondStage, WRITE, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { Arena, Gather, LeafCursor, PageTable } from "../../src/pagetable/index.ts";
import { type Format, formats } from "./formats.ts";

const RW = READ | WRITE;
const iova = (page: number): IovaPage => page as IovaPage;
const phys = (page: number): PhysPage => page as PhysPage;

class Machine {
  readonly layout: TableLayout;
  readonly arena: Arena;
  readonly counters = new Counters();
  readonly table: PageTable;
  readonly gather = new Gather();
  syncs = 0;

  constructor(layout: TableLayout, capacityFrames = 65_536) {
    this.layout = layout;
    this.arena = new Arena({ basePage: phys(2 ** 33), capacityFrames });
    const events = { sync: () => this.syncs++ };
    this.table = new PageTable({ layout, memory: this.arena, counters: this.counters, events });
  }

  /** Pages in the smallest page, and smallest pages under one leaf table. */
  get granule(): number {
    return 2 ** this.layout.granuleLg;
  }

  get span(): number {
    return 2 ** this.layout.indexBits;
  }

  unmap(page: number, pages: number): number {
    const done = this.table.unmap(iova(page), pages, this.gather);
    this.table.complete(this.gather);
    return done;
  }

  image(): string[] {
    return [...this.table.entries()].map(({ level, path, low, high }) => `${level} ${path} ${low} ${high}`);
  }

  destroy(): void {
    this.table.destroy();
    expect(this.arena.framesInUse).toBe(0);
    expect(this.counters.tablePagesAllocated).toBe(this.counters.tablePagesFreed);
  }
}

/** Smallest pages by number, as the caller asked for them: what the table must do, page by page. */
interface Page {
  readonly phys: number;
  readonly prot: number;
  dirty: boolean;
}

type Step =
  | { op: "map"; at: number; length: number; shift: number; prot: number; large: boolean }
  | { op: "unmap"; at: number; length: number }
  | { op: "touch"; at: number }
  | { op: "read"; at: number; length: number; clear: boolean }
  | { op: "split"; at: number; size: number }
  | { op: "collapse"; at: number; size: number };

/** Positions and lengths in smallest pages of a window of three leaf tables; often on a border between tables. */
const steps = (span: number, sizes: readonly number[]): fc.Arbitrary<Step[]> => {
  const at = fc.oneof(
    fc.nat(3 * span - 1),
    fc.nat(2).map((n) => n * span),
    fc.nat(20),
    fc.nat(40).map((n) => n * 16),
  );
  const length = fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(16, 64, span, 2 * span), fc.nat(2 * span));
  const size = fc.constantFrom(...sizes);
  const prot = fc.constantFrom(RW, RW, RW, READ);
  return fc.array(
    fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          op: fc.constant("map" as const),
          at,
          length,
          shift: fc.constantFrom(0, 0, 0, 1),
          prot,
          large: fc.boolean(),
        }),
      },
      { weight: 3, arbitrary: fc.record({ op: fc.constant("unmap" as const), at, length }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant("touch" as const), at }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant("read" as const), at, length, clear: fc.boolean() }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant("split" as const), at, size }) },
      { weight: 3, arbitrary: fc.record({ op: fc.constant("collapse" as const), at, size }) },
    ),
    { minLength: 1, maxLength: 25 },
  );
};

class Trial {
  readonly machine: Machine;
  readonly format: Format;
  /** First page of the window, a multiple of every size in play. */
  readonly base: number;
  readonly model = new Map<number, Page>();
  readonly cursor = new LeafCursor();

  constructor(format: Format) {
    this.format = format;
    this.machine = new Machine(format.layout());
    const { layout } = this.machine;
    // Not at the start of a table: what is in front of it must stay untouched.
    this.base = 2 ** (layout.granuleLg + 2 * layout.indexBits) * 3 - 2 ** (layout.granuleLg + layout.indexBits);
  }

  page(n: number): number {
    return this.base + n * this.machine.granule;
  }

  physOf(n: number, shift: number): number {
    return 2 ** 20 * 16 + this.page(n) + shift * this.machine.granule;
  }

  /** The leaf of smallest page `n`, in smallest pages. */
  leaf(n: number): { start: number; size: number } {
    const { leafStart, leafPages } = this.machine.table.translate(iova(this.page(n)))!;
    return { start: (leafStart - this.base) / this.machine.granule, size: leafPages / this.machine.granule };
  }

  check(from: number, to: number): void {
    const { table, granule } = this.machine;
    for (let n = from; n < to; n++) {
      const known = this.model.get(n);
      const found = table.lookup(iova(this.page(n) + (n % granule)));
      if (found !== (known === undefined ? -1 : known.phys + (n % granule)))
        expect.fail(`page ${n}: ${found}, model ${known?.phys}`);
    }
  }

  run(step: Step): void {
    const { machine, model } = this;
    const { table, granule } = machine;
    const before = machine.image();
    switch (step.op) {
      case "map": {
        const length = Math.max(1, step.large ? Math.max(step.length, machine.span) : step.length);
        const at = step.large ? step.at - (step.at % machine.span) : step.at;
        const free = Array.from({ length }, (_, i) => !model.has(at + i));
        const firstTaken = free.indexOf(false);
        if (firstTaken >= 0 && machine.layout.rules === "legacy") return; // a block may take a table's place: Linux's way
        const ret = table.map(
          iova(this.page(at)),
          phys(this.physOf(at, step.shift)),
          length * granule,
          step.prot,
          this.cursor,
        );
        const mapped = table.mappedPages / granule;
        if (firstTaken < 0) expect([ret, mapped]).toEqual([0, length]);
        else {
          expect(ret).toBe(this.format.occupied);
          expect(mapped).toBeLessThanOrEqual(firstTaken);
          if (mapped > 0) expect(machine.unmap(this.page(at), mapped * granule)).toBe(mapped * granule);
          this.check(at - 1, at + length + 1);
          return;
        }
        const born = machine.layout.dirty?.match === 0 && (step.prot & WRITE) !== 0;
        for (let i = 0; i < length; i++)
          model.set(at + i, { phys: this.physOf(at + i, step.shift), prot: step.prot, dirty: born });
        this.check(at - 1, at + length + 1);
        break;
      }
      case "unmap": {
        let end = step.at;
        const stop = step.at + Math.max(1, step.length);
        while (end < stop && model.has(end)) {
          const { start, size } = this.leaf(end);
          if (start !== end) break;
          end += size;
        }
        if (this.format.noStopAtHole !== undefined && end !== stop) return;
        const done = machine.unmap(this.page(step.at), Math.max(1, step.length) * granule);
        expect(done).toBe((end - step.at) * granule);
        for (let n = step.at; n < end; n++) model.delete(n);
        this.check(step.at - 1, Math.max(stop, end) + 1);
        break;
      }
      case "touch": {
        const known = model.get(step.at);
        const { dirty } = machine.layout;
        if (!known || (known.prot & WRITE) === 0 || !dirty || this.format.noDirty) return;
        const found = table.translate(iova(this.page(step.at)))!;
        machine.arena.store(found.table, found.index, dirty.soil(found.low), found.high);
        const { start, size } = this.leaf(step.at);
        for (let n = start; n < start + size; n++) model.get(n)!.dirty = true;
        break;
      }
      case "read":
        this.readDirty(step.at, Math.max(1, step.length), step.clear);
        break;
      case "split": {
        const ret = table.split(iova(this.page(step.at)), step.size, machine.gather);
        expect(ret).toBe(model.has(step.at) ? 0 : -ERRNO.ENOENT);
        if (ret === 0) expect(table.translate(iova(this.page(step.at)))!.leafPages).toBeLessThanOrEqual(step.size);
        else expect(machine.image()).toEqual(before);
        table.complete(machine.gather);
        this.check(step.at - 70, step.at + 70);
        break;
      }
      case "collapse": {
        const count = step.size / granule;
        const at = step.at - (step.at % count);
        const first = model.get(at);
        let hole = false;
        let apart = (first?.phys ?? 0) % step.size !== 0;
        let dirty = false;
        for (let i = 0; i < count; i++) {
          const known = model.get(at + i);
          if (!first || !known) {
            hole = true;
            break;
          }
          apart ||= known.phys !== first.phys + i * granule || known.prot !== first.prot;
          dirty ||= known.dirty;
        }
        const ret = table.collapse(iova(this.page(at)), step.size, machine.gather);
        if (hole || apart) {
          expect([-ERRNO.ENOENT, -ERRNO.ENXIO]).toContain(ret);
          expect(machine.image()).toEqual(before);
        } else {
          expect(ret).toBe(0);
          const leaf = table.translate(iova(this.page(at)))!;
          expect(leaf.leafPages).toBeGreaterThanOrEqual(step.size);
          for (let i = 0; i < count; i++) model.get(at + i)!.dirty = dirty;
        }
        table.complete(machine.gather);
        this.check(at - 1, at + count + 1);
      }
    }
  }

  readDirty(at: number, length: number, clear: boolean): void {
    const { machine, model } = this;
    const { table, granule } = machine;
    const reported = new Set<number>();
    const ret = table.readDirty(iova(this.page(at)), length * granule, clear, machine.gather, (page, pages) => {
      for (let p: number = page; p < page + pages; p += granule) reported.add((p - this.base) / granule);
    });
    table.complete(machine.gather);
    if (this.format.noDirty && ret === -ERRNO.EOPNOTSUPP) return;
    const hole = Array.from({ length }, (_, i) => at + i).find((n) => !model.has(n));
    const strict = machine.layout.dirty!.strict && hole !== undefined;
    expect(ret).toBe(strict ? -ERRNO.EINVAL : 0);
    const end = strict ? hole : at + length;
    for (let n = at; n < end; n++)
      if (reported.has(n) !== (model.get(n)?.dirty ?? false)) expect.fail(`dirty: page ${n}`);
    if (!clear) return;
    for (const n of reported) {
      if (n >= end && !model.has(n)) continue;
      const { start, size } = this.leaf(n);
      for (let i = start; i < start + size; i++) model.get(i)!.dirty = false;
    }
  }

  /** Everything is where the model has it, and leaves with room for nothing else. */
  finish(): void {
    const { machine, model } = this;
    this.check(-machine.span, 6 * machine.span);
    let items = 0;
    for (const { leaf, level } of machine.table.entries()) if (leaf) items += 2 ** (machine.layout.indexBits * level);
    expect(items).toBe(model.size);
    machine.destroy();
  }
}

describe.each(formats)("a page table on $name", (format) => {
  const layout = format.layout();
  const granule = 2 ** layout.granuleLg;
  const span = 2 ** layout.indexBits;
  const leafSizes = layout.leafSizes.filter((lg) => lg <= layout.granuleLg + layout.indexBits).map((lg) => 2 ** lg);

  test("does what a map of single pages says, whatever is mapped, unmapped, split, collapsed and written to", () => {
    fc.assert(
      fc.property(steps(span, leafSizes), (list) => {
        const trial = new Trial(format);
        for (const step of list) trial.run(step);
        trial.finish();
      }),
      { numRuns: span > 512 ? 15 : 120 },
    );
  });

  test("keeps dirty state through split and collapse", () => {
    const size = leafSizes.at(-1)!;
    if (size === granule) return expect(leafSizes).toEqual([granule]); // one size: nothing to split
    const trial = new Trial(format);
    trial.run({ op: "map", at: 0, length: size / granule, shift: 0, prot: RW, large: false });
    expect(trial.leaf(0).size).toBe(size / granule);
    trial.readDirty(0, size / granule, true);
    if (!format.noDirty) {
      trial.readDirty(0, size / granule, false); // clean now
      trial.run({ op: "touch", at: size / granule - 1 });
    }
    trial.run({ op: "split", at: 1, size: granule });
    expect(trial.leaf(1).size).toBe(1);
    trial.readDirty(0, size / granule, true);
    trial.run({ op: "touch", at: 2 });
    trial.run({ op: "collapse", at: 0, size });
    expect(trial.leaf(1).size).toBe(size / granule);
    trial.readDirty(0, size / granule, false);
    trial.finish();
  });

  test("splits and collapses through every size, one entry image for one shape", () => {
    const machine = new Machine(layout);
    const sizes = layout.leafSizes.filter((lg) => lg <= layout.granuleLg + layout.indexBits + 2).map((lg) => 2 ** lg);
    const largest = sizes.at(-1)!;
    const start = largest * 4;
    expect(machine.table.map(iova(start), phys(largest * 8), largest, RW)).toBe(0);
    const whole = machine.image();
    const frames = machine.arena.framesInUse;
    for (const size of [...sizes].reverse().slice(1)) {
      for (let page = start; page < start + largest; page += size)
        expect(machine.table.split(iova(page), size, machine.gather)).toBe(0);
      expect(machine.table.translate(iova(start + largest - granule))!.leafPages).toBe(size);
      expect(machine.table.lookup(iova(start + largest - granule))).toBe(largest * 9 - granule);
      machine.table.complete(machine.gather);
    }
    for (const size of sizes.slice(1))
      for (let page = start; page < start + largest; page += size)
        expect(machine.table.collapse(iova(page), size, machine.gather)).toBe(0);
    machine.table.complete(machine.gather);
    expect(machine.image()).toEqual(whole);
    expect(machine.arena.framesInUse).toBe(frames);
    expect(machine.table.collapse(iova(start), 3, machine.gather)).toBe(-ERRNO.EINVAL);
    expect(machine.table.split(iova(start), granule / 2, machine.gather)).toBe(-ERRNO.EINVAL);
    machine.destroy();
  });

  test("splits a leaf two levels up, level by level or at once, and collapses it again", () => {
    const lg = layout.leafSizes.find((size) => size === layout.granuleLg + 2 * layout.indexBits);
    if (lg === undefined || layout.indexBits > 9) return expect(layout.leafSizes.length).toBeGreaterThan(0); // no such leaf, or millions of entries
    const machine = new Machine(layout);
    const { table, gather } = machine;
    const size = 2 ** lg;
    const middle = 2 ** (layout.granuleLg + layout.indexBits);
    table.map(iova(size), phys(size * 2), size, RW);
    const [image, frames] = [machine.image(), machine.arena.framesInUse];
    for (const below of [middle, granule]) {
      expect(table.split(iova(size + 5), below, gather)).toBe(0);
      expect([gather.start, gather.end]).toEqual([size, size * 2]);
      for (const page of [0, 1, middle - 1, middle, size - 1]) {
        expect(table.lookup(iova(size + page))).toBe(size * 2 + page);
        expect(table.translate(iova(size + page))!.leafPages).toBe(below);
      }
      table.complete(gather);
      expect(table.collapse(iova(size), size, gather)).toBe(0);
      expect([gather.start, gather.end]).toEqual([size, size * 2]);
      table.complete(gather);
      expect([machine.image(), machine.arena.framesInUse]).toEqual([image, frames]);
    }
    machine.destroy();
  });

  test("a split without memory for any of its tables changes nothing", () => {
    // As many tables as there are levels between, or two side by side (AMD), so that some are there when one fails.
    const larger = layout.leafSizes.filter((lg) => lg >= layout.granuleLg + layout.indexBits);
    const large = (layout.indexBits > 9 ? undefined : larger[1]) ?? larger[0];
    if (large === undefined) return expect(layout.leafSizes).toEqual([layout.granuleLg]); // needs no table
    const machine = new Machine(layout);
    const size = 2 ** large;
    machine.table.map(iova(size), phys(size * 2), size, RW);
    const [image, frames] = [machine.image(), machine.arena.framesInUse];
    const perTable = 2 ** Math.max(0, layout.indexBits - 9);
    for (const n of [1, 2, 3, 200, 513, 514]) {
      machine.arena.failAt = n;
      const ret = machine.table.split(iova(size), granule, machine.gather);
      machine.arena.failAt = 0;
      if (ret === 0) {
        expect(machine.arena.framesInUse).toBe(frames + (n - 1) * perTable);
        break;
      }
      expect(ret).toBe(-ERRNO.ENOMEM);
      expect([machine.image(), machine.arena.framesInUse]).toEqual([image, frames]);
      expect(machine.gather.pending).toBe(false);
    }
    expect(machine.table.translate(iova(size))!.leafPages).toBe(granule);
    machine.table.complete(machine.gather);
    machine.destroy();
  });

  test("a map without memory for its n-th table leaves, once unwound, only empty tables, for every n", () => {
    const machine = new Machine(layout);
    const { table } = machine;
    const neighbour = span * granule * 5;
    expect(table.map(iova(neighbour), phys(granule), granule, RW)).toBe(0);
    // Across a border of the second level, off by a page from any large leaf, three leaf tables.
    const start = 2 ** (layout.granuleLg + 2 * layout.indexBits) - (span + 3) * granule;
    const pages = (2 * span + 5) * granule;
    let n = 1;
    for (; ; n++) {
      const fresh = new Machine(layout);
      fresh.table.map(iova(neighbour), phys(granule), granule, RW);
      fresh.arena.failAt = n;
      const ret = fresh.table.map(iova(start), phys(start + 7 * granule), pages, RW);
      const mapped = fresh.table.mappedPages;
      fresh.arena.failAt = 0;
      if (ret === 0) break;
      expect(ret).toBe(-ERRNO.ENOMEM);
      expect(mapped).toBeLessThan(pages);
      if (mapped > 0) expect(fresh.unmap(start, mapped)).toBe(mapped);
      for (let page = start; page < start + pages; page += granule) expect(fresh.table.lookup(iova(page))).toBe(-1);
      expect(fresh.table.lookup(iova(neighbour))).toBe(granule);
      // What stands is in the tree: the same request now works and a covering unmap and the end return every frame.
      expect(fresh.table.map(iova(start), phys(start + 7 * granule), pages, RW)).toBe(0);
      expect(fresh.unmap(start, pages)).toBe(pages);
      fresh.destroy();
    }
    expect(n).toBeGreaterThan(3);
  });

  test("refuses misuse with its errno, and changes nothing", () => {
    const machine = new Machine(layout);
    const { table } = machine;
    table.map(iova(span * granule), phys(granule), 4 * granule, RW);
    const image = machine.image();
    const page = BigInt(granule) << 12n;
    const bytes = (a: bigint, b: bigint, length: bigint, prot = RW): number => table.mapBytes(a, b, length, prot);
    const upper = 1n << BigInt(layout.inputBits);
    const legacy = layout.rules === "legacy";
    expect({
      "over a live page": table.map(iova(span * granule), phys(granule), granule, RW),
      "into the middle of a page": bytes(page / 2n, 0n, page),
      "from the middle of a page": bytes(0n, page / 2n, page),
      "half a page": bytes(0n, 0n, page / 2n),
      "a page and a half": bytes(0n, 0n, page + page / 2n),
      nothing: bytes(0n, 0n, 0n),
      "without permission": bytes(0n, 0n, page, 0),
      "past the input addresses": layout.inputBits < 64 ? bytes(upper, 0n, page) : -ERRNO.ERANGE,
      "past the output addresses": bytes(0n, 1n << BigInt(layout.outputBits), page),
      "up to past the output addresses": bytes(0n, (1n << BigInt(layout.outputBits)) - page, page * 2n),
      "around the end": bytes((1n << 64n) - page, 0n, page * 2n),
    }).toEqual({
      "over a live page": format.occupied,
      "into the middle of a page": granule === 1 ? format.misaligned : -ERRNO.EINVAL,
      "from the middle of a page": granule === 1 ? format.misaligned : -ERRNO.EINVAL,
      "half a page": granule === 1 ? format.misaligned : -ERRNO.EINVAL,
      "a page and a half": granule === 1 ? format.misaligned : -ERRNO.EINVAL,
      nothing: -ERRNO.EINVAL,
      "without permission": -ERRNO.EINVAL,
      "past the input addresses": -ERRNO.ERANGE,
      "past the output addresses": -ERRNO.ERANGE,
      "up to past the output addresses": -ERRNO.ERANGE,
      "around the end": legacy ? -ERRNO.ERANGE : -ERRNO.EOVERFLOW,
    });
    expect(machine.unmap(0, granule)).toBe(0);
    expect(machine.unmap(span * granule, 0)).toBe(0);
    expect(table.lookup(iova(-1))).toBe(-1);
    expect(table.lookup(iova(2 ** 52 - 1))).toBe(-1);
    expect(table.split(iova(0), granule, machine.gather)).toBe(-ERRNO.ENOENT);
    expect(machine.image()).toEqual(image);
    machine.destroy();
  });

  test("a cursor is not believed once its table is gone, however it went", () => {
    const size = span * granule;
    const large = layout.leafSizes.includes(layout.granuleLg + layout.indexBits);
    const endings: ((machine: Machine) => void)[] = [
      (machine) => expect(machine.unmap(size, size)).toBe(size),
      (machine) => {
        if (large) expect(machine.table.collapse(iova(size), size, machine.gather)).toBe(0);
        machine.table.complete(machine.gather);
        machine.unmap(size, size);
      },
      (machine) => {
        for (let page = size; page < 2 * size; page += granule) machine.unmap(page, granule);
        expect(machine.table.map(iova(size), phys(size * 4), size, RW)).toBe(0); // a large leaf over the empty table
        expect(machine.unmap(size, size)).toBe(size);
      },
    ];
    for (const end of endings) {
      const machine = new Machine(layout);
      const cursor = new LeafCursor();
      for (let n = 0; n < span; n++)
        machine.table.map(iova(size + n * granule), phys(size * 4 + n * granule), granule, RW, cursor);
      end(machine);
      // Another table takes the frame; what the cursor remembers is now somebody else's.
      expect(machine.table.map(iova(size * 3), phys(0), granule, RW)).toBe(0);
      expect(machine.table.map(iova(size + granule), phys(granule), granule, RW, cursor)).toBe(0);
      expect(machine.table.lookup(iova(size + granule))).toBe(granule);
      expect(machine.table.lookup(iova(size * 3 + granule))).toBe(-1);
      machine.destroy();
    }
  });

  test("a vector of runs is the same as one map each, wherever it stops", () => {
    const runs = fc.array(fc.record({ at: fc.nat(5000), length: fc.integer({ min: 1, max: 40 }) }), { maxLength: 60 });
    fc.assert(
      fc.property(runs, fc.nat(span * 2), fc.option(fc.nat(600)), (list, start, taken) => {
        const [one, other] = [new Machine(layout), new Machine(layout)];
        for (const { table } of [one, other])
          if (taken !== null) table.map(iova((start + taken) * granule), phys(0), granule, RW);
        const physPages = Float64Array.from(list, ({ at }) => at * granule);
        const pages = Int32Array.from(list, ({ length }) => length * granule);
        const ret = one.table.mapRuns(iova(start * granule), physPages, pages, list.length, RW, new LeafCursor());
        let [error, mapped] = [0, 0];
        for (const [i, from] of physPages.entries()) {
          if (error !== 0) break;
          error = other.table.map(iova(start * granule + mapped), phys(from), pages[i]!, RW);
          mapped += other.table.mappedPages;
        }
        expect([ret, one.table.mappedPages, one.image()]).toEqual([error, mapped, other.image()]);
        expect(one.counters).toEqual(other.counters);
      }),
      { numRuns: 30 },
    );
  });

  test("the end of memory and the end of the address space are usable", () => {
    const machine = new Machine(layout);
    const last = layout.inputs === "low" ? 2 ** (layout.inputBits - 12) - granule : 2 ** 52 - granule;
    const top = 2 ** (layout.outputBits - 12) - granule;
    const cursor = new LeafCursor();
    expect(machine.table.map(iova(last - granule), phys(top), granule, RW, cursor)).toBe(0);
    expect(machine.table.map(iova(last), phys(top), granule, RW, cursor)).toBe(0);
    expect([machine.table.lookup(iova(last)), machine.table.lookup(iova(last + granule - 1))]).toEqual([
      top,
      top + granule - 1,
    ]);
    expect(machine.unmap(last - granule, 2 * granule)).toBe(2 * granule);
    expect(machine.table.lookup(iova(last))).toBe(-1);
    machine.destroy();
  });
});

describe("a table for a walker that does not snoop", () => {
  test.each([
    ["VT-d second stage", vtdSecondStage({ incoherentWalker: true })],
    ["x86-64", x86_64({ incoherentWalker: true })],
  ])("%s: every entry written is reported, whichever way it is written", (_name, layout) => {
    let entries = 0;
    const counters = new Counters();
    const memory = new Arena({ basePage: phys(2 ** 33) });
    const events = {
      writeBack: (count: number): void => {
        entries += count;
      },
    };
    const table = new PageTable({ layout, memory, counters, events });
    const cursor = new LeafCursor();
    const gather = new Gather();
    for (let page = 0; page < 5; page++) table.map(iova(page), phys(page * 2), 1, RW, cursor);
    table.mapRuns(iova(5), Float64Array.of(7, 90), Int32Array.of(1, 3), 2, RW, cursor);
    table.map(iova(512), phys(1024), 512, RW, cursor);
    expect(entries).toBe(counters.pteWrites);
    table.split(iova(512), 1, gather);
    expect(entries).toBe(counters.pteWrites);
    table.unmap(iova(0), 9, gather);
    table.collapse(iova(512), 512, gather);
    expect(entries).toBe(counters.pteWrites);
  });
});
