/** What a caller without types may ask of a simulated machine. */
import { expect, test } from "vitest";
import { PhysAddr } from "../../base/index.ts";
import { BouncePool } from "../../swiotlb/index.ts";
import { NvmeController, SimulatedMachine, SimulatedMemory } from "./index.ts";

test.each([-1, 0, 1.5, Number.NaN, 2 ** 53, "4096", 4096n])("%s bytes of RAM are not given out", (length) => {
  const machine = new SimulatedMachine();
  expect(() => machine.ram.allocate(length as number)).toThrow(
    expect.objectContaining({ code: "ERR_DMA_LENGTH", errno: "EINVAL", message: expect.stringContaining("is needed") }),
  );
  expect(machine.leaks()).toEqual([]);
});

test.each([0, -1, Number.NaN, 1.5, "16", undefined])("no disk has %s blocks", (blocks) => {
  expect(() => new NvmeController({ namespaces: [{ blocks: blocks as number }] })).toThrow(
    expect.objectContaining({
      code: "ERR_DMA_SIM_NVME",
      errno: "EINVAL",
      message: expect.stringContaining("namespaces[0].blocks"),
    }),
  );
});

test.each([
  ["blockBytes", { namespaces: [{ blocks: 1, blockBytes: 1000 }] }],
  ["metadataBytes", { namespaces: [{ blocks: 1, metadataBytes: -8 }] }],
  ["namespaces", {}],
  ["vectors", { namespaces: [], vectors: -1 }],
  ["ioQueues", { namespaces: [], ioQueues: 0 }],
  ["maxQueueEntries", { namespaces: [], maxQueueEntries: Number.NaN }],
  ["maxTransferShift", { namespaces: [], maxTransferShift: 1.5 }],
  ["cmbBytes", { namespaces: [], cmbBytes: -1 }],
  ["serviceMs", { namespaces: [], serviceMs: Number.NaN }],
])("a controller with a %s that cannot be is refused by that name", (name, options) => {
  expect(() => new NvmeController(options as never)).toThrow(
    expect.objectContaining({ code: "ERR_DMA_SIM_NVME", message: expect.stringContaining(name) }),
  );
});

test.each([2 ** 53, 2 ** 32, 2 ** 27, 0, -128, Number.NaN, 128.5, "128"])("no pool has %s slots", (slots) => {
  const start = PhysAddr(0x10_0000);
  expect(() => new BouncePool({ memory: new SimulatedMemory(), start, slots: slots as number })).toThrow(
    expect.objectContaining({ code: "ERR_DMA_BOUNCE_SLOTS", errno: "EINVAL" }),
  );
});
