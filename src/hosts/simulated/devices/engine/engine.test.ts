/** The DMA engine: what it moves, by itself, in the machine's time, and how it misbehaves. */
import { describe, expect, test } from "vitest";
import { DmaAddr, MiB } from "../../../../base/index.ts";
import { DmaEngine, type EngineStep, SimulatedMachine } from "../../index.ts";

const fill = (value: number, length: number): Uint8Array => new Uint8Array(length).fill(value);

function machine() {
  const whole = new SimulatedMachine({ memoryBytes: 16 * MiB });
  const engine = new DmaEngine({ vectors: 2 });
  const [device] = whole.plug("0.0", engine);
  device!.setBusMaster(true);
  const buffer = whole.ram.allocate(16_384);
  const at = (offset: number): DmaAddr => DmaAddr(buffer.phys + offset);
  return { whole, engine, device: device!, buffer, at };
}

describe("a DMA engine", () => {
  test("gathers and scatters segments in their order", () => {
    const { engine, buffer, at } = machine();
    buffer.bytes.set([1, 2, 3, 4], 100);
    buffer.bytes.set([5, 6], 9000);
    const segments = [
      { address: at(9000), length: 2 },
      { address: at(100), length: 4 },
    ];
    expect([...engine.gather(segments)!]).toEqual([5, 6, 1, 2, 3, 4]);
    expect(
      engine.scatter(
        [
          { address: at(0), length: 1 },
          { address: at(8), length: 2 },
        ],
        Uint8Array.of(7, 8, 9),
      ),
    ).toBe(true);
    expect([buffer.bytes[0], buffer.bytes[1], buffer.bytes[8], buffer.bytes[9]]).toEqual([7, 0, 8, 9]);
    expect(engine.gather([{ address: DmaAddr(2 ** 40), length: 1 }])).toBeUndefined();
    expect(engine.scatter([{ address: DmaAddr(2 ** 40), length: 1 }], fill(0, 1))).toBe(false);
  });

  test("works through a script in the machine's time, and interrupts", () => {
    const { whole, engine, device, buffer, at } = machine();
    const interrupts: number[] = [];
    device.onInterrupt(1, () => void interrupts.push(whole.clock.nowMs()));
    buffer.bytes.fill(3, 0, 64);
    engine.run([
      { do: "gather", segments: [{ address: at(0), length: 64 }] },
      { do: "wait", ms: 5 },
      { do: "scatter", segments: [{ address: at(4096), length: 64 }] },
      { do: "interrupt", vector: 1 },
    ]);
    expect([buffer.bytes[4096], engine.waiting]).toEqual([0, 1]);
    whole.clock.advance(5);
    expect([buffer.bytes[4096], buffer.bytes[4160], engine.waiting, interrupts]).toEqual([3, 0, 0, [5]]);
    expect(engine.results.map(({ ok, bytes }) => [ok, bytes])).toEqual([
      [true, 64],
      [true, 64],
    ]);
  });

  test("a refusal ends its step, not the script", () => {
    const { engine, at } = machine();
    engine.run([
      {
        do: "scatter",
        segments: [
          { address: at(0), length: 4 },
          { address: DmaAddr(2 ** 40), length: 4 },
          { address: at(8), length: 4 },
        ],
      },
      { do: "gather", segments: [{ address: at(0), length: 4 }] },
    ]);
    expect(engine.results.map(({ ok, bytes }) => [ok, bytes])).toEqual([
      [false, 4],
      [true, 4],
    ]);
  });

  test("misbehaves on demand: past the end of what it was given", () => {
    const { engine, buffer, at } = machine();
    engine.run([{ do: "scatter", segments: [{ address: at(0), length: 16 }], bytes: fill(1, 16), beyond: 8 }]);
    expect([buffer.bytes[15], buffer.bytes[16], buffer.bytes[23], buffer.bytes[24]]).toEqual([1, 0xee, 0xee, 0]);
    engine.run([{ do: "gather", segments: [{ address: at(0), length: 16 }], beyond: 8 }]);
    expect(engine.buffer.length).toBe(24);
  });

  test("a reset stops what waits, unless the engine ignores it", async () => {
    const late: readonly EngineStep[] = [
      { do: "wait", ms: 1 },
      { do: "scatter", segments: [], bytes: fill(0, 0) },
    ];
    const { whole, engine, device } = machine();
    engine.run(late);
    await device.reset();
    expect(engine.waiting).toBe(0);
    engine.obeysReset = false;
    engine.run(late);
    await device.reset();
    expect(engine.waiting).toBe(1);
    whole.clock.advance(1);
    expect(engine.results).toHaveLength(1);
  });

  test("that is in no slot says so", () => {
    expect(() => new DmaEngine().read(DmaAddr(0), fill(0, 1))).toThrow(
      expect.objectContaining({ code: "ERR_DMA_SIM_NOT_PLUGGED" }),
    );
  });
});
