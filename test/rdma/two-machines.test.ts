/** Two programs on two machines: writes, reads, sends and atomic operations arrive whole, whatever the wire does. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, Random } from "../../src/base/index.ts";
import type { WireOptions } from "../../src/hosts/simulated/index.ts";
import { ACCESS } from "../../src/layouts/rdma/index.ts";
import { UserAddr } from "../../src/platform/index.ts";
import { many } from "../effort.ts";
import { ALL, at, type End, firstDifference, Pair, START } from "./stand.ts";

/** Bytes that each kind of transfer moves. DMALINK_EFFORT=8192 makes it a gigabyte. */
const BYTES = many(2) * 2 ** 16;
const MESSAGE = 2 ** 16;

const BAD_WIRE: Partial<WireOptions> = { seed: 7, lost: 15, late: 20, doubled: 10, damaged: 5 };

function exchange(wire: Partial<WireOptions>, onDemand: boolean): Pair {
  const pages = (2 * MESSAGE) / PAGE_SIZE;
  const pair = new Pair({ wire, a: { pages }, b: { pages } });
  const [a, b] = pair.connect();
  const access = ALL | (onDemand ? ACCESS.onDemand : 0);
  const length = 2 * MESSAGE;
  const [own, theirs] = [a, b].map(({ side }) =>
    side.device.register(side.pd, { process: side.process, address: START, length, access }),
  );
  const half = pages / 2;
  const rounds = BYTES / MESSAGE;
  const one = (end: End, request: Parameters<End["pair"]["send"]>[0]): void => {
    end.pair.send(request);
    const { status, id } = pair.next(end.queue);
    expect([status, id]).toEqual(["success", request.id]);
  };
  const piece = { address: START as number, length: MESSAGE, key: own!.key };
  const remote = { remoteAddress: at(half) as number, remoteKey: theirs!.key };
  for (let round = 0; round < rounds; round++) {
    const sent = a.side.fill(0, half, round);
    one(a, { work: "write", id: 4 * round, pieces: [piece], ...remote });
    expect(firstDifference(b.side.read(half, half), sent)).toBe(-1);
    const there = b.side.fill(half, half, round + 1_000_000);
    one(a, { work: "read", id: 4 * round + 1, pieces: [piece], ...remote });
    expect(firstDifference(a.side.read(0, half), there)).toBe(-1);
    b.pair.receive({ id: round, pieces: [{ address: START, length: MESSAGE, key: theirs!.key }] });
    one(a, { work: "send", id: 4 * round + 2, pieces: [piece], immediate: round });
    expect(pair.next(b.queue)).toMatchObject({ work: "receive", lengthBytes: MESSAGE, immediate: round });
    expect(firstDifference(b.side.read(0, half), there)).toBe(-1);
    const counter = { remoteAddress: START as number, remoteKey: theirs!.key };
    const result = [{ ...piece, address: at(half) as number, length: 8 }];
    one(a, { work: "fetch-add", id: 4 * round + 3, pieces: result, ...counter, add: 5n });
    const before = new DataView(a.side.read(half, 1).buffer).getBigUint64(0, true);
    const after = new DataView(b.side.read(0, 1).buffer).getBigUint64(0, true);
    expect(after).toBe(BigInt.asUintN(64, before + 5n));
  }
  pair.close(a, b);
  pair.settle();
  expect(pair.leftOvers()).toEqual([]);
  return pair;
}

describe("two machines exchange data by write, read, send and atomic operations", () => {
  test("over a good wire, pinned", () => {
    const { wire } = exchange({}, false);
    expect(wire.counts.lost).toBe(0);
  });

  test("over a wire that loses, delays, doubles and damages, pinned", () => {
    const { wire } = exchange(BAD_WIRE, false);
    const { lost, late, doubled, damaged } = wire.counts;
    expect(Math.min(lost, late, doubled, damaged)).toBeGreaterThan(0);
  });

  test("over such a wire, on demand: every page is brought by a fault", () => {
    const { a, b } = exchange(BAD_WIRE, true);
    expect(Math.min(a.device.counts.faults, b.device.counts.faults)).toBeGreaterThan(0);
    expect(a.device.counts.refused + b.device.counts.refused).toBe(0);
  });

  test("a lost answer does not do an atomic operation twice", () => {
    const pair = new Pair({ wire: { seed: 3, lost: 300 } });
    const [a, b] = pair.connect();
    const [own, theirs] = [a, b].map(({ side }) =>
      side.device.register(side.pd, { process: side.process, address: START, length: PAGE_SIZE, access: ALL }),
    );
    for (let i = 0; i < 50; i++) {
      const pieces = [{ address: START + 8, length: 8, key: own!.key }];
      a.pair.send({ work: "fetch-add", id: i, pieces, remoteAddress: START, remoteKey: theirs!.key, add: 1n });
      expect(pair.next(a.queue).status).toBe("success");
    }
    expect(new DataView(b.side.read(0, 1).buffer).getBigUint64(0, true)).toBe(50n);
    expect(pair.wire.counts.lost).toBeGreaterThan(10);
    pair.close(a, b);
  });

  test("compare and swap swaps only what is compared", () => {
    const pair = new Pair();
    const [a, b] = pair.connect();
    const [own, theirs] = [a, b].map(({ side }) =>
      side.device.register(side.pd, { process: side.process, address: START, length: PAGE_SIZE, access: ALL }),
    );
    const swap = (compare: bigint, value: bigint): bigint => {
      const pieces = [{ address: START as number, length: 8, key: own!.key }];
      const remote = { remoteAddress: START + 8, remoteKey: theirs!.key };
      a.pair.send({ work: "compare-swap", id: 1, pieces, ...remote, compare, swap: value });
      expect(pair.next(a.queue).status).toBe("success");
      return new DataView(a.side.read(0, 1).buffer).getBigUint64(0, true);
    };
    expect([swap(0n, 7n), swap(0n, 9n), swap(7n, 9n), swap(9n, 9n)]).toEqual([0n, 7n, 7n, 9n]);
    pair.close(a, b);
  });

  test("an unreliable connection loses whole messages, and never parts of them", () => {
    const pair = new Pair({ wire: { seed: 11, lost: 60 } });
    const [a, b] = pair.connect({ reliable: false, mtuBytes: 1024 });
    const [own, theirs] = [a, b].map(({ side }) =>
      side.device.register(side.pd, { process: side.process, address: START, length: 64 * PAGE_SIZE, access: ALL }),
    );
    let arrived = 0;
    for (let i = 0; i < 40; i++) {
      const sent = a.side.fill(0, 1, i);
      if (b.pair.waiting.receives === 0)
        b.pair.receive({ id: i, pieces: [{ address: START, length: PAGE_SIZE, key: theirs!.key }] });
      a.pair.send({ work: "send", id: i, pieces: [{ address: START, length: PAGE_SIZE, key: own!.key }] });
      expect(pair.next(a.queue).status).toBe("success");
      pair.settle();
      if (!b.queue.poll()) continue;
      arrived++;
      expect(firstDifference(b.side.read(0, 1), sent)).toBe(-1);
    }
    expect(arrived).toBeGreaterThan(10);
    expect(arrived).toBeLessThan(40);
    pair.close(a, b);
  });

  test("random pieces of random lengths arrive as they were", () => {
    const pair = new Pair({ wire: BAD_WIRE });
    const [a, b] = pair.connect({ mtuBytes: 512 });
    const length = 64 * PAGE_SIZE;
    const [own, theirs] = [a, b].map(({ side }) =>
      side.device.register(side.pd, { process: side.process, address: START, length, access: ALL }),
    );
    const random = Random.fromSeed(5);
    const source = a.side.fill(0, 64, 5);
    for (let i = 0; i < 30; i++) {
      const pieces = Array.from({ length: 1 + random.below(6) }, () => {
        const bytes = random.below(3000);
        return { address: START + random.below(length - bytes), length: bytes, key: own!.key };
      });
      const sent = pieces.flatMap((piece) => [
        ...source.subarray(piece.address - START, piece.address - START + piece.length),
      ]);
      const place = random.below(length - sent.length);
      a.pair.send({ work: "write", id: i, pieces, remoteAddress: START + place, remoteKey: theirs!.key });
      expect(pair.next(a.queue).status).toBe("success");
      const found = new Uint8Array(sent.length);
      b.side.process.memory.read(UserAddr(START + place), found);
      expect(firstDifference(found, Uint8Array.from(sent))).toBe(-1);
    }
    pair.close(a, b);
  });
});
