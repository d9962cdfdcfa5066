/** What tests of the driver ask again and again. */
import { expect } from "vitest";
import type { Nvme } from "../../src/consumers/nvme/index.ts";
import type { Plugged, TestMachine } from "./machine.ts";

/** Of a driver that does nothing. */
export const IDLE = { commands: 0, descriptors: 0, records: 0 };

/** Byte i of what a test with this salt writes. */
export const pattern =
  (salt: number): ((i: number) => number) =>
  (i) =>
    (i * 7 + (i >> 8) * 13 + salt) & 0xff;

/** Everything is as it was: no entry in the page table, no page, no slot of a bounce pool. */
export async function expectNothingLeft(
  machine: TestMachine,
  plugged: Plugged,
  nvme: Nvme,
  before: Record<string, number>,
): Promise<void> {
  await machine.run(nvme.close());
  plugged.domain?.destroy();
  expect(machine.machine.leaks(before)).toEqual([]);
  expect(machine.faults).toBe(0);
  const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = plugged.dma.counters;
  expect(leavesWritten - leavesCleared).toBe(0);
  if (machine.mode.endsWith("strict")) expect(iovaAllocations).toBe(iovaFrees);
}
