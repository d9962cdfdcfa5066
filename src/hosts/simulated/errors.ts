/** What a simulated machine refuses: one function per error, which makes a catalogue. What devices do is never one. */
import { DmaError, given, hex } from "../../base/index.ts";

export const unknownSlot = (slot: string, slots: readonly string[]): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_NO_SLOT",
    "ENODEV",
    `no slot ${JSON.stringify(slot)} on this machine; it has ${slots.map((each) => JSON.stringify(each)).join(", ")}`,
    { slot, slots },
  );

export const badTime = (what: string, value: unknown): DmaError =>
  new DmaError("ERR_DMA_SIM_TIME", "EINVAL", `${what} of ${given(value)}: give a number of milliseconds`, { value });

export const slotTaken = (slot: string, device: string): DmaError =>
  new DmaError("ERR_DMA_SIM_SLOT_TAKEN", "EBUSY", `slot ${JSON.stringify(slot)} holds ${device}: unplug it first`, {
    slot,
    device,
  });

export const outOfMemory = (length: number, freePages: number, largestRun: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_MEMORY",
    "ENOMEM",
    `no ${length} adjacent bytes of memory are free: ${freePages} pages are, at most ${largestRun} of them adjacent`,
    { length, freePages, largestRun },
  );

export const badMemorySize = (bytes: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_MEMORY_SIZE",
    "EINVAL",
    `a machine with ${given(bytes)} bytes of memory: give whole pages, from 1 MiB to 2^51`,
    { bytes },
  );

export const badLength = (length: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_LENGTH",
    "EINVAL",
    `${given(length)} bytes cannot be allocated: a whole number from 1 on is needed`,
    {
      length,
    },
  );

export const badNvmeOption = (name: string, value: unknown, needed: string): DmaError =>
  new DmaError("ERR_DMA_SIM_NVME", "EINVAL", `an NVMe controller with ${name} ${given(value)}: ${needed} is needed`, {
    name,
    value,
  });

export const overlappingRegion = (start: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_REGION",
    "EEXIST",
    `${hex(length)} bytes at ${hex(start)} are not whole pages, or overlap another region: give them a place of their own`,
    { start, length },
  );

export const badBar = (index: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_BAR",
    "EINVAL",
    `BAR ${index} of ${length} bytes: give an index from 0 to 5, each once, and a power of two from 4096 on`,
    { index, length },
  );

export const notPlugged = (): DmaError =>
  new DmaError("ERR_DMA_SIM_NOT_PLUGGED", "ENODEV", "this device is in no slot: plug it into a machine first");

export const stuckInTime = (nowMs: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_STUCK",
    "ETIMEDOUT",
    `at ${nowMs} ms no timer is left, and what was waited for has not happened: is an interrupt or a timer missing?`,
    { nowMs },
  );

export const noDevice = (name: string, plugged: readonly string[]): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_DEVICE",
    "ENODEV",
    `no device is called ${name}: ${plugged.length === 0 ? "nothing is plugged in" : `there are ${plugged.join(", ")}`}`,
    { name },
  );
