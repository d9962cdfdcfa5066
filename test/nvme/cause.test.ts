/** What a caller is told of memory that could not be mapped. */
import { expect, test } from "vitest";
import { DmaError, type PhysAddr } from "../../src/base/index.ts";
import { TestMachine } from "./machine.ts";

test.each([1, 4])(
  "a read of %s pages beyond what the page table holds fails with the mapping's own words and cause",
  async (pages) => {
    const machine = new TestMachine({ mode: "strict" });
    const plugged = machine.plug();
    const nvme = await machine.open(plugged);
    const vecs = Array.from({ length: pages }, (_, i) => ({ phys: (2 ** 52 + i * 8192) as PhysAddr, length: 4096 }));
    const error: unknown = await machine.run(nvme.read(0, vecs)).catch((thrown: unknown) => thrown);
    if (!(error instanceof DmaError)) throw new Error(`no DmaError but ${String(error)}`);
    const { cause } = error;
    if (!(cause instanceof DmaError)) throw new Error(`its cause is ${String(cause)}`);
    expect(cause).toMatchObject({ code: "ERR_DMA_MAP", errno: "ERANGE" });
    expect(error.message).toBe(`read failed: the memory could not be mapped: ${cause.message}`);
    expect(nvme.inUse).toEqual({ commands: 0, descriptors: 0, records: 0 });
    await machine.run(nvme.close());
  },
);
