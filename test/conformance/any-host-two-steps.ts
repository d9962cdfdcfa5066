/** What reserve, link, sync, unlink and destroy promise on any host that translates. */
import { deepEqual, equal, notEqual, ok } from "node:assert/strict";
import type { IovaRange } from "../../src/dma/index.ts";
import type { Case, Memory, Stage } from "./any-host.ts";
import { outcome, pattern } from "./outcome.ts";

const BOTH = "bidirectional" as const;

/** A range of `count` granules, and memory for them. */
function ready(stage: Stage, count: number, physOffset = 0) {
  const { dma, granule } = stage;
  const memory = stage.memory(count * granule);
  const range = dma.tryReserveIova({ length: count * granule - physOffset, physOffset })!;
  return { dma, granule, memory, range, frame: (n: number) => memory.at(n * granule) };
}

/** Every granule of the range reaches the frame that it should; -1: none. */
function reaches(stage: Stage, range: IovaRange, memory: Memory, frames: readonly number[]): void {
  const { granule } = stage;
  deepEqual(
    frames.map((_, n) => stage.reached(range.address + n * granule)),
    frames.map((n) => (n < 0 ? -1 : memory.at(n * granule))),
    "frames",
  );
}

const translated: readonly Case[] = [
  {
    name: "a range reaches nothing before the first link, and nothing in a hole",
    async run(stage) {
      const { granule, memory, range, frame } = ready(stage, 3);
      reaches(stage, range, memory, [-1, -1, -1]);
      range.link(0, frame(2), granule, BOTH);
      range.link(2 * granule, frame(0), granule, BOTH);
      range.sync();
      reaches(stage, range, memory, [2, -1, 0]);
      await stage.reads(range.address, memory.bytes.slice(2 * granule, 2 * granule + 64));
      await stage.outOfReach(range.address + granule, memory, granule);
      range.destroy();
    },
  },
  {
    name: "links in any order, ragged at both ends, are one run for the device",
    async run(stage) {
      const inside = 320;
      for (const order of [
        [0, 1, 2, 3],
        [3, 1, 0, 2],
      ]) {
        const { granule, memory, range, frame } = ready(stage, 4, inside);
        const length = 4 * granule - inside - 192;
        const places = [0, 3, 1, 2]; // which frame each granule reaches
        for (const n of order) {
          const start = n === 0 ? 0 : n * granule - inside;
          const end = n === 3 ? length : (n + 1) * granule - inside;
          range.link(start, (frame(places[n]!) + (n === 0 ? inside : 0)) as never, end - start, BOTH);
        }
        range.sync();
        // The first bytes, and those across the last edge.
        await stage.reads(range.address, memory.bytes.slice(inside, inside + 32));
        const edge = 3 * granule - inside;
        const across = [
          ...memory.bytes.slice(2 * granule - 16, 2 * granule),
          ...memory.bytes.slice(2 * granule, 2 * granule + 16),
        ];
        await stage.reads(range.address + edge - 16, Uint8Array.from(across));
        const written = pattern(48, 5);
        await stage.writes(range.address + granule - inside - 24, written);
        memory.bytes.set(written.subarray(0, 24), granule - 24);
        memory.bytes.set(written.subarray(24), 3 * granule);
        const last = Uint8Array.of(42);
        await stage.writes(range.address + length - 1, last);
        memory.bytes.set(last, 3 * granule - 192 - 1);
        range.destroy();
        memory.check();
      }
    },
  },
  {
    name: "linkVecs is the same as one link each",
    run(stage) {
      const { granule, memory, range, frame } = ready(stage, 6);
      const order = [5, 1, 2, 0, 4, 3];
      range.linkVecs(
        0,
        order.map((n) => ({ phys: frame(n), length: granule })),
        BOTH,
      );
      range.sync();
      reaches(stage, range, memory, order);
      equal(range.linkedPages, (6 * granule) / 4096);
      range.destroy(6 * granule);
    },
  },
  {
    name: "unlink takes a piece away at once, and only it; what is linked there next is reached",
    async run(stage) {
      const { granule, memory, range, frame } = ready(stage, 4);
      for (const n of [0, 1, 2]) range.link(n * granule, frame(2 - n), granule, BOTH); // no two go on from each other
      range.sync();
      await stage.reads(range.address + granule, memory.bytes.slice(granule, granule + 16)); // known to the IOMMU now
      range.unlink(granule, granule);
      reaches(stage, range, memory, [2, -1, 0]);
      await stage.outOfReach(range.address + granule, memory, granule);
      await stage.reads(range.address + 2 * granule, memory.bytes.slice(0, 16));
      range.link(granule, frame(3), granule, BOTH);
      range.sync(granule, granule);
      await stage.reads(range.address + granule, memory.bytes.slice(3 * granule, 3 * granule + 16));
      range.destroy();
      memory.check();
    },
  },
  {
    name: "a link does only what its direction says",
    async run(stage) {
      const { granule, memory, range, frame } = ready(stage, 2);
      range.link(0, frame(0), granule, "to-device");
      range.link(granule, frame(1), granule, BOTH);
      range.sync();
      const written = pattern(16, 7);
      await stage.writes(range.address, written);
      await stage.writes(range.address + granule, written);
      memory.bytes.set(written, granule);
      range.destroy();
      memory.check();
    },
  },
  {
    name: "a part of one link is unlinked, and only that",
    needs: ["splits"],
    run(stage) {
      const { granule, memory, range, frame } = ready(stage, 3);
      range.link(0, frame(0), 3 * granule, BOTH);
      range.sync();
      range.unlink(granule, granule);
      reaches(stage, range, memory, [0, -1, 2]);
      range.destroy();
    },
  },
  {
    name: "a part of one link is not unlinked: it is refused, and all of it stays",
    lacks: "splits",
    async run(stage) {
      const { granule, memory, range, frame } = ready(stage, 3);
      range.link(0, frame(0), 3 * granule, BOTH);
      range.sync();
      const before = stage.host.state();
      for (const [at, count] of [
        [0, 1],
        [1, 1],
        [1, 2],
      ] as const)
        for (const lazy of [false, true])
          deepEqual(
            outcome(() => range.unlink(at * granule, count * granule, { lazy })),
            ["ERR_DMA_SPLIT", "EOPNOTSUPP"],
          );
      deepEqual(stage.host.state(), before);
      reaches(stage, range, memory, [0, 1, 2]);
      await stage.reads(range.address + granule, memory.bytes.slice(granule, granule + 16));
      range.unlink(0, 3 * granule);
      reaches(stage, range, memory, [-1, -1, -1]);
      range.destroy();
    },
  },
  {
    name: "after a lazy unlink and a flush, a link or the end, nothing is reached; neighbours are until the end",
    async run(stage) {
      for (const then of ["flush", "link", "destroy"] as const) {
        const { granule, memory, range, frame } = ready(stage, 3);
        for (const n of [0, 1]) range.link(n * granule, frame(1 - n), granule, BOTH);
        range.sync();
        await stage.reads(range.address, memory.bytes.slice(granule, granule + 16));
        range.unlink(0, granule, { lazy: true });
        if (then === "flush") range.flush();
        if (then === "link") range.link(2 * granule, frame(2), granule, BOTH);
        if (then === "destroy") range.destroy();
        else range.sync();
        stage.host.settle();
        await stage.outOfReach(range.address, memory, granule);
        reaches(stage, range, memory, [-1, then === "destroy" ? -1 : 0, then === "link" ? 2 : -1]);
        range.destroy();
      }
    },
  },
  {
    name: "any number of lazy unlinks is one invalidation",
    needs: ["lazy"],
    run(stage) {
      const { dma, granule, range, frame } = ready(stage, 3);
      for (const n of [0, 1, 2]) range.link(n * granule, frame(n), granule, BOTH);
      range.sync();
      const before = dma.counters.invalidations;
      for (const n of [0, 1, 2]) range.unlink(n * granule, granule, { lazy: true });
      equal(dma.counters.invalidations - before, 0);
      range.flush();
      equal(dma.counters.invalidations - before, 1);
      range.destroy();
    },
  },
  {
    name: "a lazy unlink takes effect at once",
    lacks: "lazy",
    async run(stage) {
      const { granule, memory, range, frame } = ready(stage, 2);
      for (const n of [0, 1]) range.link(n * granule, frame(1 - n), granule, BOTH);
      range.sync();
      range.unlink(0, granule, { lazy: true });
      await stage.outOfReach(range.address, memory, granule);
      range.destroy();
    },
  },
  {
    name: "a range grows within what was reserved, and not past it",
    async run(stage) {
      const { dma, granule } = stage;
      const memory = stage.memory(3 * granule);
      const range = dma.tryReserveIova({ length: granule, capacity: 4 * granule })!;
      deepEqual(
        outcome(() => range.link(granule, memory.at(granule), granule, BOTH)),
        ["ERR_DMA_LINK_RANGE", "EINVAL"],
      );
      range.link(0, memory.phys, granule, BOTH);
      equal(range.grow(3 * granule), true);
      range.link(granule, memory.at(granule), 2 * granule, BOTH);
      range.sync();
      await stage.reads(range.address + 3 * granule - 16, memory.bytes.slice(3 * granule - 16));
      equal(range.grow(range.capacity + 1), false);
      equal(range.length, 3 * granule);
      range.destroy();
      equal(range.grow(granule), false);
    },
  },
  {
    name: "a release is final: a second does nothing, and every use after it is refused",
    run(stage) {
      const { dma, granule, range, frame } = ready(stage, 2);
      range.link(0, frame(0), granule, BOTH);
      range.sync();
      range.destroy();
      stage.host.settle();
      const after = [stage.host.state(), dma.counters.snapshot()];
      range.destroy();
      range.free();
      range.flush();
      range[Symbol.dispose]();
      deepEqual([stage.host.state(), dma.counters.snapshot()], after);
      for (const call of [
        () => range.link(0, frame(0), granule, BOTH),
        () => range.linkVecs(0, [{ phys: frame(0), length: granule }], BOTH),
        () => range.sync(),
        () => range.unlink(0, granule),
      ])
        deepEqual(outcome(call), ["ERR_DMA_RELEASED", "EINVAL"], `${call}`);
    },
  },
  {
    name: "a range that was never linked is freed",
    run: (stage) => ready(stage, 5).range.free(),
  },
  {
    name: "a call that fails leaves the range as it was",
    run(stage) {
      const { granule, memory, range, frame } = ready(stage, 4);
      range.link(2 * granule, frame(2), granule, BOTH);
      range.sync();
      const before = stage.host.state();
      const { linkedPages } = range;
      const taken = ["ERR_DMA_MAP", "EADDRINUSE"];
      const pieces = [0, 1, 3].map((n) => ({ phys: frame(n), length: granule }));
      for (const [call, wanted] of [
        [() => range.link(3 * granule, frame(3), 2 * granule, BOTH), ["ERR_DMA_LINK_RANGE", "EINVAL"]],
        [() => range.link(-granule, frame(3), granule, BOTH), ["ERR_DMA_LINK_RANGE", "EINVAL"]],
        [() => range.link(0, frame(3), 0, BOTH), ["ERR_DMA_LINK_RANGE", "EINVAL"]],
        [() => range.link(granule, memory.at(64), 64, BOTH), ["ERR_DMA_LINK_ALIGNMENT", "EIO"]],
        [() => range.link(0, memory.at(64), 64, BOTH), ["ERR_DMA_LINK_ALIGNMENT", "ENXIO"]],
        [() => range.link(0, -granule as never, granule, BOTH), ["ERR_DMA_ADDRESS", "EINVAL"]],
        [() => range.link(0, frame(0), granule, "none" as never), ["ERR_DMA_DIRECTION", "EINVAL"]],
        [() => range.link(2 * granule, frame(0), granule, BOTH), taken],
        [() => range.link(0, frame(0), 3 * granule, BOTH), taken],
        [() => range.linkVecs(0, pieces, BOTH), taken],
        [() => range.unlink(granule, 2 * granule), ["ERR_DMA_UNLINK_HOLE", "EINVAL"]],
        [() => range.unlink(0, granule, { lazy: true }), ["ERR_DMA_UNLINK_HOLE", "EINVAL"]],
        [() => range.destroy(granule), ["ERR_DMA_DESTROY", "EINVAL"]],
      ] as const) {
        deepEqual(outcome(call), wanted, `${call}`);
        deepEqual([stage.host.state(), range.linkedPages], [before, linkedPages], `${call}`);
      }
      reaches(stage, range, memory, [-1, -1, 2, -1]);
      range.destroy();
    },
  },
  {
    name: "memory that cannot be mapped fails its link, or its sync, and nothing else",
    async run(stage) {
      const { granule, memory, range, frame } = ready(stage, 3);
      range.link(0, frame(0), granule, BOTH);
      range.sync();
      const before = stage.host.state();
      const bad = { phys: (2 ** stage.dma.domain!.outputBits) as never, length: granule };
      for (const call of [
        () => range.link(granule, bad.phys, granule, BOTH),
        () => range.linkVecs(granule, [{ phys: frame(1), length: granule }, bad], BOTH),
      ]) {
        const refused = outcome(() => {
          call();
          range.sync();
        });
        notEqual(refused, "ok", `${call}`);
        deepEqual(stage.host.state(), before, `${call}`);
      }
      reaches(stage, range, memory, [0, -1, -1]);
      await stage.reads(range.address, memory.bytes.slice(0, 16));
      range.destroy();
    },
  },
  {
    name: "an object that was given back serves again, and nothing of its first life shows; one in use is left alone",
    run(stage) {
      const { dma, granule, memory, range: first, frame } = ready(stage, 3);
      first.link(0, frame(0), granule, BOTH);
      first.link(granule, frame(1), 2 * granule, "to-device");
      first.sync();
      const other = dma.tryReserveIova({ length: granule, reuse: first })!;
      ok(other !== first, "in use");
      first.unlink(0, granule, { lazy: true });
      first.destroy();
      const again = dma.tryReserveIova({ length: 2 * granule, reuse: first })!;
      const { coherent, untrusted, machine } = dma.device;
      equal(
        again === first,
        coherent && !untrusted && machine.encryption === undefined,
        "the same object, for a plain device",
      );
      deepEqual([again.length, again.linkedPages], [2 * granule, 0]);
      reaches(stage, again, memory, [-1, -1]);
      again.link(granule, frame(2), granule, BOTH);
      again.sync();
      reaches(stage, again, memory, [-1, 2]);
      again.destroy();
      other.destroy();
    },
  },
];

export const twoStepCases: readonly Case[] = translated.map((each) => ({
  ...each,
  needs: ["translation", ...(each.needs ?? [])],
}));
