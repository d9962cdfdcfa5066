/**
 * What every path costs, row by row of the specification's cost matrix, for any number of inputs: exact counts.
 *
 * IA: address ranges allocated. PTW: leaves written, with the tables that hold them apart. MSYNC: map syncs. INV:
 * invalidations at the end; in lazy mode entries of the flush queue instead. CMO and CMOB: maintenance of cache lines, and
 * barriers. BC: bytes copied through bounce buffers. Lookups: walks of the table by software.
 */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import type { PhysVec } from "../../src/dma/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { Stand, type StandOptions } from "./stand.ts";

const layout = vtdSecondStage();
const BOTH = "bidirectional";
const COUNTS = [1, 2, 7, 64] as const;
const MODES = ["strict", "lazy"] as const;

/** Pages that are apart in memory: no two inputs are ever merged. */
const pages = (n: number): PhysVec[] =>
  Array.from({ length: n }, (_, i) => ({ phys: PhysAddr(0x1000_0000 + i * 2 * PAGE_SIZE), length: PAGE_SIZE }));
/** The same, but each fills only the middle half of its page. */
const ragged = (n: number): PhysVec[] => pages(n).map(({ phys }) => ({ phys: PhysAddr(phys + 0x400), length: 0x800 }));

interface Cost {
  IA?: number;
  PTW?: number;
  MSYNC?: number;
  INV?: number;
  queued?: number;
  CMO?: number;
  CMOB?: number;
  BC?: number;
  lookups?: number;
}

const unmapAll = (mappings: readonly { unmap(): void }[]): void => {
  for (const mapping of mappings) mapping.unmap();
};

/** What each step counted. A count that a row does not name is 0. */
function costs(options: Partial<StandOptions>) {
  let lookups = 0;
  const stand = new Stand({ ...options, observer: { lookedUp: () => void lookups++ } });
  const cost = (step: () => void): Required<Cost> => {
    const before = stand.counters.snapshot();
    lookups = 0;
    step();
    const c = stand.counters.since(before);
    return {
      IA: c.iovaAllocations,
      PTW: c.leavesWritten + c.leavesCleared,
      MSYNC: c.mapSyncs,
      INV: c.invalidations,
      queued: c.flushQueueEntries,
      CMO: c.cacheOperations,
      CMOB: c.cacheBarriers,
      BC: c.bouncedBytes,
      lookups,
    };
  };
  return { stand, cost };
}
const cost = (counted: Cost): Required<Cost> => ({
  ...{ IA: 0, PTW: 0, MSYNC: 0, INV: 0, queued: 0, CMO: 0, CMOB: 0, BC: 0, lookups: 0 },
  ...counted,
});
/** The end of `times` mappings, in either mode. */
const ends = (mode: "strict" | "lazy", times: number): Cost => (mode === "strict" ? { INV: times } : { queued: times });

describe.each(COUNTS)("%i inputs", (n) => {
  describe("direct", () => {
    test("coherent: nothing at all, whatever the call", () => {
      const { stand, cost: measured } = costs({});
      const { dma } = stand;
      expect(
        measured(() => {
          for (const { phys, length } of pages(n)) dma.map(phys, length, BOTH).unmap();
          dma.mapScatterlist(pages(n), BOTH).unmap();
          dma.mapVecs(pages(n), BOTH).unmap();
          const batch = dma.batch(BOTH, { maxBytes: n * PAGE_SIZE });
          for (const vec of pages(n)) batch.add(vec);
          batch.finalize();
          batch.unmap();
        }),
      ).toEqual(cost({}));
    });

    test("non-coherent, one shot: a range and a barrier each", () => {
      const { stand, cost: measured } = costs({ coherent: false });
      const mappings = () => pages(n).map(({ phys, length }) => stand.dma.map(phys, length, BOTH));
      let live: ReturnType<typeof mappings> = [];
      expect(
        measured(() => {
          live = mappings();
        }),
      ).toEqual(cost({ CMO: n, CMOB: n }));
      expect(measured(() => unmapAll(live))).toEqual(cost({ CMO: n, CMOB: n }));
    });

    test("non-coherent scatterlist: a range each, one barrier", () => {
      const { stand, cost: measured } = costs({ coherent: false });
      expect(measured(() => void stand.dma.mapScatterlist(pages(n), BOTH))).toEqual(cost({ CMO: n, CMOB: 1 }));
    });

    test.each([
      ["to-device", 1],
      ["from-device", 2],
      [BOTH, 2],
    ] as const)(
      "bounced, %s: every byte is copied in, and out again if the device may have written: %i times",
      (direction, times) => {
        const { stand, cost: measured } = costs({ forceBounce: true });
        const bytes = n * 0x800;
        let live: { unmap(): void }[] = [];
        expect(
          measured(() => {
            live = ragged(n).map(({ phys, length }) => stand.dma.map(phys, length, direction));
          }),
        ).toEqual(cost({ BC: bytes }));
        expect(measured(() => unmapAll(live))).toEqual(cost({ BC: (times - 1) * bytes }));
      },
    );
  });

  describe.each(MODES)("behind an IOMMU, %s", (mode) => {
    test("one shot: everything n times", () => {
      const { stand, cost: measured } = costs({ layout, mode });
      let live: { unmap(): void }[] = [];
      expect(
        measured(() => {
          live = pages(n).map(({ phys, length }) => stand.dma.map(phys, length, BOTH));
        }),
      ).toEqual(cost({ IA: n, PTW: n, MSYNC: n }));
      expect(measured(() => unmapAll(live))).toEqual(cost({ PTW: n, ...ends(mode, n), lookups: n }));
    });

    test("one shot, non-coherent: maintenance n times too", () => {
      const { stand, cost: measured } = costs({ layout, mode, coherent: false });
      const all = measured(() => {
        for (const { phys, length } of pages(n)) stand.dma.map(phys, length, BOTH);
      });
      expect(all).toEqual(cost({ IA: n, PTW: n, MSYNC: n, CMO: n, CMOB: n }));
    });

    test("one shot, bounced: the whole buffer is copied", () => {
      const { stand, cost: measured } = costs({ layout, mode, untrusted: true });
      let live: { unmap(): void }[] = [];
      const bytes = n * (PAGE_SIZE + 0x800);
      expect(
        measured(() => {
          live = pages(n).map(({ phys }) => stand.dma.map(phys, PAGE_SIZE + 0x800, BOTH));
        }),
      ).toEqual(cost({ IA: n, PTW: 2 * n, MSYNC: n, BC: bytes }));
      expect(measured(() => unmapAll(live))).toEqual(cost({ PTW: 2 * n, ...ends(mode, n), BC: bytes, lookups: n }));
    });

    test("scatterlist: one range, one sync, one end", () => {
      const { stand, cost: measured } = costs({ layout, mode });
      let live: { unmap(): void } | undefined;
      expect(
        measured(() => {
          live = stand.dma.mapScatterlist(pages(n), BOTH);
        }),
      ).toEqual(cost({ IA: 1, PTW: n, MSYNC: 1 }));
      expect(measured(() => live!.unmap())).toEqual(cost({ PTW: n, ...ends(mode, 1) }));
    });

    test("scatterlist, non-coherent: n ranges, one barrier, each way", () => {
      const { stand, cost: measured } = costs({ layout, mode, coherent: false });
      let live: { unmap(): void } | undefined;
      expect(
        measured(() => {
          live = stand.dma.mapScatterlist(pages(n), BOTH);
        }),
      ).toEqual(cost({ IA: 1, PTW: n, MSYNC: 1, CMO: n, CMOB: 1 }));
      expect(measured(() => live!.unmap())).toEqual(cost({ PTW: n, ...ends(mode, 1), CMO: n, CMOB: 1 }));
    });

    test("scatterlist, bounced: as one shot; unaligned entries are copied whole, aligned ones not at all", () => {
      const { stand, cost: measured } = costs({ layout, mode, untrusted: true });
      const list = [...ragged(n), { phys: PhysAddr(0x2000_0000), length: PAGE_SIZE }];
      let live: { unmap(): void } | undefined;
      expect(
        measured(() => {
          live = stand.dma.mapScatterlist(list, BOTH);
        }),
      ).toEqual(cost({ IA: n + 1, PTW: n + 1, MSYNC: n + 1, BC: n * 0x800 }));
      expect(measured(() => live!.unmap())).toEqual(
        cost({ PTW: n + 1, ...ends(mode, n + 1), BC: n * 0x800, lookups: n + 1 }),
      );
    });

    const linkAll = (stand: Stand, list: readonly PhysVec[]) => {
      const range = stand.reserve(list.length * PAGE_SIZE);
      for (const [i, { phys }] of list.entries()) range.link(i * PAGE_SIZE, phys, PAGE_SIZE, BOTH);
      range.sync();
      return range;
    };

    test("two steps, n links and destroy: one range, one sync, one end", () => {
      const { stand, cost: measured } = costs({ layout, mode });
      let range: ReturnType<typeof linkAll> | undefined;
      expect(
        measured(() => {
          range = linkAll(stand, pages(n));
        }),
      ).toEqual(cost({ IA: 1, PTW: n, MSYNC: 1 }));
      expect(measured(() => range!.destroy(n * PAGE_SIZE))).toEqual(cost({ PTW: n, ...ends(mode, 1) }));
    });

    test("two steps, n links, n unlinks and free: an invalidation each, in lazy mode too", () => {
      const { stand, cost: measured } = costs({ layout, mode });
      const range = linkAll(stand, pages(n));
      expect(
        measured(() => {
          for (let i = 0; i < n; i++) range.unlink(i * PAGE_SIZE, PAGE_SIZE);
        }),
      ).toEqual(cost({ PTW: n, INV: n }));
      expect(measured(() => range.free())).toEqual(cost({}));
    });

    test("beyond Linux: n lazy unlinks and a flush: one invalidation", () => {
      const { stand, cost: measured } = costs({ layout, mode });
      const range = linkAll(stand, pages(n));
      expect(
        measured(() => {
          for (let i = 0; i < n; i++) range.unlink(i * PAGE_SIZE, PAGE_SIZE, { lazy: true });
          range.flush();
        }),
      ).toEqual(cost({ PTW: n, INV: 1 }));
      expect(measured(() => range.free())).toEqual(cost({}));
    });

    test("two steps, non-coherent: n ranges and one barrier to map; a look-up and a range per granule and one barrier to end", () => {
      const { stand, cost: measured } = costs({ layout, mode, coherent: false });
      let range: ReturnType<typeof linkAll> | undefined;
      expect(
        measured(() => {
          range = linkAll(stand, pages(n));
        }),
      ).toEqual(cost({ IA: 1, PTW: n, MSYNC: 1, CMO: n, CMOB: 1 }));
      expect(measured(() => range!.destroy())).toEqual(cost({ PTW: n, ...ends(mode, 1), CMO: n, CMOB: 1, lookups: n }));
    });

    test("two steps, bounced: only head and tail are copied; Linux ends with one entry of the queue, dmalink at once", () => {
      for (const linuxCompatible of [true, false]) {
        const options = { layout, mode, untrusted: true, minAlignMask: 0xfff, linuxCompatible };
        const { stand, cost: measured } = costs(options);
        const length = (n + 1) * PAGE_SIZE;
        let range = stand.reserve(1);
        expect(
          measured(() => {
            range = stand.reserve(length, 0x400);
            range.link(0, PhysAddr(0x1000_0400), length, BOTH);
            range.sync();
          }),
        ).toEqual(cost({ IA: 1, PTW: n + 2, MSYNC: 1, BC: PAGE_SIZE }));
        const { lookups, ...end } = measured(() => range.destroy());
        // A slot may be somebody else's only when the device cannot reach it any more: no waiting for a flush.
        const { lookups: _, ...expected } = cost({
          PTW: n + 2,
          ...ends(linuxCompatible ? mode : "strict", 1),
          BC: PAGE_SIZE,
        });
        expect(end).toEqual(expected);
        expect(lookups).toBe(n + 2);
      }
    });

    test("peers on the bus: nothing", () => {
      const { stand, cost: measured } = costs({ layout, mode });
      stand.host.peers.add(stand.device.node, { index: 0, phys: PhysAddr(2 ** 40), length: 2 ** 20, busAddress: 0 });
      const list = pages(n).map(({ phys }) => ({ phys: PhysAddr(2 ** 40 + phys - 0x1000_0000), length: PAGE_SIZE }));
      expect(
        measured(() => {
          stand.dma.mapScatterlist(list, BOTH).unmap();
          stand.dma.mapVecs(list, BOTH).unmap();
        }),
      ).toEqual(cost({}));
    });

    test("peers through the host bridge, two steps: as memory, without maintenance even if non-coherent", () => {
      const { stand, cost: measured } = costs({ layout, mode, coherent: false });
      const range = stand.reserve(n * PAGE_SIZE);
      expect(
        measured(() => {
          for (const [i, { phys }] of pages(n).entries())
            range.link(i * PAGE_SIZE, PhysAddr(phys + 2 ** 40), PAGE_SIZE, BOTH, { mmio: true });
        }),
      ).toEqual(cost({ PTW: n }));
      const { lookups: _, ...end } = measured(() => range.destroy());
      const { lookups: __, ...expected } = cost({ PTW: n, ...ends(mode, 1) });
      expect(end).toEqual(expected);
    });

    test.each(["mapVecs", "mapLinear", "batch"] as const)("beyond Linux: %s: one range, one sync, one end", (call) => {
      const { stand, cost: measured } = costs({ layout, mode });
      const { dma } = stand;
      let unmap = (): void => {};
      const map = (): void => {
        if (call === "batch") {
          const batch = dma.batch(BOTH, { maxBytes: n * PAGE_SIZE });
          for (const vec of pages(n)) expect(batch.add(vec)).toBe("ok");
          batch.finalize();
          unmap = () => batch.unmap();
        } else {
          const mapping = dma[call](pages(n), BOTH);
          unmap = () => mapping.unmap();
        }
      };
      expect(measured(map)).toEqual(cost({ IA: 1, PTW: n, MSYNC: 1 }));
      expect(measured(() => unmap())).toEqual(cost({ PTW: n, ...ends(mode, 1) }));
    });
  });
});

describe("notes under the matrix", () => {
  test("a failed link costs one invalidation if it had mapped anything, else none", () => {
    const { stand, cost: measured } = costs({ layout });
    const range = stand.reserve(2 * PAGE_SIZE);
    const refused = (step: () => void) => measured(() => expect(step).toThrow());
    range.link(PAGE_SIZE, PhysAddr(0x5000), PAGE_SIZE, BOTH);
    expect(refused(() => range.link(0, PhysAddr(0x10_0000), 2 * PAGE_SIZE, BOTH))).toEqual(cost({ PTW: 2, INV: 1 }));
    expect(refused(() => range.link(PAGE_SIZE, PhysAddr(0x5000), PAGE_SIZE, BOTH))).toEqual(cost({}));
  });

  test("tables are freed when a range covers them whole, and never by a page", () => {
    const stand = new Stand({ layout });
    const small = stand.dma.map(PhysAddr(0x1000), PAGE_SIZE, BOTH);
    const tables = stand.tablePages;
    small.unmap();
    expect(stand.tablePages).toBe(tables);
    const large = stand.dma.map(PhysAddr(0x100_1000), 2 ** 22, BOTH);
    expect(stand.tablePages).toBeGreaterThan(tables);
    large.unmap();
    expect(stand.tablePages).toBe(tables);
  });

  test("against one shot, two steps bring n invalidations down to one", () => {
    const count = (step: (stand: Stand) => void): number => {
      const stand = new Stand({ layout });
      step(stand);
      return stand.counters.invalidations;
    };
    const oneShot = count(({ dma }) => {
      for (const { phys, length } of pages(256)) dma.map(phys, length, BOTH).unmap();
    });
    const twoSteps = count((stand) => {
      const range = stand.reserve(256 * PAGE_SIZE);
      range.linkVecs(0, pages(256), BOTH);
      range.destroy();
    });
    expect([oneShot, twoSteps]).toEqual([256, 1]);
  });
});
