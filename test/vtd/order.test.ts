/**
 * The order in which an attachment comes and goes. At every submission the unit may already act on what it is told, so
 * what is in memory at that moment is what counts.
 */
import { expect, test } from "vitest";
import type { Arena } from "../../src/pagetable/index.ts";
import { DEVICE, frame, page, type VtdMachine, vtdMachine } from "./machine.ts";

const TYPES = ["", "context", "iotlb", "device", "", "wait", "pasid iotlb", "pasid", "pasid device", "response"];
const ROOT = 2 ** 35;
const pageOf = (memory: Arena, table: number, at: number): number =>
  (memory.high(frame(table), at) >>> 0) * 2 ** 20 + (memory.low(frame(table), at) >>> 12);

/** What is sent, each with the state of the entry at that moment. */
function watched(traits: object, state: (memory: Arena) => string) {
  const log: string[] = [];
  let machine: VtdMachine | undefined;
  machine = vtdMachine(
    { deviceTlb: true, ...traits },
    {
      observer: {
        descriptorsSubmitted: (words, at, count, slotWords) => {
          for (let i = 0; i < count && machine; i++)
            log.push(`${TYPES[words[at + i * slotWords]! & 15]}: ${state(machine.memory)}`);
        },
      },
    },
  );
  machine.hardware.addDeviceTlb(DEVICE);
  return { ...machine, log };
}

/** Of the first words of an entry: is it there, gone, or only hidden? */
const stateOf = (present: number, rest: number): string => {
  if ((present & 1) !== 0) return "present";
  return present === 0 && rest === 0 ? "clear" : "hidden";
};

test("legacy mode: hidden, context cache, IOTLB, device TLB, and only then cleared", () => {
  const { unit, tables, log, memory } = watched({}, (arena) => {
    const context = pageOf(arena, ROOT, 2);
    return stateOf(arena.low(frame(context), 0), arena.low(frame(context), 1));
  });
  unit.attach(DEVICE, tables(7).view, { ats: { queueDepth: 0, stu: 0 } });
  log.length = 0;
  unit.detach(DEVICE);
  expect(log).toEqual(["context: hidden", "iotlb: hidden", "device: hidden"]);
  expect(memory.low(frame(pageOf(memory, ROOT, 2)), 0)).toBe(0);
});

test("scalable mode: the same for each PASID, then for the context", () => {
  let directory = 0;
  const { unit, tables, log, hardware, memory } = watched({ scalableMode: true, pasidBits: 8 }, (arena) => {
    const context = pageOf(arena, ROOT, 2);
    const ofContext = stateOf(arena.low(frame(context), 0), arena.low(frame(context), 1));
    if (directory === 0) return ofContext;
    const table = pageOf(arena, directory, 0);
    const [own, other] = [0, 3].map((pasid) =>
      stateOf(arena.low(frame(table), pasid * 8), arena.low(frame(table), pasid * 8 + 1)),
    );
    return `${own} ${other} ${ofContext}`;
  });
  unit.attach(DEVICE, tables(7).view, { ats: { queueDepth: 0, stu: 0 } });
  unit.attach(DEVICE, tables(8).view, { pasid: 3 });
  hardware.translate(DEVICE, page(1), "read", 3);
  directory = pageOf(memory, pageOf(memory, ROOT, 2), 0);
  log.length = 0;
  unit.detach(DEVICE);
  expect(log).toEqual([
    "pasid: present hidden present",
    "pasid iotlb: present hidden present",
    "pasid device: present hidden present",
    "pasid: hidden clear present",
    "pasid iotlb: hidden clear present",
    "device: hidden clear present",
    "context: clear clear hidden",
  ]);
});

test("caching mode: an entry is there before its absence is forgotten", () => {
  for (const scalableMode of [false, true]) {
    const { unit, tables, log } = watched({ scalableMode, cachingMode: true }, (arena) => {
      const context = pageOf(arena, ROOT, 2);
      return context === 0 ? "none" : stateOf(arena.low(frame(context), 0), arena.low(frame(context), 1));
    });
    log.length = 0;
    unit.attach(DEVICE, tables(7).view);
    expect(log).toEqual(
      scalableMode
        ? ["context: present", "pasid: present", "pasid iotlb: present"]
        : ["context: present", "iotlb: present"],
    );
  }
});
