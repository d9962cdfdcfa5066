/**
 * Random maps, copies, unmaps, attaches and accesses, in several formats, against a model that knows each page by itself: after
 * every step what devices reach, how often each page is pinned, and who is charged for how many.
 */
import { describe, expect, test } from "vitest";
import { Random } from "../../src/base/index.ts";
import { type Access, type BoundDevice, type Ioas, Iommufd } from "../../src/consumers/iommufd/index.ts";
import { amdV1, riscv, type TableLayout, vtdSecondStage, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { NthFailure, Stand, VA } from "./stand.ts";

const PAGE = 4096n;
const GROUND = 0x4000_0000n;
/** Pages of the space that is played in, and of memory. */
const [SPACE, MEMORY] = [64, 48] as const;
const STEPS = 120;
const seeds = Number(process.env["DMALINK_IOMMUFD_SEEDS"] ?? 3);

/** What is mapped where: pieces of memory that were pinned by one map each, and shared by copies. */
interface ModelArea {
  readonly first: number;
  readonly pages: number;
  /** Which map it comes from, and the page of it that it begins with. */
  readonly source: { readonly start: number };
  readonly offset: number;
}

class Play {
  readonly stand: Stand;
  readonly process: ReturnType<Stand["process"]>;
  readonly iommufd: Iommufd;
  readonly failures = new NthFailure();
  readonly spaces: {
    readonly ioas: Ioas;
    areas: ModelArea[];
    device?: BoundDevice;
    access?: Access;
    held: [number, number][];
  }[];
  readonly #random: Random;
  readonly #va: bigint;

  constructor(layout: TableLayout, seed: number) {
    this.stand = new Stand({ layout });
    this.process = this.stand.process();
    this.#va = this.stand.memory(this.process, MEMORY * 4096);
    this.iommufd = new Iommufd({ failurePoint: this.failures.point });
    this.spaces = [0, 1].map(() => ({ ioas: this.iommufd.createIoas(), areas: [], held: [] }));
    this.#random = Random.fromSeed(seed);
  }

  #below(limit: number): number {
    return this.#random.below(limit);
  }

  step(): void {
    const space = this.spaces[this.#below(2)]!;
    const kind = this.#below(10);
    const first = this.#below(SPACE);
    const pages = 1 + this.#below(8);
    if (kind < 3) this.#map(space, first, pages);
    else if (kind < 5) this.#copy(space, first, pages);
    else if (kind < 8) this.#unmap(space, first, pages);
    else if (kind < 9) this.#attach(space);
    else this.#hold(space, first, pages);
  }

  /** Runs a call that is to succeed or not; sometimes a step of it is made to fail: then it must have changed nothing. */
  #try(call: () => void, expected: boolean): boolean {
    const fails = this.#below(4) === 0;
    this.failures.left = fails ? 1 + this.#below(4) : 0;
    this.failures.wasHit = false;
    try {
      call();
      expect(expected || this.failures.wasHit).toBe(true);
      return !this.failures.wasHit || expected;
    } catch {
      expect(expected && !this.failures.wasHit).toBe(false);
      return false;
    } finally {
      this.failures.left = 0;
    }
  }

  #map(space: Play["spaces"][number], first: number, pages: number): void {
    const start = this.#below(MEMORY - pages);
    const isFree = !space.areas.some((area) => area.first < first + pages && first < area.first + area.pages);
    const at = GROUND + BigInt(first) * PAGE;
    const request = { iova: at, length: BigInt(pages) * PAGE };
    const done = this.#try(
      () => void this.iommufd.map(space.ioas, this.process, this.#va + BigInt(start) * PAGE, request),
      isFree,
    );
    if (done) space.areas.push({ first, pages, source: { start }, offset: 0 });
  }

  #copy(space: Play["spaces"][number], first: number, pages: number): void {
    const from = this.spaces[this.#below(2)]!;
    const source = this.#below(SPACE);
    const parts: ModelArea[] = [];
    for (let page = source; page < source + pages; ) {
      const area = from.areas.find((each) => each.first <= page && page < each.first + each.pages);
      if (!area) break;
      const count = Math.min(area.first + area.pages, source + pages) - page;
      const offset = area.offset + page - area.first;
      parts.push({ first: first + page - source, pages: count, source: area.source, offset });
      page += count;
    }
    const isThere = parts.reduce((sum, part) => sum + part.pages, 0) === pages;
    const isFree = !space.areas.some((area) => area.first < first + pages && first < area.first + area.pages);
    const request = { iova: GROUND + BigInt(first) * PAGE, length: BigInt(pages) * PAGE };
    const at = GROUND + BigInt(source) * PAGE;
    const done = this.#try(() => void this.iommufd.copy(from.ioas, at, space.ioas, request), isThere && isFree);
    if (done) space.areas.push(...parts);
  }

  #unmap(space: Play["spaces"][number], first: number, pages: number): void {
    const isInside = (area: ModelArea): boolean => area.first >= first && area.first + area.pages <= first + pages;
    const hit = space.areas
      .filter((area) => area.first < first + pages && first < area.first + area.pages)
      .sort((a, b) => a.first - b.first);
    const cut = hit.findIndex((area) => !isInside(area));
    const gone = cut < 0 ? hit : hit.slice(0, cut);
    let removed = 0n;
    try {
      removed = space.ioas.unmap(GROUND + BigInt(first) * PAGE, BigInt(pages) * PAGE);
      expect(cut).toBe(-1);
      expect(removed).toBe(BigInt(gone.reduce((sum, area) => sum + area.pages, 0)) * PAGE);
    } catch {
      expect(cut).toBeGreaterThanOrEqual(0);
    }
    space.areas = space.areas.filter((area) => !gone.includes(area));
  }

  #attach(space: Play["spaces"][number]): void {
    if (space.device) {
      this.iommufd.unbind(space.device);
      delete space.device;
      return;
    }
    const device = this.iommufd.bind(this.stand.device());
    if (this.#try(() => void this.iommufd.attach(device, space.ioas.id), true)) space.device = device;
    else this.iommufd.unbind(device);
  }

  #hold(space: Play["spaces"][number], first: number, pages: number): void {
    if (!space.access) {
      const access = this.iommufd.createAccess({
        pins: true,
        failurePoint: this.failures.point,
        onUnmap: (iova, length) => {
          for (const held of [...space.held]) {
            const [at, bytes] = [GROUND + BigInt(held[0]) * PAGE, BigInt(held[1]) * PAGE];
            if (at > iova + length - 1n || at + bytes - 1n < iova) continue;
            access.unpin(at, bytes);
            space.held.splice(space.held.indexOf(held), 1);
          }
        },
      });
      access.use(space.ioas);
      space.access = access;
    }
    const isThere = Array.from({ length: pages }, (_, i) => first + i).every((page) =>
      space.areas.some((area) => area.first <= page && page < area.first + area.pages),
    );
    const at = GROUND + BigInt(first) * PAGE;
    if (this.#try(() => void space.access!.pin(at, BigInt(pages) * PAGE, true), isThere))
      space.held.push([first, pages]);
  }

  /** Everything that can be seen, against the model. */
  check(): void {
    const pinned = new Map<object, Set<number>>();
    const pin = (area: ModelArea, from: number, to: number): void => {
      const pages = pinned.get(area.source) ?? new Set();
      pinned.set(area.source, pages);
      for (let page = from; page < to; page++) pages.add(area.offset + page - area.first);
    };
    for (const space of this.spaces) {
      const expected = new Array<number>(SPACE + 8).fill(-1);
      for (const area of space.areas) {
        if (space.device) pin(area, area.first, area.first + area.pages);
        for (const [first, pages] of space.held)
          pin(area, Math.max(first, area.first), Math.min(first + pages, area.first + area.pages));
        for (let i = 0; i < area.pages; i++)
          expected[area.first + i] = this.stand.pageOf(
            this.process.memory,
            VA + (area.source.start + area.offset + i) * 4096,
          );
      }
      const hwpt = space.device?.hwptOf();
      if (!hwpt) continue;
      const base = Number(GROUND / PAGE);
      const found = expected.map((_page, i) => hwpt.paging.table.leafAt(base + i)?.phys ?? -1);
      expect(found).toEqual(expected);
    }
    const pins = new Array<number>(MEMORY).fill(0);
    let total = 0;
    for (const [source, pages] of pinned)
      for (const page of pages) {
        pins[(source as ModelArea["source"]).start + page]!++;
        total++;
      }
    expect(this.stand.pins(this.process.memory, MEMORY)).toEqual(pins);
    expect([this.process.user.locked.pages, this.process.memory.pinned.pages]).toEqual([total, total]);
  }
}

const FORMATS: readonly (readonly [string, () => TableLayout])[] = [
  ["VT-d second stage", vtdSecondStage],
  ["AMD", amdV1],
  ["x86-64", x86_64],
  ["RISC-V", riscv],
];

describe("random operations on two spaces: tables, pins and charges are those of a model that knows single pages", () => {
  for (const [name, layout] of FORMATS)
    test(name, () => {
      for (let seed = 1; seed <= seeds; seed++) {
        const play = new Play(layout(), seed);
        play.iommufd.acquire();
        for (let i = 0; i < STEPS; i++) {
          play.step();
          play.check();
        }
        for (const { access, device } of play.spaces) {
          if (access) play.iommufd.endAccess(access);
          if (device) play.iommufd.unbind(device);
        }
        play.iommufd.release();
        expect(play.process.memory.pinned.pages).toBe(0);
        expect(play.process.user.locked.pages).toBe(0);
        expect(play.stand.pins(play.process.memory, MEMORY)).toEqual(new Array(MEMORY).fill(0));
      }
    });
});
