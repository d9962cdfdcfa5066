/**
 * Faults for clean traces: each one a small change to the printed form of a recorded trace, and what it must lead to.
 *
 * A fault is *determined* when the events that remain leave no other reading; a dropped unmap near the end of a recording is
 * not, for instance: it may still be to come.
 */
import type { Random } from "../src/base/index.ts";
import {
  alone,
  type Clean,
  edited,
  type Life,
  type Line,
  leftAs,
  moved,
  pick,
  remapped,
  textOf,
  type Unnamed,
  unnamedOf,
  without,
} from "./clean-trace.ts";

/** A trace with a fault in it. */
export interface Variant {
  readonly lines: readonly string[];
  /** Rules of which one must speak, if `determined`. */
  readonly expected: readonly string[];
  /** Rules that may speak as well: what follows from the same fault. */
  readonly allowed: readonly string[];
  readonly determined: boolean;
  /** Of a device's fault: what it must be said to have to do with the mappings. */
  readonly relation?: string;
  /** Address bits that devices are said to drive. */
  readonly deviceBits?: ReadonlyMap<string, number>;
}

export interface Fault {
  readonly name: string;
  /** `undefined`: this trace has no place for it. */
  plant(trace: Clean, random: Random): Variant | undefined;
}

const LEFT = ["leak", "map-over-live", "left-at-release"];

/** What is expected when `life` stays. */
function left(trace: Clean, life: Life): Pick<Variant, "expected" | "allowed" | "determined"> {
  const rule = leftAs(trace, life);
  return rule
    ? { expected: rule === "leak" ? [rule, "left-at-release"] : [rule], allowed: LEFT, determined: true }
    : { expected: LEFT, allowed: [], determined: false };
}

const OTHER_DEVICE = "0000:00:1f.2";

const oneShot = (life: Life): boolean => life.kind === "one-shot";
const twoStep = (life: Life): boolean => life.kind === "two-step";

export const FAULTS: readonly Fault[] = [
  {
    name: "drop an unmap",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      return { lines: without(trace, life.end), ...left(trace, life) };
    },
  },
  {
    name: "repeat an unmap",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const again = life.end.map((i) => trace.lines[i]!.text);
      const lines = trace.lines.flatMap(({ text }, i) => (i === life.to ? [text, ...again] : [text]));
      return { lines, expected: ["double-unmap"], allowed: [], determined: alone(trace, life) };
    },
  },
  {
    name: "change the size of an unmap",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const size = life.size + (random.below(2) === 0 ? 4096 : 8) * (1 + random.below(4));
      const text = trace.lines[life.to]!.text.replace(/size=\d+/, `size=${size}`);
      const lines = edited(trace, new Map([[life.to, text]]));
      return { lines, expected: ["size-mismatch"], allowed: [], determined: alone(trace, life) };
    },
  },
  {
    name: "shift the address of an unmap",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && remapped(trace, one));
      if (!life) return undefined;
      const to = life.address + 4096 * (1 + random.below(8));
      const edits = new Map(life.end.map((i) => [i, moved(trace.lines[i]!, to)]));
      return {
        lines: edited(trace, edits),
        expected: [...LEFT, "unmap-unknown", "double-unmap", "size-mismatch"],
        allowed: ["direction-mismatch", "double-unmap", "wrong-function"],
        determined: leftAs(trace, life) !== undefined,
      };
    },
  },
  {
    name: "shift the address of the named unmap only",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && one.translated);
      if (!life) return undefined;
      let to = life.address + 8;
      do to += 8 * (1 + random.below(1000));
      while (trace.lives.some((one) => one.address === to));
      const edits = new Map([[life.to, moved(trace.lines[life.to]!, to)]]);
      return { lines: edited(trace, edits), expected: ["unmap-unknown"], allowed: [], determined: true };
    },
  },
  {
    name: "shift the address of a map",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && one.translated);
      if (!life) return undefined;
      const to = life.address - 2 ** 30;
      const edits = new Map(life.begin.map((i) => [i, moved(trace.lines[i]!, to)]));
      const usedBefore = trace.lives.some(
        (one) => one.to < life.from && one.address === life.address && one.device === life.device,
      );
      return {
        lines: edited(trace, edits),
        expected: ["double-unmap", "leak"],
        allowed: ["unmap-unknown", "map-over-live", "left-at-release"],
        determined: usedBefore,
      };
    },
  },
  {
    name: "map over a live mapping",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && one.translated);
      if (!life) return undefined;
      const other = trace.lives.find(
        (one) =>
          one !== life &&
          oneShot(one) &&
          one.translated &&
          one.device === life.device &&
          one.address !== life.address &&
          one.from < Math.min(...life.begin) &&
          Math.min(...one.end) > life.from,
      );
      if (!other) return undefined;
      const edits = new Map([...life.begin, ...life.end].map((i) => [i, moved(trace.lines[i]!, other.address)]));
      return {
        lines: edited(trace, edits),
        expected: ["map-over-live"],
        allowed: ["double-unmap", "size-mismatch", "direction-mismatch"],
        determined: true,
      };
    },
  },
  {
    name: "change the direction of an unmap",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const { text } = trace.lines[life.to]!;
      const other = text.includes("dir=TO_DEVICE") ? "dir=FROM_DEVICE" : "dir=TO_DEVICE";
      const lines = edited(trace, new Map([[life.to, text.replace(/dir=\w+/, other)]]));
      return { lines, expected: ["direction-mismatch"], allowed: [], determined: alone(trace, life) };
    },
  },
  {
    name: "swap the device of an unmap",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const text = trace.lines[life.to]!.text.replace(life.device, OTHER_DEVICE);
      const lines = edited(trace, new Map([[life.to, text]]));
      const determined = leftAs(trace, life) !== undefined;
      return { lines, expected: ["device-mismatch"], allowed: [], determined };
    },
  },
  {
    name: "unmap less than asked",
    plant(trace, random) {
      const unmaps = trace.lines.flatMap((line, i) => (line.name === "unmap" ? [i] : []));
      if (unmaps.length === 0) return undefined;
      const at = unmaps[random.below(unmaps.length)]!;
      const done = random.below(trace.lines[at]!.size / 4096) * 4096;
      const text = trace.lines[at]!.text.replace(/unmapped_size=\d+/, `unmapped_size=${done}`);
      const lines = edited(trace, new Map([[at, text]]));
      return { lines, expected: ["short-unmap"], allowed: ["leak"], determined: true };
    },
  },
  {
    name: "all-ones from a map",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const text = trace.lines[life.from]!.text.replace(/dma_addr=[0-9a-f]+/, "dma_addr=ffffffffffffffff");
      const lines = edited(trace, new Map([[life.from, text]]));
      // Where a bounce was tried right before, that is what failed.
      const expected = ["invalid-address", "bounce-pool-full"];
      return { lines, expected, allowed: ["double-unmap", "leak"], determined: true };
    },
  },
  {
    name: "all-ones to an unmap",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const text = trace.lines[life.to]!.text.replace(/dma_addr=[0-9a-f]+/, "dma_addr=ffffffffffffffff");
      const lines = edited(trace, new Map([[life.to, text]]));
      return { lines, expected: ["invalid-address"], allowed: LEFT, determined: true };
    },
  },
  {
    name: "two devices write one page",
    plant(trace, random) {
      const life = pick(
        trace,
        random,
        (one) => oneShot(one) && one.translated && trace.lines[one.to]!.text.includes("FROM_DEVICE"),
      );
      if (!life) return undefined;
      const twin = life.begin.map((i) => trace.lines[i]!.text.replace(life.device, OTHER_DEVICE));
      const end = life.end.map((i) => trace.lines[i]!.text.replace(life.device, OTHER_DEVICE));
      const lines = trace.lines.flatMap(({ text }, i) =>
        i === life.from ? [text, ...twin] : i === life.to ? [text, ...end] : [text],
      );
      return { lines, expected: ["shared-page-write"], allowed: [], determined: true };
    },
  },
  {
    name: "drop a destroy",
    plant(trace, random) {
      const life = pick(trace, random, twoStep);
      if (!life) return undefined;
      return { lines: without(trace, life.end), ...left(trace, life) };
    },
  },
  {
    name: "repeat a destroy",
    plant(trace, random) {
      const life = pick(trace, random, twoStep);
      if (!life) return undefined;
      const again = life.end.map((i) => trace.lines[i]!.text);
      const last = Math.max(...life.end);
      const lines = trace.lines.flatMap(({ text }, i) => (i === last ? [text, ...again] : [text]));
      return { lines, expected: ["double-unmap"], allowed: [], determined: true };
    },
  },
  {
    name: "link past the end",
    plant(trace, random) {
      const life = pick(trace, random, twoStep);
      if (!life) return undefined;
      const links = life.begin.filter((i) => trace.lines[i]!.name === "dma_iova_link");
      const at = links.at(-1);
      if (at === undefined) return undefined;
      const text = trace.lines[at]!.text.replace(/offset=\d+/, `offset=${life.size}`);
      const lines = edited(trace, new Map([[at, text]]));
      const allowed = ["unlink-hole", "destroy-with-live-links"];
      return { lines, expected: ["link-out-of-range"], allowed, determined: true };
    },
  },
  {
    name: "destroy less than linked",
    plant(trace, random) {
      const life = pick(trace, random, (one) => twoStep(one) && one.size >= 8192);
      if (!life) return undefined;
      const less = 4096 * (1 + random.below(life.size / 4096 - 1));
      const text = trace.lines[life.to]!.text.replace(/mapped_len=\d+/, `mapped_len=${less}`);
      const lines = edited(trace, new Map([[life.to, text]]));
      return { lines, expected: ["destroy-with-live-links"], allowed: [], determined: true };
    },
  },
  {
    name: "destroy more than linked",
    plant(trace, random) {
      const life = pick(trace, random, twoStep);
      if (!life) return undefined;
      const more = life.size + 4096 * (1 + random.below(4));
      const text = trace.lines[life.to]!.text.replace(/mapped_len=\d+/, `mapped_len=${more}`);
      const lines = edited(trace, new Map([[life.to, text]]));
      return { lines, expected: ["unlink-hole"], allowed: [], determined: true };
    },
  },
  {
    name: "drop a sync",
    plant(trace, random) {
      const life = pick(trace, random, (one) => twoStep(one) && one.from > 500);
      const sync = life?.begin.find((i) => trace.lines[i]!.name === "dma_iova_sync");
      if (!life || sync === undefined) return undefined;
      return { lines: without(trace, [sync]), expected: ["access-before-sync"], allowed: [], determined: true };
    },
  },
  {
    name: "drop an invalidation",
    plant(trace, random) {
      const flushes = trace.lines.flatMap((line, i) => (line.name === "cache_tag_flush_range" ? [i] : []));
      if (flushes.length === 0 || trace.lives.length === 0) return undefined;
      const at = flushes[random.below(flushes.length)]!;
      const [from, to] = rangeOf(trace.lines[at]!);
      const next = flushes.find((i) => {
        const [start, end] = rangeOf(trace.lines[i]!);
        return i > at && start <= from && end >= to;
      });
      const previous = flushes.findLast((i) => i < at && rangeOf(trace.lines[i]!)[1] >= to) ?? -1;
      // An address that ended before the invalidation and begins again after it, before any other that covers it.
      const determined = trace.lives.some(
        (one) =>
          one.from > at &&
          (next === undefined || one.from < next) &&
          one.address >= from &&
          one.address <= to &&
          trace.lives.some((old) => old.address === one.address && old.to < at && old.to > previous),
      );
      return { lines: without(trace, [at]), expected: ["iova-reuse-before-flush"], allowed: [], determined };
    },
  },
  {
    name: "drop an unmap that nothing names",
    plant(trace, random) {
      const unnamed = unnamedOf(trace);
      const one = unnamed[random.below(unnamed.length)];
      if (!one) return undefined;
      const line = trace.lines[one.at]!;
      const again = trace.lines.some(
        ({ name, address, size }, i) =>
          i > one.at && name === "map" && address < line.address + line.size && address + size > line.address,
      );
      const lifeNs = ({ at, from }: Unnamed): number => trace.lines[at]!.timeNs - trace.lines[from]!.timeNs;
      const longest = Math.max(...unnamed.map(lifeNs));
      const behind = unnamed.filter(({ from }) => from > one.from).length;
      const age = trace.lastNs - trace.lines[one.from]!.timeNs;
      // Without dma:* events it may be coherent memory, which is meant to stay.
      const namesAllocations = trace.lines.some(({ name }) => /^dma_(?!iova_)/.test(name));
      // A second domain may use the address as well: then nothing can be said.
      const determined = namesAllocations && !again && behind >= 16 && age > 2 * longest;
      return { lines: without(trace, [one.at]), expected: ["leak"], allowed: [], determined };
    },
  },
  {
    name: "shuffle the CPUs (no fault)",
    plant(trace, random) {
      const lines = textOf(trace).map((text) => text.replace(/\[\d+\]/, `[00${random.below(4)}]`));
      return { lines, expected: [], allowed: [], determined: false };
    },
  },
  {
    name: "cut at the beginning (no fault)",
    plant(trace, random) {
      const lines = textOf(trace).slice(random.below(trace.lines.length));
      return { lines, expected: [], allowed: [], determined: false };
    },
  },
  {
    name: "cut at the end (no fault)",
    plant(trace, random) {
      const lines = textOf(trace).slice(0, 1 + random.below(trace.lines.length));
      return { lines, expected: [], allowed: [], determined: false };
    },
  },
];

/** The bytes that a `cache_tag_flush_range` invalidates, both ends inclusive. */
function rangeOf(line: Line): [number, number] {
  const found = /\[0x([0-9a-f]+)-0x([0-9a-f]+)\]/.exec(line.text);
  return found ? [Number.parseInt(found[1]!, 16), Number.parseInt(found[2]!, 16)] : [0, -1];
}
