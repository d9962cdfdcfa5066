import { describe, expect, test } from "vitest";
import type { EventBatch, Trace } from "../../../trace/index.ts";
import { parseMoment, windowed } from "./time-window.ts";

/** A trace of events at `times`, three a batch, whose task is their number. */
function traceOf(times: readonly number[]): Trace & { readonly read: () => number } {
  let read = 0;
  async function* batches(): AsyncGenerator<EventBatch> {
    for (let at = 0; at < times.length; at += 3) {
      const timeNs = Float64Array.from(times.slice(at, at + 3));
      const count = timeNs.length;
      read += count;
      yield {
        count,
        type: new Uint32Array(count),
        cpu: new Uint16Array(count),
        pid: new Int32Array(count),
        task: Uint32Array.from(timeNs, (_, i) => at + i),
        buffer: new Uint16Array(count),
        chain: new Uint32Array(count),
        timeNs,
        start: new Uint32Array(count),
        words: new Uint32Array(2),
      };
    }
  }
  return {
    format: "perf script",
    types: [],
    strings: ["a name"],
    buffers: [""],
    chains: [],
    clock: "mono",
    timing: { kind: "time", stepNs: 1, note: undefined },
    cpus: 2,
    longBytes: 8,
    remarks: [],
    system: "Linux",
    timeBase: 5_000_000_000n,
    lost: 1,
    damage: undefined,
    batches,
    read: () => read,
  };
}

async function found(trace: Trace): Promise<number[]> {
  const tasks: number[] = [];
  for await (const { count, task } of trace.batches()) tasks.push(...task.subarray(0, count));
  return tasks;
}

describe("a moment", () => {
  test.each([
    ["9", { sinceFirst: false, ns: 9_000_000_000n }],
    ["9.257996", { sinceFirst: false, ns: 9_257_996_000n }],
    ["1700000000.123456789", { sinceFirst: false, ns: 1_700_000_000_123_456_789n }],
    ["+1.5s", { sinceFirst: true, ns: 1_500_000_000n }],
    ["+250ms", { sinceFirst: true, ns: 250_000_000n }],
    ["+2m", { sinceFirst: true, ns: 120_000_000_000n }],
    ["+0", { sinceFirst: true, ns: 0n }],
  ])("%s", (word, moment) => expect(parseMoment(word)).toEqual(moment));

  test.each(["", "soon", "-1", "1.", ".5", "1e9", "+s", "1.0000000001"])("%j is none", (word) =>
    expect(parseMoment(word)).toBeUndefined(),
  );
});

describe("a part of a trace", () => {
  const times = [100, 200, 300, 400, 500, 600, 700, 800];
  const at = (ns: number) => ({ sinceFirst: false, ns: 5_000_000_000n + BigInt(ns) });
  const later = (ns: number) => ({ sinceFirst: true, ns: BigInt(ns) });

  test("holds the events from its beginning to before its end, by the clock or since the first event", async () => {
    expect(await found(windowed(traceOf(times), { from: at(200), to: at(500) }))).toEqual([1, 2, 3]);
    expect(await found(windowed(traceOf(times), { from: later(100), to: later(400) }))).toEqual([1, 2, 3]);
    expect(await found(windowed(traceOf(times), { from: at(650) }))).toEqual([6, 7]);
    expect(await found(windowed(traceOf(times), { to: later(1) }))).toEqual([0]);
    expect(await found(windowed(traceOf(times), { from: at(0), to: at(10_000) }))).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  test("holds them too where the times of a text go back", async () =>
    expect(await found(windowed(traceOf([300, 100, 400, 200, 500, 350]), { from: at(300), to: at(450) }))).toEqual([
      0, 2, 5,
    ]));

  test("is read no further than it reaches", async () => {
    const trace = traceOf(times);
    await found(windowed(trace, { to: at(350) }));
    expect(trace.read()).toBe(6);
  });

  test("without any event is refused, with the times that there are", async () => {
    await expect(found(windowed(traceOf(times), { from: at(900) }))).rejects.toThrow(
      "the first is at 5.000000 s, the last that was read at 5.000000 s",
    );
    expect(await found(windowed(traceOf([]), { from: at(900) }))).toEqual([]);
  });

  test("says of the recording what the whole says; without times it is the whole", () => {
    const trace = traceOf(times);
    const part = windowed(trace, { from: later(0) });
    for (const key of [
      "format",
      "types",
      "strings",
      "buffers",
      "chains",
      "clock",
      "timing",
      "cpus",
      "longBytes",
      "remarks",
      "system",
      "timeBase",
      "lost",
      "damage",
    ] as const)
      expect(part[key]).toBe(trace[key]);
    expect(windowed(trace, {})).toBe(trace);
  });
});
