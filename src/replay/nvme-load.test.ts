import { describe, expect, test } from "vitest";
import { Requests, type RequestValue } from "../analysis/index.ts";
import { nvmeLoadOf } from "./nvme-load.ts";

/** Requests of one device, as `dma:*` events name them: memory by physical address and length. */
function recorded(list: readonly (readonly (readonly [phys: number, length: number])[])[]): Requests {
  return Requests.of(
    list.map(
      (pieces, i): RequestValue => ({
        device: "0000:00:04.0",
        kind: "two-step",
        direction: "to-device",
        segments: pieces.map(([phys, length]) => ({ phys, length, iova: 0x10_0000 })),
        startNs: i * 10,
        endNs: i * 10 + 5,
      }),
    ),
  );
}

const none = { coherent: 0, notBlocks: 0, misaligned: 0, notMemory: 0 };

describe("what can be an NVMe command", () => {
  test("whole blocks of 512 bytes in memory at multiples of 4, however small the pieces", () => {
    const { plan, leftOut } = nvmeLoadOf(
      recorded([
        [[0x5000, 512]],
        [[0x5004, 4096]],
        [
          [0x5ffc, 4],
          [0x9000, 508],
        ],
      ]),
    );
    expect([plan.requests, leftOut]).toEqual([3, none]);
  });

  test("not what is no whole number of blocks", () => {
    const { plan, leftOut } = nvmeLoadOf(recorded([[[0x5000, 1518]], [[0x5000, 4]], [[0x5000, 1024]]]));
    expect([plan.requests, leftOut]).toEqual([1, { ...none, notBlocks: 2 }]);
  });

  test("not what begins, or goes over to its next piece, beside a multiple of 4", () => {
    const { plan, leftOut } = nvmeLoadOf(
      recorded([
        [[0x5002, 512]],
        [
          [0x5000, 510],
          [0x9000, 514],
        ],
        [[0x5001, 4096]],
      ]),
    );
    expect([plan.requests, leftOut]).toEqual([0, { ...none, misaligned: 3 }]);
  });

  test("not coherent memory, whatever its size", () => {
    const coherent = (phys: number, length: number): RequestValue => ({
      kind: "coherent",
      segments: [{ phys, length, iova: phys }],
      startNs: 0,
      endNs: undefined,
    });
    const { plan, leftOut } = nvmeLoadOf(Requests.of([coherent(0x5000, 4096), coherent(0x7000, 100)]));
    expect([plan.requests, leftOut]).toEqual([0, { ...none, coherent: 2 }]);
  });

  test("not what is no memory, or too much at once, nor the first page, which Linux gives nobody", () => {
    const { plan, leftOut } = nvmeLoadOf(recorded([[[2 ** 51, 4096]], [[0x5000, 2 ** 28 + 512]], [[512, 512]]]));
    expect([plan.requests, leftOut]).toEqual([0, { ...none, notMemory: 3 }]);
  });

  test("each request is left out once, and those that stay keep their order and their time", () => {
    const requests = recorded([[[0x5001, 100]], [[0x6000, 512]], [[0x7002, 512]], [[0x8000, 1024]]]);
    const { plan, leftOut } = nvmeLoadOf(requests);
    expect(leftOut).toEqual({ ...none, notBlocks: 1, misaligned: 1 });
    expect([...plan.loads].map(({ length }) => length)).toEqual([512, 1024]);
    expect([...plan.order]).toEqual([0, ~0, 1, ~1]);
    expect([[...plan.startMs], [...plan.endMs]]).toEqual([
      [10e-6, 30e-6],
      [15e-6, 35e-6],
    ]);
  });

  test("requests that may go either way are counted", () => {
    const unsaid = { segments: [{ iova: 0x1_0000, phys: 0x5000, length: 4096 }], startNs: 1, endNs: 2 };
    expect(nvmeLoadOf(Requests.of([unsaid])).bothWays).toBe(1);
    expect(nvmeLoadOf(recorded([[[0x5000, 512]]])).bothWays).toBe(0);
  });
});
