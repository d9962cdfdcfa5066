/**
 * What the stack does, written as a recording of a kernel, read back by our reader, and judged by the analyzer that judges
 * real recordings: a clean program has no errors, a planted fault is found, with the line that did it.
 */
import { describe, expect, test } from "vitest";
import { checkTrace, type Finding } from "../../src/analysis/index.ts";
import { PhysAddr } from "../../src/base/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { SimulatedMachine, SimulatedUnit } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { mapping } from "../../src/simulation/index.ts";
import { openTrace, type Trace, TraceRecorder } from "../../src/trace/index.ts";
import { many } from "../effort.ts";
import { recordedRun } from "./recorded-run.ts";

const open = (bytes: Uint8Array): Promise<Trace> =>
  openTrace({
    name: "simulated",
    size: bytes.length,
    read: (offset, length) => Promise.resolve(bytes.slice(offset, offset + length)),
  });
const textOf = (recorder: TraceRecorder): Promise<Trace> => open(new TextEncoder().encode(recorder.text()));
const datOf = (recorder: TraceRecorder): Promise<Trace> => open(recorder.dat());

async function eventsOf(trace: Trace): Promise<string[]> {
  const names: string[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) names.push(trace.types[batch.type[row]!]!.name);
  return names;
}

/** The line that called into the DMA layer. */
function callerOfDma(): string {
  const frames = (new Error("call site").stack ?? "").split("\n");
  let last = frames.length - 1;
  while (last > 0 && !frames[last]!.includes("/src/dma/")) last--;
  return (frames[last + 1] ?? "").replace(/^\s*at /, "");
}

/** One device behind an IOMMU, recorded. */
function recorded(mode: "strict" | "lazy" = "strict"): {
  dma: Dma;
  recorder: TraceRecorder;
  machine: SimulatedMachine;
} {
  const machine = new SimulatedMachine({ memoryBytes: 2 ** 30 });
  const recorder = new TraceRecorder({
    nowMs: () => {
      machine.clock.advance(0.01);
      return machine.clock.nowMs();
    },
    callSite: callerOfDma,
  });
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit: new SimulatedUnit(),
    clock: machine.clock,
    mode,
    observer: recorder,
  });
  const dma = new Dma({
    name: "0000:01:00.0",
    domain,
    machine: { memory: machine.memory, pages: machine.pages },
    observer: recorder,
  });
  return { dma, recorder, machine };
}

const MiB = 2 ** 20;
const at = (page: number): ReturnType<typeof PhysAddr> => PhysAddr(16 * MiB + page * 4096);

/** Everything the front door offers, once, and given back. */
function everything(dma: Dma): void {
  const list = [0, 2, 4].map((page) => ({ phys: at(page), length: 4096 }));
  dma.map(at(9), 1234, "to-device").unmap();
  dma.mapScatterlist(list, "from-device").unmap();
  dma.mapVecs(list, "bidirectional").unmap();
  dma.mapLinear(list, "to-device").unmap();
  const range = dma.tryReserveIova({ length: 3 * 4096 })!;
  range.linkVecs(0, list, "bidirectional");
  range.sync();
  range.unlink(4096, 4096);
  range.link(4096, at(20), 4096, "bidirectional");
  range.sync();
  range.destroy();
  dma.tryReserveIova({ length: 4096 })!.free();
  dma.allocCoherent(10_000).free();
}

const errorsOf = async (trace: Trace): Promise<Finding[]> =>
  (await checkTrace(trace)).findings.filter(({ severity }) => severity === "error");

describe("a simulated run as a recording", () => {
  test("is read back event by event, from text and from trace.dat alike", async () => {
    const { dma, recorder } = recorded();
    everything(dma);
    const names = await eventsOf(await datOf(recorder));
    expect(names).toEqual(await eventsOf(await textOf(recorder)));
    expect(names).toHaveLength(recorder.count);
    for (const name of ["dma_map_phys", "dma_map_sg", "dma_iova_link", "dma_alloc", "map", "unmap", "iotlb_sync"])
      expect(names).toContain(name);
  });

  test("of a clean program has no errors, strict and lazy", async () => {
    for (const mode of ["strict", "lazy"] as const) {
      const { dma, recorder, machine } = recorded(mode);
      for (let i = 0; i < 20; i++) everything(dma);
      machine.clock.advance(50);
      for (const trace of [await datOf(recorder), await textOf(recorder)])
        expect((await errorsOf(trace)).map(({ rule, message }) => `${rule}: ${message}`)).toEqual([]);
    }
  });

  test("of a whole machine is read to the last event", async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const recorder = new TraceRecorder();
      await mapping.run(mapping.plan(seed), { observer: recorder });
      expect(await eventsOf(await datOf(recorder))).toHaveLength(recorder.count);
      expect(await eventsOf(await textOf(recorder))).toHaveLength(recorder.count);
    }
  });
});

describe("a machine that kept every promise", () => {
  test.each(["mapping", "nvme"] as const)(
    "has no error in its recording that its plan did not order: %s",
    async (name) => {
      for (let seed = 1; seed <= many(10); seed++) {
        const { broken, checked, unordered } = await recordedRun(name, seed);
        expect([broken, unordered], `seed ${seed}`).toEqual([undefined, []]);
        // All of its life is in the recording.
        expect([checked.unknownStart, checked.endNotRecorded], `seed ${seed}`).toEqual([0, 0]);
      }
    },
    60_000,
  );
});

describe("a fault in the program is found in its recording, with the line that did it", () => {
  test("a leak: a mapping that nobody ends", async () => {
    const { dma, recorder } = recorded();
    for (let i = 0; i < 30; i++) {
      if (i === 3) leakOne(dma);
      dma.map(at(i), 4096, "to-device").unmap();
    }
    const [finding] = await errorsOf(await datOf(recorder));
    expect(finding).toMatchObject({ rule: "leak", device: "0000:01:00.0", length: 4096 });
    expect(finding!.evidence[0]!.site).toMatch(/leakOne .*recorded\.test\.ts/);
  });

  test("a double unmap: the second one is told, and where the first was", async () => {
    const { dma, recorder } = recorded();
    const address = dma.mapPhys(at(1), 4096, "from-device");
    dma.unmapPhys(address, 4096, "from-device");
    unmapAgain(dma, address);
    const findings = await errorsOf(await datOf(recorder));
    const finding = findings.find(({ rule }) => rule === "double-unmap");
    expect(finding).toMatchObject({ device: "0000:01:00.0", iova: address });
    expect(finding!.evidence.map(({ site }) => site).join()).toMatch(/unmapAgain .*recorded\.test\.ts/);
  });

  test("a late flush: an address that is used again before its invalidation", async () => {
    const { dma, recorder } = recorded();
    const late: (readonly [number, number, boolean])[] = [];
    const original = recorder.iotlbSynced.bind(recorder);
    recorder.iotlbSynced = (start: number, last: number) => {
      late.push([start, last, true]); // the unit is told only after the next mapping
    };
    dma.map(at(1), 4096, "from-device").unmap();
    const again = dma.map(at(2), 4096, "from-device");
    for (const [start, last] of late) original(start, last);
    again.unmap();
    const [finding] = await errorsOf(await datOf(recorder));
    expect(finding).toMatchObject({ rule: "iova-reuse-before-flush", device: "0000:01:00.0" });
    expect(finding!.evidence.map(({ site }) => site).join()).toContain("recorded.test.ts");
  });
});

function leakOne(dma: Dma): void {
  dma.mapPhys(at(100), 4096, "to-device");
}

function unmapAgain(dma: Dma, address: number): void {
  dma.unmapPhys(address as never, 4096, "from-device");
}
