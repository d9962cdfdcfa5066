/**
 * Faults of devices for clean traces: the line that the kernel would print had the device gone astray at that moment, and whose the address was.
 *
 * Each is planted in one of the shapes that kernels print; a recorded trace has no faults of its own, so what is right is known.
 */
import type { Random } from "../src/base/index.ts";
import { type Clean, type Life, type Line, pick, textOf } from "./clean-trace.ts";
import type { Fault, Variant } from "./faults.ts";

const PAGE = 4096;
const CUT_BITS = 28;

type Access = "read" | "write";

/** How a fault is told: the event's name and its payload. */
const SHAPES: readonly ((device: string, address: number, access: Access) => string)[] = [
  (device, address, access) =>
    `io_page_fault:        IOMMU:drv ${device} iova=0x${address.toString(16).padStart(16, "0")} flags=0x000${access === "read" ? 0 : 1}`,
  (device, address, access) =>
    `console:              DMAR: [DMA ${access === "read" ? "Read" : "Write"} NO_PASID] Request device [${device}] fault addr 0x${pageOf(address).toString(16)} [fault reason 0x0${access === "read" ? 6 : 5}] x`,
  (device, address, access) =>
    `console:              DMAR: [DMA ${access === "read" ? "Read" : "Write"}] Request device [${device.slice(5)}] fault addr ${pageOf(address).toString(16)} [fault reason 0${access === "read" ? 6 : 5}] x`,
  (device, address, access) =>
    `console:              drv ${device}: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c address=0x${address.toString(16)} flags=0x00${access === "read" ? 5 : 7}0]`,
];

const pageOf = (address: number): number => Math.floor(address / PAGE) * PAGE;

/** The trace with a fault told right behind line `at`. */
function told(trace: Clean, random: Random, at: number, device: string, address: number, access: Access): string[] {
  const { timeNs } = trace.lines[at]!;
  const seconds = `${Math.floor(timeNs / 1e9)}.${String(Math.floor((timeNs % 1e9) / 1000)).padStart(6, "0")}`;
  const shape = SHAPES[random.below(SHAPES.length)]!;
  const line = `          <idle>-0     [000]  ${seconds}: ${shape(device, address, access)}`;
  const lines = textOf(trace);
  return [...lines.slice(0, at + 1), line, ...lines.slice(at + 1)];
}

const wayOf = (trace: Clean, life: Life): string | undefined =>
  /dir=(\w+)/.exec(trace.lines[life.kind === "one-shot" ? life.from : life.to]!.text)?.[1];

const translated = (life: Life): boolean => life.kind === "one-shot" && life.translated;

/** Lines of the device whose addresses touch [from, to). */
const touches = (trace: Clean, device: string, from: number, to: number): boolean =>
  trace.lines.some(
    (line) =>
      line.device === device && line.address >= 0 && line.address < to && line.address + Math.max(1, line.size) > from,
  );

const variant = (lines: readonly string[], relation: string, determined: boolean): Variant => ({
  lines,
  expected: ["device-fault"],
  relation,
  allowed: [],
  determined,
});

export const DEVICE_FAULTS: readonly Fault[] = [
  {
    name: "a device writes what it may only read, or reads what it may only write",
    plant(trace, random) {
      const life = pick(trace, random, (one) => translated(one) && /^(TO|FROM)_DEVICE$/.test(wayOf(trace, one) ?? ""));
      if (!life) return undefined;
      const access = wayOf(trace, life) === "TO_DEVICE" ? "write" : "read";
      return variant(told(trace, random, life.from, life.device, life.address, access), "live", true);
    },
  },
  {
    name: "a device uses what was just unmapped",
    plant(trace, random) {
      const life = pick(trace, random, translated);
      if (!life) return undefined;
      const access = wayOf(trace, life) === "TO_DEVICE" ? "read" : "write";
      return variant(told(trace, random, life.to, life.device, life.address, access), "ended", true);
    },
  },
  {
    name: "a device goes past the end of its buffer",
    plant(trace, random) {
      // Behind the highest mapping of its device nothing was ever mapped.
      const end = (line: Pick<Line, "address" | "size">): number => Math.ceil((line.address + line.size) / PAGE) * PAGE;
      const life = pick(
        trace,
        random,
        (one) => translated(one) && !touches(trace, one.device, end(one), end(one) + (1 << 20)),
      );
      if (!life) return undefined;
      const access = wayOf(trace, life) === "TO_DEVICE" ? "read" : "write";
      return variant(told(trace, random, life.from, life.device, end(life), access), "near", true);
    },
  },
  {
    name: "a device loses the upper bits of an address",
    plant(trace, random) {
      const life = pick(trace, random, (one) => translated(one) && one.address >= 2 ** CUT_BITS);
      if (!life) return undefined;
      const cut = life.address % 2 ** CUT_BITS;
      const free = !touches(trace, life.device, cut - (1 << 20), cut + (1 << 20)) && cut >= 1 << 20;
      const access = wayOf(trace, life) === "TO_DEVICE" ? "read" : "write";
      return variant(told(trace, random, life.from, life.device, cut, access), "cut", free);
    },
  },
  {
    name: "a device that was given no address",
    plant(trace, random) {
      const life = pick(trace, random, translated);
      if (!life) return undefined;
      return variant(told(trace, random, life.from, life.device, 0, "write"), "never", true);
    },
  },
];
