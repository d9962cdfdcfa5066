/**
 * Every step that can fail, in every call, fails once: the state after is the state before, the error is the one that the
 * call names, and once the cause is gone the same call works and leaves nothing either.
 *
 * The state is everything that a call could leave: entries, address space, slots, cache lines, reachable pages, memory. Table
 * pages apart: tables that a failed call made stand in the tree, empty, for the next one; a domain gives all of them back.
 * Not in the state because they are no more than hints: that syncs may be needed (set by the first bounce), and that addresses
 * below 4 GiB have run out.
 */
import { describe, expect, test } from "vitest";
import { GiB, MiB, PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import type { DmaBatch, PhysVec } from "../../src/dma/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { outcome, pattern } from "../conformance/outcome.ts";
import { Stand, type StandOptions } from "./stand.ts";

const BOTH = "bidirectional";
type Answer = readonly [code: string, errno: string];

interface Operation {
  /** What stands before the call: a range, say. Part of the state before. */
  prepare?(stand: Stand): unknown;
  /** The call. What it returns takes everything back. */
  call(stand: Stand, prepared: never): () => void;
}

/** A large and unaligned block, so that many tables are needed, and two small ones. Shared, if the guest is confidential. */
const memory = new WeakMap<Stand, PhysVec[]>();
const pieces = (stand: Stand): PhysVec[] => {
  let list = memory.get(stand);
  if (!list) {
    const [large, small, ragged] = [stand.block(6 * MiB), stand.block(4096), stand.block(8192)];
    list = [
      { phys: PhysAddr(large + PAGE_SIZE), length: 5 * MiB },
      { phys: small, length: PAGE_SIZE },
      { phys: ragged, length: 5120 },
    ];
    memory.set(stand, list);
  }
  return list;
};
const sum = (list: readonly PhysVec[]): number => list.reduce((bytes, { length }) => bytes + length, 0);
/** The pieces, but small: for ways that copy. */
const small = (stand: Stand): PhysVec[] =>
  [0, 1, 2].map((n) => ({ phys: PhysAddr(pieces(stand)[0]!.phys + n * 2 * PAGE_SIZE + 0x200), length: 0x600 }));

const finished = (batch: DmaBatch, list: readonly PhysVec[]): (() => void) => {
  for (const vec of list) if (batch.add(vec) !== "ok") throw new Error("full");
  batch.finalize();
  return () => batch.unmap();
};

/** The calls over `list`. A failed link or batch ends with what its caller does then: nothing more. */
const callsOver = (of: (stand: Stand) => PhysVec[]): Readonly<Record<string, Operation>> => ({
  map: {
    call(stand) {
      const [{ phys, length }] = of(stand) as [PhysVec];
      const mapping = stand.dma.map(phys, length, BOTH);
      return () => mapping.unmap();
    },
  },
  mapScatterlist: {
    call(stand) {
      const mapping = stand.dma.mapScatterlist(of(stand), BOTH);
      return () => mapping.unmap();
    },
  },
  mapVecs: {
    call(stand) {
      const mapping = stand.dma.mapVecs(of(stand), BOTH);
      return () => mapping.unmap();
    },
  },
  batch: {
    call: (stand) => finished(stand.dma.batch(BOTH, { maxBytes: sum(of(stand)) + 3 * PAGE_SIZE }), of(stand)),
  },
});

const linkable: Readonly<Record<string, Operation>> = {
  mapLinear: {
    call(stand) {
      const mapping = stand.dma.mapLinear(pieces(stand), BOTH);
      return () => mapping.unmap();
    },
  },
  link: {
    prepare: (stand) => stand.reserve(5 * MiB, 0),
    call(stand, range: ReturnType<Stand["reserve"]>) {
      const [{ phys, length }] = pieces(stand) as [PhysVec];
      range.link(0, phys, length, BOTH);
      return () => range.unlink(0, length);
    },
  },
  linkVecs: {
    prepare: (stand) => stand.reserve(sum(pieces(stand))),
    call(stand, range: ReturnType<Stand["reserve"]>) {
      range.linkVecs(0, pieces(stand), BOTH);
      return () => range.unlink(0, sum(pieces(stand)));
    },
  },
};

const allocations: Readonly<Record<string, Operation>> = Object.fromEntries(
  (["allocCoherent", "allocPages", "allocNoncontiguous"] as const).map((name) => [
    name,
    {
      call({ dma }: Stand) {
        const got = name === "allocCoherent" ? dma.allocCoherent(5 * PAGE_SIZE) : dma[name](5 * PAGE_SIZE, BOTH);
        return () => got.free();
      },
    },
  ]),
);

/** Makes the n-th step of one kind fail; the returned function ends that. */
type Fault = (stand: Stand, n: number) => () => void;

const tables: Fault = ({ arena }, n) => {
  arena.failAt = n;
  return () => {
    arena.failAt = 0;
  };
};

/** `n - 1` granules of slots are left. */
const slots: Fault = ({ host, granule }, n) => {
  const pool = host.pool!;
  const taken: number[] = [];
  const limits = { minAlignMask: 0, segmentBoundaryMask: 2 ** 64 };
  const free = (n - 1) * granule;
  for (let left = pool.slots * 2048 - free; left > 0; left -= 262_144) {
    const length = Math.min(left, 262_144);
    taken.push(pool.map(PhysAddr(0x100_0000), length, 0, limits)!);
  }
  return () => {
    for (const address of taken) pool.unmap(PhysAddr(address), 1, "to-device", true);
  };
};

const addresses: Fault = ({ dma }, n) => {
  if (n > 1) return () => {};
  const { mask, coherentMask } = dma.device;
  dma.setMask(4095); // page 0 is never given out
  dma.setCoherentMask(4095);
  return () => {
    dma.setMask(mask);
    dma.setCoherentMask(coherentMask);
  };
};

const ram: Fault = ({ pages }, n) => {
  pages.failFrom = n;
  return () => {
    pages.failFrom = 0;
  };
};

/** Fails the first step, the second, … until the call gets through; how many there were. */
function failEach(options: StandOptions, operation: Operation, fault: Fault, answer: Answer): number {
  for (let n = 1; n < 50; n++) {
    const stand = new Stand(options);
    pieces(stand);
    const prepared = operation.prepare?.(stand) as never;
    const empty = stand.state;
    const end = fault(stand, n);
    const before = stand.state;
    let undo: (() => void) | undefined;
    const found = outcome(() => {
      undo = operation.call(stand, prepared);
    });
    if (found === "ok") {
      undo!();
      end();
      return n - 1;
    }
    expect([n, ...found]).toEqual([n, ...answer]);
    expect(stand.state).toEqual(before);
    end();
    // The cause is gone: the call works, and its end leaves nothing.
    operation.call(stand, prepared)();
    stand.flush();
    expect(stand.state).toEqual(empty);
    (prepared as { destroy?(): void } | undefined)?.destroy?.();
    stand.flush();
    stand.domain?.destroy();
    expect(stand.arena.framesInUse).toBe(0);
  }
  return Number.POSITIVE_INFINITY;
}

const layout = vtdSecondStage();
const WAYS: readonly [name: string, StandOptions][] = [
  ["strict", { layout }],
  ["lazy", { layout, mode: "lazy" }],
  ["non-coherent, lazy", { layout, mode: "lazy", coherent: false }],
  ["untrusted, lazy", { layout, mode: "lazy", untrusted: true }],
  ["untrusted, non-coherent", { layout, untrusted: true, coherent: false, minAlignMask: 0xfff }],
  ["confidential", { layout, confidential: "refused" }],
];

for (const [name, options] of WAYS)
  describe(`behind an IOMMU, ${name}`, () => {
    const isBounced = options.untrusted === true;
    const calls = isBounced ? callsOver(small) : { ...callsOver(pieces), ...linkable };

    for (const [call, operation] of Object.entries({ ...calls, ...allocations })) {
      test(`${call}: no memory for the n-th table`, () => {
        expect(failEach(options, operation, tables, ["ERR_DMA_MAP", "ENOMEM"])).toBeGreaterThan(0);
      });

      if (operation.prepare === undefined)
        test(`${call}: no address space`, () => {
          expect(failEach(options, operation, addresses, ["ERR_DMA_IOVA_EXHAUSTED", "ENOMEM"])).toBe(1);
        });
    }

    test("tryReserveIova: no address space: undefined, which is no error", () => {
      const stand = new Stand(options);
      const before = stand.state;
      const end = addresses(stand, 1);
      expect(stand.dma.tryReserveIova({ length: PAGE_SIZE })).toBeUndefined();
      end();
      expect(stand.state).toEqual(before);
      stand.reserve(PAGE_SIZE).destroy();
      expect(stand.state).toEqual(before);
    });

    for (const [call, operation] of Object.entries(allocations))
      test(`${call}: no memory for the n-th block`, () => {
        expect(failEach(options, operation, ram, ["ERR_DMA_NO_MEMORY", "ENOMEM"])).toBe(call === "allocPages" ? 1 : 2);
      });

    test("unlink of a part of a large leaf: no memory for the table of the rest", () => {
      const stand = new Stand(options);
      const range = stand.reserve(4 * MiB);
      const phys = PhysAddr(Math.ceil(stand.block(8 * MiB) / (2 * MiB)) * 2 * MiB);
      range.link(0, phys, 4 * MiB, BOTH);
      const before = [stand.state, range.linkedPages];
      stand.arena.failAt = 1;
      expect(outcome(() => range.unlink(PAGE_SIZE, PAGE_SIZE))).toEqual(["ERR_DMA_SPLIT", "ENOMEM"]);
      expect([stand.state, range.linkedPages]).toEqual(before);
      range.unlink(PAGE_SIZE, PAGE_SIZE);
      expect(range.linkedPages).toBe(1023);
      range.destroy();
      stand.flush();
      expect([stand.leaves, [...stand.ranges.live]]).toEqual([[], []]);
    });

    test("an address that no entry can hold, at any place of a list", () => {
      for (const [call, operation] of Object.entries({
        ...callsOver((stand) => [wide(stand), ...aligned(stand)]),
        "mapScatterlist, second": callsOver((stand) => [aligned(stand)[0]!, wide(stand)]).mapScatterlist!,
        "mapVecs, third": callsOver((stand) => [...aligned(stand), wide(stand)]).mapVecs!,
        "batch, third": callsOver((stand) => [...aligned(stand), wide(stand)]).batch!,
        mapLinear: {
          call(stand: Stand) {
            const mapping = stand.dma.mapLinear([...aligned(stand), wide(stand)], BOTH);
            return () => mapping.unmap();
          },
        } as Operation,
      })) {
        const stand = new Stand(options);
        pieces(stand);
        const before = stand.state;
        expect([call, outcome(() => operation.call(stand, undefined as never))]).toEqual([
          call,
          ["ERR_DMA_MAP", "ERANGE"],
        ]);
        expect([call, stand.state]).toEqual([call, before]);
      }
    });
  });

const wide = ({ granule }: Stand): PhysVec => ({ phys: PhysAddr(2 ** 52), length: granule });
const aligned = (stand: Stand): PhysVec[] => {
  const [{ phys }] = pieces(stand) as [PhysVec];
  return [0, 2].map((n) => ({ phys: PhysAddr(phys + n * PAGE_SIZE), length: PAGE_SIZE }));
};

describe("more than there are addresses", () => {
  const length = 2 ** 52;
  test("is no room for it, like any other", () => {
    const { dma } = new Stand({ layout });
    const before = dma.counters.snapshot();
    const list = [{ phys: PhysAddr(0), length }];
    for (const call of [
      () => dma.map(PhysAddr(0), length, BOTH),
      () => dma.mapScatterlist(list, BOTH),
      () => dma.mapVecs(list, BOTH),
      () => dma.mapLinear(list, BOTH),
      () => dma.batch(BOTH, { maxBytes: length }),
    ])
      expect([outcome(call), String(call)]).toEqual([["ERR_DMA_IOVA_EXHAUSTED", "ENOMEM"], String(call)]);
    expect(dma.tryReserveIova({ length })).toBeUndefined();
    expect(dma.tryReserveIova({ length: PAGE_SIZE, capacity: length })).toBeUndefined();
    expect(dma.counters).toEqual(before);
  });
});

describe("bounce buffers run out", () => {
  const POOL = { slots: 128 };
  for (const [name, options] of [
    ["untrusted", { layout, untrusted: true, ...POOL }],
    ["untrusted, lazy", { layout, mode: "lazy", untrusted: true, ...POOL }],
    ["untrusted, non-coherent", { layout, untrusted: true, coherent: false, ...POOL }],
    ["direct", { forceBounce: true, ...POOL }],
    ["direct, non-coherent", { forceBounce: true, coherent: false, ...POOL }],
  ] as const)
    for (const [call, operation] of Object.entries(callsOver(small)))
      test(`${name}, ${call}: at the n-th piece`, () => {
        const steps = failEach(options, operation, slots, ["ERR_DMA_BOUNCE_FULL", "ENOMEM"]);
        expect(steps).toBe(call === "map" ? 1 : name.startsWith("direct") ? 2 : 3);
      });

  test("a link: at its head, and at its tail when its head and middle stand", () => {
    const both: Operation = {
      prepare: (stand) => stand.reserve(3 * PAGE_SIZE, 0x800),
      call(stand, range: ReturnType<Stand["reserve"]>) {
        const { phys } = pieces(stand)[0]!;
        const { linkedPages, hasBounced } = range;
        try {
          range.link(0, PhysAddr(phys + 0x800), 2 * PAGE_SIZE, BOTH);
        } catch (error) {
          expect([range.linkedPages, range.hasBounced]).toEqual([linkedPages, hasBounced]);
          throw error;
        }
        return () => range.unlink(0, 2 * PAGE_SIZE);
      },
    };
    for (const coherent of [true, false])
      expect(
        failEach({ layout, untrusted: true, coherent, ...POOL }, both, slots, ["ERR_DMA_BOUNCE_FULL", "ENOMEM"]),
      ).toBe(2);
  });

  test("on a machine that has none", () => {
    for (const options of [
      { layout, untrusted: true, slots: 0 },
      { forceBounce: true, slots: 0 },
    ])
      for (const [call, operation] of Object.entries(callsOver(small))) {
        const stand = new Stand(options);
        pieces(stand);
        const before = stand.state;
        expect([call, outcome(() => operation.call(stand, undefined as never))]).toEqual([
          call,
          ["ERR_DMA_BOUNCE_NONE", "ENOMEM"],
        ]);
        expect(stand.state).toEqual(before);
      }
  });

  test("where a slot may not be used: device memory, and where coherence is required", () => {
    for (const options of [{ layout, untrusted: true }, { forceBounce: true }])
      for (const attributes of [{ requireCoherent: true }, ...("layout" in options ? [] : [{ mmio: true }])]) {
        const stand = new Stand(options);
        const [piece] = small(stand) as [PhysVec];
        const before = stand.state;
        expect(outcome(() => stand.dma.map(piece.phys, piece.length, BOTH, attributes))).toEqual([
          "ERR_DMA_BOUNCE_FORBIDDEN",
          "EPERM",
        ]);
        expect(outcome(() => stand.dma.mapScatterlist(small(stand), BOTH, attributes))[1]).toBe("EPERM");
        expect(stand.state).toEqual(before);
      }
  });
});

describe("memory out of the device's reach, without an IOMMU", () => {
  const options = { mask: 4 * GiB - 1, memoryBytes: 8 * GiB, slots: 0 } as const;
  const high = (): PhysVec => ({ phys: PhysAddr(5 * GiB), length: PAGE_SIZE });
  for (const coherent of [true, false])
    for (const [call, operation] of Object.entries(callsOver((stand) => [...small(stand), high()])))
      if (call !== "map")
        test(`${call}: its last piece${coherent ? "" : ", non-coherent"}`, () => {
          const stand = new Stand({ ...options, coherent });
          pieces(stand);
          const before = stand.state;
          expect(outcome(() => operation.call(stand, undefined as never))).toEqual(["ERR_DMA_REACH", "EIO"]);
          expect(stand.state).toEqual(before);
          expect(stand.caches.pending).toBe(0);
        });

  test("a slot that is out of reach too is given back", () => {
    const stand = new Stand({ mask: 0xffff, forceBounce: true });
    const [piece] = small(stand) as [PhysVec];
    const before = stand.state;
    expect(outcome(() => stand.dma.map(piece.phys, piece.length, BOTH))).toEqual(["ERR_DMA_REACH", "EIO"]);
    expect(stand.state).toEqual(before);
  });

  for (const [call, operation] of Object.entries(allocations))
    test(`${call}: no memory`, () => {
      expect(failEach({ slots: 0 }, operation, ram, ["ERR_DMA_NO_MEMORY", "ENOMEM"])).toBe(1);
    });

  test("a mask that is too narrow is refused, and the old one stays", () => {
    const { dma } = new Stand({ mask: 8 * GiB - 1 });
    expect(outcome(() => dma.setMask(MiB - 1))).toEqual(["ERR_DMA_MASK", "EIO"]);
    expect(outcome(() => dma.setCoherentMask(MiB - 1))).toEqual(["ERR_DMA_MASK", "EIO"]);
    expect([dma.device.mask, dma.device.coherentMask]).toEqual([8 * GiB - 1, 8 * GiB - 1]);
    expect(outcome(() => dma.setSegmentBoundary(0x1234))).toEqual(["ERR_DMA_LIMIT", "EINVAL"]);
  });
});

describe("peers that cannot be reached", () => {
  for (const [name, options] of [
    ["direct", {}],
    ["direct, non-coherent", { coherent: false }],
    ["translated", { layout }],
    ["translated, non-coherent, lazy", { layout, coherent: false, mode: "lazy" }],
  ] as const) {
    const build = (): Stand => {
      const stand = new Stand(options);
      const [owner] = stand.machine.tree.plug("0.1", 1); // below another root port of a processor that does not route
      stand.host.peers.add(owner!, { index: 0, phys: PhysAddr(2 ** 40), length: MiB, busAddress: 2 ** 40 });
      pieces(stand);
      return stand;
    };
    const peer: PhysVec = { phys: PhysAddr(2 ** 40), length: PAGE_SIZE };
    const all: Readonly<Record<string, Operation>> = {
      ...callsOver((stand) => [...aligned(stand), peer]),
      mapLinear: {
        call(stand: Stand) {
          const mapping = stand.dma.mapLinear([...aligned(stand), peer], BOTH);
          return () => mapping.unmap();
        },
      },
    };
    for (const [call, operation] of Object.entries(all))
      if (call !== "map")
        test(`${name}, ${call}: EREMOTEIO, though the pieces before it are memory`, () => {
          const stand = build();
          const before = stand.state;
          expect(outcome(() => operation.call(stand, undefined as never))).toEqual(["ERR_DMA_PEER", "EREMOTEIO"]);
          expect(stand.state).toEqual(before);
        });
  }
});

describe("a conversion that fails", () => {
  const conversions: Fault = ({ reach }, n) => {
    reach!.failAt = n;
    return () => {
      reach!.failAt = 0;
    };
  };
  for (const [name, options] of [
    ["translated", { layout, confidential: "refused" }],
    ["direct", { confidential: "refused" }],
  ] as const)
    for (const [call, operation] of Object.entries(allocations)) {
      test(`${name}, ${call}: no memory, and the pages that are neither private nor shared now are never used again`, () => {
        const stand = new Stand(options);
        const before = stand.state;
        const end = conversions(stand, 1);
        expect(outcome(() => operation.call(stand, undefined as never))).toEqual(["ERR_DMA_NO_MEMORY", "ENOMEM"]);
        end();
        const lost = Number(stand.state["pages of RAM"]) - Number(before["pages of RAM"]);
        expect([1, 4, 5]).toContain(lost);
        expect({ ...stand.state, "pages of RAM": 0 }).toEqual({ ...before, "pages of RAM": 0 });
        operation.call(stand, undefined as never)();
        expect({ ...stand.state, "pages of RAM": 0 }).toEqual({ ...before, "pages of RAM": 0 });
      });

      test(`${name}, ${call}: at its end, which cannot fail: the pages stay shared and are never used again`, () => {
        const stand = new Stand(options);
        const before = stand.state;
        const free = operation.call(stand, undefined as never);
        const end = conversions(stand, 1);
        free();
        end();
        expect(Number(stand.state["pages of RAM"])).toBeGreaterThan(Number(before["pages of RAM"]));
        expect([stand.leaves, [...stand.ranges.live]]).toEqual([[], []]);
      });
    }
});

describe("linearising", () => {
  const call =
    (stand: Stand): (() => unknown) =>
    () =>
      stand.dma.mapLinear(small(stand), BOTH, undefined, { allowBounce: true });

  for (const [name, options] of [
    ["direct", {}],
    ["translated, lazy", { layout, mode: "lazy" }],
    ["translated, non-coherent", { layout, coherent: false }],
    ["confidential", { layout, confidential: "refused" }],
  ] as const) {
    test(`${name}: every step that can fail`, () => {
      const operation: Operation = {
        call(stand) {
          const mapping = stand.dma.mapLinear(small(stand), BOTH, undefined, { allowBounce: true });
          return () => mapping.unmap();
        },
      };
      expect(failEach(options, operation, ram, ["ERR_DMA_NO_MEMORY", "ENOMEM"])).toBe(1);
      if (!("layout" in options)) return;
      expect(failEach(options, operation, tables, ["ERR_DMA_MAP", "ENOMEM"])).toBeGreaterThan(0);
      expect(failEach(options, operation, addresses, ["ERR_DMA_IOVA_EXHAUSTED", "ENOMEM"])).toBe(1);
    });

    test(`${name}: too much to copy, or too long for the device`, () => {
      const stand = new Stand(options);
      const [{ phys }] = pieces(stand) as [PhysVec];
      const before = stand.state;
      const list = [
        { phys, length: 262_144 },
        { phys: PhysAddr(phys + 300_000), length: 100 },
      ];
      expect(outcome(() => stand.dma.mapLinear(list, BOTH, undefined, { allowBounce: true }))).toEqual([
        "ERR_DMA_LINEAR",
        "EINVAL",
      ]);
      const long = [{ phys, length: 65_537 }];
      expect(outcome(() => stand.dma.mapLinear(long, BOTH, undefined, { withinSegment: true }))).toEqual([
        "ERR_DMA_LINEAR",
        "EINVAL",
      ]);
      expect(stand.state).toEqual(before);
    });
  }

  test("a copy that the CPU still sees as it was, after a failure", () => {
    const stand = new Stand({ layout });
    const [first] = small(stand) as [PhysVec];
    stand.cpuWrite(first.phys, pattern(first.length));
    stand.arena.failAt = 1;
    expect(outcome(call(stand))).toEqual(["ERR_DMA_MAP", "ENOMEM"]);
    expect(stand.cpuRead(first.phys, first.length)).toEqual(pattern(first.length));
  });
});
