/** What the two-step calls promise: in any order, in part, again, in vain, and to the end. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PhysAddr } from "../../src/base/index.ts";
import { BOTH, concat, expectBytes, Filled, forAll } from "./dma-calls.ts";
import { build, type Way } from "./dma-ways.ts";
import type { Format } from "./formats.ts";
import { outcome, pattern } from "./outcome.ts";

export function twoStepSuite(way: Way, format: Format): void {
  const make = () => build(way, format);
  const { line } = way;

  describe("two steps", () => {
    /** A range of `count` granules and memory for it, in another order. */
    const stage = (count: number, physOffset = 0) => {
      const stand = make();
      const { granule } = stand;
      const memory = new Filled(stand, count * granule);
      const before = stand.state;
      const range = stand.reserve(count * granule - physOffset, physOffset);
      const frame = (n: number): PhysAddr => PhysAddr(memory.phys + n * granule);
      const bytesOf = (n: number): Uint8Array => memory.bytes.slice(n * granule, (n + 1) * granule);
      const read = (n: number): Uint8Array | undefined => stand.deviceRead(range.address + n * granule, granule);
      return { stand, granule, memory, before, range, frame, bytesOf, read };
    };

    test("reach nothing before the first link, and nothing in a hole", () => {
      const { stand, granule, range, frame, read, bytesOf } = stage(3);
      for (const n of [0, 1, 2]) expect(stand.reads(range.address + n * granule)).toBe(false);
      range.link(0, frame(2), granule, BOTH);
      range.link(2 * granule, frame(0), granule, BOTH);
      range.sync();
      expectBytes(read(0), bytesOf(2));
      expect(stand.reads(range.address + granule)).toBe(false);
      expectBytes(read(2), bytesOf(0));
    });

    test("in any order, ragged at both ends, show the same bytes", () => {
      const inside = 5 * Math.max(64, line);
      const length = (granule: number): number => 5 * granule - inside - 3 * 64;
      forAll(fc.shuffledSubarray([0, 1, 2, 3, 4], { minLength: 5 }), 3, (order) => {
        const { stand, granule, memory, before, range, frame } = stage(5, inside);
        for (const n of order) {
          const start = n === 0 ? 0 : n * granule - inside;
          const end = n === 4 ? length(granule) : (n + 1) * granule - inside;
          // Frames lie in another order than the range.
          const phys = n === 0 ? frame(0) + inside : frame(5 - n);
          range.link(start, PhysAddr(phys), end - start, BOTH);
        }
        range.sync();
        const now = concat(
          [0, 4, 3, 2, 1].map((n) => memory.bytes.slice(n * granule + (n === 0 ? inside : 0), (n + 1) * granule)),
        ).slice(0, length(granule));
        expectBytes(stand.deviceRead(range.address, length(granule)), now);
        const written = pattern(length(granule), 5);
        expect(stand.deviceWrite(range.address, written)).toBe(true);
        range.destroy();
        let at = 0;
        for (const [i, n] of [0, 4, 3, 2, 1].entries()) {
          const start = n * granule + (i === 0 ? inside : 0);
          const piece = written.subarray(at, at + (i === 4 ? granule - 3 * 64 : (n + 1) * granule - start));
          memory.bytes.set(piece, start);
          at += piece.length;
        }
        memory.check();
        stand.flush();
        expect(stand.state).toEqual(before);
      });
    });

    test("unlink takes a part away at once, and only it; what is linked there next is reached", () => {
      const { stand, granule, memory, range, frame, read, bytesOf } = stage(4);
      range.link(0, frame(0), 3 * granule, BOTH);
      range.sync();
      for (const n of [0, 1, 2]) expectBytes(read(n), bytesOf(n)); // cached by the IOMMU now
      range.unlink(granule, granule);
      expect(stand.reads(range.address + granule)).toBe(false);
      expectBytes(read(0), bytesOf(0));
      expectBytes(read(2), bytesOf(2));
      range.link(granule, frame(3), granule, BOTH);
      range.sync(granule, granule);
      expectBytes(read(1), bytesOf(3));
      range.destroy();
      memory.check();
    });

    test(`a lazy unlink, ${way.noLazyUnlink ? `at once, because ${way.noLazyUnlink}` : "may be reached until the flush or the next link, and not after"}`, () => {
      for (const then of ["flush", "link", "linkVecs", "destroy"] as const) {
        const { stand, granule, range, frame, read, bytesOf } = stage(3);
        for (const n of [0, 1]) range.link(n * granule, frame(n), granule, BOTH);
        range.sync();
        for (const n of [0, 1]) expectBytes(read(n), bytesOf(n));
        range.unlink(0, granule, { lazy: true });
        expect(stand.reads(range.address)).toBe(way.noLazyUnlink === undefined);
        if (then === "flush") range.flush();
        if (then === "link") range.link(0, frame(2), granule, BOTH);
        if (then === "linkVecs") range.linkVecs(0, [{ phys: frame(2), length: granule }], BOTH);
        if (then === "destroy") range.destroy();
        stand.flush();
        if (then !== "destroy") range.sync();
        if (then === "link" || then === "linkVecs") expectBytes(read(0), bytesOf(2), then);
        else expect(stand.reads(range.address)).toBe(false);
        expect(stand.reads(range.address + granule)).toBe(then !== "destroy");
      }
    });

    const large = 2 ** (format.layout().leafSizes.find((lg) => lg > format.layout().granuleLg) ?? 0);
    test("unlink takes the start, the middle or the end of a large leaf away, and only that", ({ skip }) => {
      skip(large === 1, "there are leaves of one size only");
      skip(large > 2 ** 13, `a large leaf is ${large / 256} MiB: too much to look at`);
      const stand = make();
      const { granule } = stand;
      const bytes = large * 4096;
      const phys = PhysAddr(Math.ceil(stand.block(2 * bytes) / bytes) * bytes);
      const range = stand.reserve(bytes);
      const count = bytes / granule;
      for (const [first, granules] of [
        [0, 1],
        [Math.floor(count / 2), 1],
        [count - 1, 1],
        [0, Math.ceil(count / 2)],
        [Math.floor(count / 2), Math.ceil(count / 2)],
        [0, count],
      ] as const) {
        const halves = [0, bytes / 2].map((at) => ({ phys: PhysAddr(phys + at), length: bytes / 2 }));
        if (first === 0 || count % 2 === 1) range.link(0, phys, bytes, BOTH);
        else range.linkVecs(0, halves, BOTH);
        if (way.noLazyUnlink === undefined || first === 0)
          // others link each half by itself
          expect(stand.domain!.table.translate((range.address / 4096) as never)!.leafPages).toBe(large);
        range.unlink(first * granule, granules * granule);
        expect(range.linkedPages).toBe(((count - granules) * granule) / 4096);
        for (let n = 0; n < count; n++) {
          const page = (range.address + n * granule) / 4096;
          const expected = n >= first && n < first + granules ? -1 : (phys + n * granule) / 4096;
          if (stand.domain!.table.lookup(page as never) !== expected) expect.fail(`granule ${n} of ${count}`);
        }
        if (first > 0) range.unlink(0, first * granule);
        if (first + granules < count) range.unlink((first + granules) * granule, (count - first - granules) * granule);
        expect([range.linkedPages, stand.leaves]).toEqual([0, []]);
      }
    });

    test("a range grows within what was reserved, and not past it", () => {
      const stand = make();
      const { granule } = stand;
      const memory = new Filled(stand, 4 * granule);
      const before = stand.state;
      const range = stand.reserve(granule, 0, 4 * granule);
      expect(outcome(() => range.link(granule, PhysAddr(memory.phys + granule), granule, BOTH))).toEqual([
        "ERR_DMA_LINK_RANGE",
        "EINVAL",
      ]);
      range.link(0, memory.phys, granule, BOTH);
      expect(range.grow(3 * granule)).toBe(true);
      range.link(granule, PhysAddr(memory.phys + granule), 2 * granule, BOTH);
      range.sync();
      expectBytes(stand.deviceRead(range.address, 3 * granule), memory.bytes.slice(0, 3 * granule));
      expect(range.grow(range.capacity + 1)).toBe(false);
      expect(range.length).toBe(3 * granule);
      range.destroy();
      expect(range.grow(granule)).toBe(false);
      stand.flush();
      expect(stand.state).toEqual(before);
    });

    test("a release is final: a second does nothing, and every use after it is refused", () => {
      const { stand, granule, before, range, frame } = stage(2);
      range.link(0, frame(0), granule, BOTH);
      range.sync();
      range.destroy();
      stand.flush();
      const counted = stand.counters.snapshot();
      range.destroy();
      range.free();
      range[Symbol.dispose]();
      range.flush();
      expect(stand.counters.snapshot()).toEqual(counted);
      for (const call of [
        () => range.link(0, frame(0), granule, BOTH),
        () => range.linkVecs(0, [{ phys: frame(0), length: granule }], BOTH),
        () => range.sync(),
        () => range.unlink(0, granule),
      ])
        expect(outcome(call)).toEqual(["ERR_DMA_RELEASED", "EINVAL"]);
      expect(stand.state).toEqual(before);
    });

    test("an unlink as something else than what was linked is refused, wherever in it", () => {
      const { stand, granule, range, frame } = stage(3);
      range.link(0, frame(0), granule, BOTH);
      range.link(granule, frame(1), granule, "to-device");
      const { state } = stand;
      if (way.noLazyUnlink === undefined) return; // a plain range keeps no record of how its granules were linked
      for (const direction of [BOTH, "to-device", "from-device"] as const)
        expect(outcome(() => range.unlink(0, 2 * granule, { direction }))).toEqual([
          "ERR_DMA_UNLINK_DIFFERS",
          "EINVAL",
        ]);
      expect(outcome(() => range.unlink(0, granule, { direction: BOTH, attributes: { mmio: true } }))).toEqual([
        "ERR_DMA_UNLINK_DIFFERS",
        "EINVAL",
      ]);
      expect(stand.state).toEqual(state);
      range.unlink(0, granule, { direction: BOTH });
      range.unlink(granule, granule, { direction: "to-device" });
    });

    test("a link that fails leaves the range as it was", () => {
      const { stand, granule, range, frame } = stage(4);
      range.link(2 * granule, frame(2), granule, BOTH);
      const before = stand.state;
      const { linkedPages } = range;
      const bad = way.bad(stand);
      const taken = ["ERR_DMA_MAP", format!.occupied === -98 ? "EADDRINUSE" : "EEXIST"];
      const answers: [() => void, unknown][] = [
        [() => range.link(3 * granule, frame(3), 2 * granule, BOTH), ["ERR_DMA_LINK_RANGE", "EINVAL"]],
        [() => range.link(-granule, frame(3), granule, BOTH), ["ERR_DMA_LINK_RANGE", "EINVAL"]],
        [() => range.link(granule, PhysAddr(frame(3) + 64), 64, BOTH), ["ERR_DMA_LINK_ALIGNMENT", "EIO"]],
        [() => range.link(0, PhysAddr(frame(3) + 64), 64, BOTH), ["ERR_DMA_LINK_ALIGNMENT", "ENXIO"]],
        [() => range.link(0, bad.phys, bad.length, BOTH), ["ERR_DMA_MAP", "ERANGE"]],
        [() => range.link(0, PhysAddr(-granule), granule, BOTH), ["ERR_DMA_ADDRESS", "EINVAL"]],
        [() => range.link(0, frame(0), granule, "none" as never), ["ERR_DMA_DIRECTION", "EINVAL"]],
        [() => range.link(2 * granule, frame(0), granule, BOTH), taken],
        [() => range.link(0, frame(0), 3 * granule, BOTH), taken],
        [
          () =>
            range.linkVecs(
              0,
              [0, 1, 3].map((n) => ({ phys: frame(n), length: granule })),
              BOTH,
            ),
          taken,
        ],
        [() => range.unlink(granule, 2 * granule), ["ERR_DMA_UNLINK_HOLE", "EINVAL"]],
        [() => range.destroy(granule), ["ERR_DMA_DESTROY", "EINVAL"]],
      ];
      for (const [call, answer] of answers) {
        expect(`${outcome(call)} by ${call}`).toBe(`${answer} by ${call}`);
        expect([stand.state, range.linkedPages]).toEqual([before, linkedPages]);
      }
    });

    test("equal a model of single granules, whatever is linked, unlinked, flushed and written", () => {
      const count = 6;
      const spot = fc.nat(count - 1);
      const step = fc.oneof(
        fc.record({
          do: fc.constant("link" as const),
          at: spot,
          frame: spot,
          granules: fc.integer({ min: 1, max: 3 }),
        }),
        fc.record({
          do: fc.constant("vecs" as const),
          at: spot,
          frames: fc.array(spot, { minLength: 1, maxLength: 3 }),
        }),
        fc.record({
          do: fc.constant("unlink" as const),
          at: spot,
          granules: fc.integer({ min: 1, max: 3 }),
          lazy: fc.boolean(),
        }),
        fc.record({ do: fc.constant("flush" as const) }),
        fc.record({ do: fc.constant("write" as const), at: spot, value: fc.nat(255) }),
      );
      forAll(fc.array(step, { minLength: 4, maxLength: 14 }), 4, (steps) => {
        const { stand, granule, memory, before, range, frame } = stage(count);
        /** Which frame every granule of the range reaches. */
        const model = new Array<number | undefined>(count).fill(undefined);
        const stale = new Set<number>();
        /** A frame is linked once at most: two copies of a bounced or cached one would be the caller's error. */
        const free = (at: number, frames: readonly number[]): boolean =>
          at + frames.length <= count &&
          frames.every(
            (n, i) => n < count && model[at + i] === undefined && !model.includes(n) && frames.indexOf(n) === i,
          );
        const put = (at: number, frames: readonly number[]): void => {
          frames.forEach((n, i) => {
            model[at + i] = n;
          });
          stale.clear();
        };
        for (const each of steps) {
          if (each.do === "link") {
            const frames = Array.from({ length: each.granules }, (_, i) => each.frame + i);
            if (!free(each.at, frames)) continue;
            range.link(each.at * granule, frame(each.frame), each.granules * granule, BOTH);
            put(each.at, frames);
          } else if (each.do === "vecs") {
            if (!free(each.at, each.frames)) continue;
            range.linkVecs(
              each.at * granule,
              each.frames.map((n) => ({ phys: frame(n), length: granule })),
              BOTH,
            );
            put(each.at, each.frames);
          } else if (each.do === "unlink") {
            const spots = Array.from({ length: each.granules }, (_, i) => each.at + i);
            const call = () => range.unlink(each.at * granule, each.granules * granule, { lazy: each.lazy });
            if (spots.some((n) => model[n] === undefined)) {
              expect(outcome(call)).not.toBe("ok");
              continue;
            }
            call();
            for (const n of spots) {
              model[n] = undefined;
              if (each.lazy && way.noLazyUnlink === undefined) stale.add(n);
            }
          } else if (each.do === "flush") {
            range.flush();
            stale.clear();
          } else if (model[each.at] !== undefined) {
            range.sync();
            const written = Uint8Array.of(each.value, each.value ^ 255);
            expect(stand.deviceWrite(range.address + each.at * granule, written)).toBe(true);
            memory.bytes.set(written, model[each.at]! * granule);
          }
          range.sync();
          model.forEach((linked, n) => {
            if (stale.has(n)) return;
            const seen = stand.deviceRead(range.address + n * granule, 16);
            if (linked === undefined) expect(seen).toBeUndefined();
            else expectBytes(seen, memory.bytes.slice(linked * granule, linked * granule + 16), `granule ${n}`);
          });
          expect(range.linkedPages).toBe((model.filter((n) => n !== undefined).length * granule) / 4096);
        }
        range.destroy();
        memory.check();
        stand.flush();
        expect(stand.state).toEqual(before);
      });
    });
  });
}
