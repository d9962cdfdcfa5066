/** From a request to a data pointer behind an IOMMU: ranges, what is kept of them, and what a failure leaves. */
import { describe, expect, test } from "vitest";
import { KiB, PAGE_SIZE } from "../../src/base/index.ts";
import { OneShotOps, type PeerRoute, ScatterlistOps, TwoStepOps } from "../../src/consumers/block/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import { COMMAND, SGL_TYPE } from "../../src/layouts/nvme/index.ts";
import { armLpae } from "../../src/layouts/pagetable/index.ts";
import { A, Bench, intended, joined, pages, type Run, requestOf, translated } from "./data-pointer-stand.ts";

describe("behind an IOMMU", () => {
  test("32 scattered pages are one run: one range, one sync, an inline descriptor, two words kept", () => {
    const { dma, ops, back, mapped } = translated();
    const bench = new Bench(ops, { sgls: true });
    const before = dma.counters.snapshot();
    const request = requestOf(pages(32));
    expect(bench.map(request)).toBe("ok");
    expect(joined(back(bench.read(128 * KiB).runs))).toEqual(intended(request));
    expect(bench.command.getUint8(COMMAND.dataPointer + 15)).toBe(SGL_TYPE.dataBlock);
    expect([bench.inUse, bench.mapper.counters.metadataBytes]).toEqual([0, 16]);
    bench.mapper.unmap(bench.mapping);
    const { iovaAllocations, iovaFrees, leavesWritten, leavesCleared, mapSyncs, rangeInvalidations } =
      dma.counters.since(before);
    expect([iovaAllocations, iovaFrees, leavesWritten, leavesCleared, mapSyncs, rangeInvalidations]).toEqual([
      1, 1, 32, 32, 1, 1,
    ]);
    expect(mapped()).toBe(0);
  });

  test("the same by PRPs has 31 of them in a small block", () => {
    const { ops, back } = translated();
    const bench = new Bench(ops);
    const request = requestOf(pages(32));
    expect(bench.map(request)).toBe("ok");
    expect([bench.pools.small.inUse, bench.mapper.counters.listBytes]).toEqual([1, 248]);
    expect(joined(back(bench.read(128 * KiB).runs))).toEqual(intended(request));
  });

  test("a link that fails in the middle leaves nothing: no entry, no address, no descriptor", () => {
    const { dma, ops, mapped } = translated();
    const bench = new Bench(ops, { sgls: true });
    const vecs = pages(32);
    vecs[20] = [2 ** 52 + A, PAGE_SIZE]; // beyond what the table can point to
    const before = dma.counters.snapshot();
    expect(bench.map(requestOf(vecs))).toBe("io-error");
    const { iovaAllocations, iovaFrees, leavesWritten } = dma.counters.since(before);
    expect([iovaAllocations, iovaFrees, leavesWritten, mapped(), bench.inUse]).toEqual([1, 1, 20, 0, 0]);
    expect(bench.map(requestOf(pages(32)))).toBe("ok");
  });

  test("without room for a range, each segment is mapped by itself if it can be", () => {
    const { dma, ops, mapped } = translated({ lastPage: 40 });
    const held = [dma.tryReserveIova({ length: 16 * PAGE_SIZE })!, dma.tryReserveIova({ length: 8 * PAGE_SIZE })!];
    const bench = new Bench(ops, { sgls: true, sglThreshold: 1 });
    expect(bench.map(requestOf(pages(32)))).toBe("resource"); // nor is there room for all of them one by one
    expect([mapped(), bench.inUse]).toEqual([0, 0]);
    for (const range of held) range.destroy();
    expect(bench.map(requestOf(pages(32)))).toBe("ok");
    bench.mapper.unmap(bench.mapping);
    expect(mapped()).toBe(0);
  });

  /** One request of 128 KiB: allocations, entries, syncs, invalidations; bytes of lists, and of what is kept. */
  const table: [way: string, Ops: new (dma: Dma) => TwoStepOps, sgl: boolean, cost: number[]][] = [
    ["two steps, an SGL", TwoStepOps, true, [1, 32, 1, 1, 0, 16]],
    ["two steps, PRPs", TwoStepOps, false, [1, 32, 1, 1, 248, 16]],
    ["each segment by itself, an SGL", OneShotOps, true, [32, 32, 32, 32, 512, 0]],
    ["each segment by itself, PRPs", OneShotOps, false, [32, 32, 32, 32, 248, 512]],
    ["a scatterlist, an SGL", ScatterlistOps, true, [1, 32, 1, 1, 0, 16 + 1024]],
    ["a scatterlist, PRPs", ScatterlistOps, false, [1, 32, 1, 1, 248, 16 + 1024]],
  ];
  for (const [way, Ops, sgls, cost] of table)
    test(`32 scattered pages cost, by ${way}: ${cost.join(", ")}`, () => {
      const { dma, back, mapped } = translated();
      const ops = new Ops(dma);
      const bench = new Bench(ops, { sgls, sglThreshold: 4096 });
      const request = requestOf(pages(32));
      const before = dma.counters.snapshot();
      expect(bench.map(request)).toBe("ok");
      expect(back(bench.read(request.bytes).runs)).toEqual(intended(request));
      bench.mapper.unmap(bench.mapping);
      const { iovaAllocations, iovaFrees, leavesWritten, leavesCleared, mapSyncs, rangeInvalidations } =
        dma.counters.since(before);
      const { listBytes, metadataBytes } = bench.mapper.counters;
      const kept = metadataBytes + (ops instanceof ScatterlistOps ? ops.tableBytes : 0);
      expect([iovaAllocations, leavesWritten, mapSyncs, rangeInvalidations, listBytes, kept]).toEqual(cost);
      expect([iovaFrees, leavesCleared, mapped()]).toEqual([iovaAllocations, leavesWritten, 0]);
    });

  test("requests up to 128 KiB never search the address space once the caches are warm; larger ones do", () => {
    const { dma, ops } = translated({ countSteps: true });
    const bench = new Bench(ops, { sgls: true });
    const searched = (count: number): number => {
      for (let i = 0; i < 40; i++) {
        expect(bench.map(requestOf(pages(count)))).toBe("ok");
        bench.mapper.unmap(bench.mapping);
      }
      const before = dma.counters.iovaSteps;
      for (let i = 0; i < 100; i++) {
        expect(bench.map(requestOf(pages(count)))).toBe("ok");
        bench.mapper.unmap(bench.mapping);
      }
      return dma.counters.iovaSteps - before;
    };
    expect([searched(2), searched(17), searched(32)]).toEqual([0, 0, 0]);
    expect(searched(33)).toBeGreaterThan(0);
  });

  test("of 16 KiB pages, vectors are one range only if each junction lies on one of them", () => {
    const layout = armLpae({ stage: 1, pageSizes: 0x4000n | (1n << 25n), inputBits: 47, outputBits: 48 })!;
    const { ops, back, mapped } = translated({ layout });
    expect(ops.mergeBoundary).toBe(16_383);
    const whole = (vecs: readonly Run[]): boolean => {
      const bench = new Bench(ops, { sgls: true, sglThreshold: 4096 });
      const request = requestOf(vecs);
      expect(bench.map(request)).toBe("ok");
      const found = bench.mapping.data.range !== undefined;
      expect(back(bench.read(request.bytes).runs)).toEqual(intended(request));
      bench.mapper.unmap(bench.mapping);
      expect([bench.inUse, mapped()]).toEqual([0, 0]);
      return found;
    };
    const granule = 16 * KiB;
    expect(
      whole([
        [A, granule],
        [A + 4 * granule, granule],
      ]),
    ).toBe(true);
    expect(
      whole([
        [A + 4096, granule],
        [A + 4 * granule + 4096, granule],
      ]),
    ).toBe(false);
    expect(
      whole([
        [A + 4096, granule - 4096],
        [A + 4 * granule, 100],
      ]),
    ).toBe(true);
    expect(whole(pages(4))).toBe(false);
  });

  test("a request with nothing of the range left never looks as if it had one", () => {
    const { ops } = translated();
    const bench = new Bench(ops, { sgls: true });
    expect(bench.map(requestOf(pages(4)))).toBe("ok");
    expect(bench.mapping.data.range).toBeDefined();
    bench.mapper.unmap(bench.mapping);
    class Peer extends TwoStepOps {
      override peerRoute(): PeerRoute {
        return { type: "bus-address", busOffset: 0x1_0000_0000 };
      }
    }
    const peer = new Bench(new Peer(ops.dma), { sgls: true });
    Object.assign(peer.mapping.data, { range: bench.mapping.data.range });
    const before = ops.dma.counters.snapshot();
    expect(peer.map(requestOf(pages(4), {}))).toBe("ok");
    expect([peer.mapping.data.range, peer.read(4 * PAGE_SIZE).runs.length]).toEqual([undefined, 4]);
    expect(peer.read(4 * PAGE_SIZE).runs[0]![0]).toBe(A + 0x1_0000_0000);
    peer.mapper.unmap(peer.mapping);
    expect(ops.dma.counters.since(before).iovaAllocations).toBe(0);
  });
});
