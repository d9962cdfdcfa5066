/**
 * Faults for clean traces: each one a small change to the printed form of a recorded trace, and what it must lead to.
 *
 * Idea: the printed lines are read by a model of their own, too simple to be wrong (an address of a device begins and ends),
 * so that what a fault does is known without the analyzer. A fault is *determined* when the events that remain leave
 * no other reading; a dropped unmap near the end of a recording is not, for instance: it may still be to come.
 * Not for: reading traces.
 */
import type { Random } from "../src/base/index.ts";

/** One printed event. */
export interface Line {
  readonly text: string;
  readonly cpu: number;
  readonly timeNs: number;
  readonly name: string;
  readonly device: string;
  /** DMA address or IOVA; -1: none. */
  readonly address: number;
  readonly size: number;
  readonly state: string;
}

/** A mapping in the clean trace: its lines by index. */
export interface Life {
  readonly kind: "one-shot" | "two-step";
  readonly device: string;
  readonly address: number;
  readonly size: number;
  readonly state: string;
  readonly from: number;
  readonly to: number;
  readonly begin: readonly number[];
  readonly end: readonly number[];
  readonly translated: boolean;
}

/** A trace with a fault in it. */
export interface Variant {
  readonly lines: readonly string[];
  /** Rules of which one must speak, if `determined`. */
  readonly expected: readonly string[];
  /** Rules that may speak as well: what follows from the same fault. */
  readonly allowed: readonly string[];
  readonly determined: boolean;
}

export interface Fault {
  readonly name: string;
  /** `undefined`: this trace has no place for it. */
  plant(trace: Clean, random: Random): Variant | undefined;
}

export interface Clean {
  readonly lines: readonly Line[];
  readonly lives: readonly Life[];
  readonly lastNs: number;
}

const EVENT = /^\s*(.+?)-(\d+)\s+\[(\d+)\]\s+(?:\S+\s+)?(\d+)\.(\d+):\s+(\w+):\s+(.*)$/;
const hexOf = (text: string, pattern: RegExp): number => {
  const found = pattern.exec(text);
  return found ? Number.parseInt(found[1]!, 16) : -1;
};

/** Reads printed lines. */
export function readClean(text: string): Clean {
  const lines = text.split("\n").flatMap((line): Line[] => {
    const match = EVENT.exec(line);
    if (!match) return line === "" || line.startsWith("cpus=") || line.startsWith("#") ? [] : [];
    const [, , , cpu, seconds, fraction, name, payload] = match;
    const probe = name!.startsWith("dma_iova_");
    const device = probe ? /dev="([^"]*)"/.exec(payload!)?.[1] : name!.startsWith("dma_") ? payload!.split(" ")[0] : "";
    return [
      {
        text: line,
        cpu: Number(cpu),
        timeNs: Number(seconds) * 1e9 + Number(fraction!.padEnd(9, "0")),
        name: name!,
        device: device ?? "",
        address: hexOf(payload!, probe ? /addr=(?:0x)?([0-9a-f]+)/ : /(?:dma_addr|iova)=(?:0x)?([0-9a-f]+)/),
        size: Number(/(?:size|mapped_len)=(\d+)/.exec(payload!)?.[1] ?? 0),
        state: /state=(\S+)/.exec(payload!)?.[1] ?? "",
      },
    ];
  });
  return { lines, lives: livesOf(lines), lastNs: lines.at(-1)?.timeNs ?? 0 };
}

/** One-shot mappings and two-step ranges that begin and end in the trace. */
function livesOf(lines: readonly Line[]): Life[] {
  const lives: Life[] = [];
  const open = new Map<string, { from: number; begin: number[] }>();
  /** The last iommu:map and iommu:unmap of each CPU. */
  const lastMap = new Map<number, number>();
  const lastUnmap = new Map<number, number>();
  lines.forEach((line, i) => {
    const beside = (last: Map<number, number>): number[] => {
      const at = last.get(line.cpu);
      return at !== undefined && lines[at]!.address === Math.floor(line.address / 4096) * 4096 ? [at] : [];
    };
    const key = line.state === "" ? `${line.device} ${line.address}` : line.state;
    if (line.name === "map") lastMap.set(line.cpu, i);
    else if (line.name === "unmap") lastUnmap.set(line.cpu, i);
    else if (line.name === "dma_map_phys") open.set(key, { from: i, begin: [...beside(lastMap), i] });
    else if (line.name === "dma_iova_try_alloc") open.set(key, { from: i, begin: [i] });
    else if (line.name === "dma_iova_link" || line.name === "dma_iova_sync") open.get(key)?.begin.push(i);
    else if (line.name === "dma_unmap_phys" || line.name === "dma_iova_destroy") {
      const began = open.get(key);
      if (!began) return;
      open.delete(key);
      const twoStep = line.name === "dma_iova_destroy";
      const start = lines[began.from]!;
      const after = lines.findIndex((one, at) => at > i && at < i + 50 && one.name === "unmap" && one.cpu === line.cpu);
      lives.push({
        kind: twoStep ? "two-step" : "one-shot",
        device: line.device,
        address: line.address,
        size: start.size,
        state: line.state,
        from: began.from,
        to: i,
        begin: began.begin,
        end: twoStep ? [i, ...(after > i ? [after] : [])] : [...beside(lastUnmap), i],
        translated: twoStep || began.begin.length > 1,
      });
    }
  });
  return lives;
}

const textOf = (clean: Clean): string[] => clean.lines.map(({ text }) => text);
const without = (clean: Clean, indices: readonly number[]): string[] =>
  clean.lines.filter((_, i) => !indices.includes(i)).map(({ text }) => text);
const edited = (clean: Clean, edits: ReadonlyMap<number, string>): string[] =>
  clean.lines.map(({ text }, i) => edits.get(i) ?? text);
const hex16 = (value: number): string => `0x${value.toString(16).padStart(16, "0")}`;

/** A line with another address. */
function moved(line: Line, to: number): string {
  const { text, name, size } = line;
  if (name === "map" || name === "unmap") {
    const page = Math.floor(to / 4096) * 4096;
    return text.replace(/iova=0x[0-9a-f]+ - 0x[0-9a-f]+/, `iova=${hex16(page)} - ${hex16(page + size)}`);
  }
  return text.replace(/dma_addr=[0-9a-f]+/, `dma_addr=${to.toString(16)}`);
}

const pick = (trace: Clean, random: Random, fits: (life: Life) => boolean): Life | undefined => {
  const lives = trace.lives.filter(fits);
  return lives.length === 0 ? undefined : lives[random.below(lives.length)];
};

/**
 * What `life` left unmapped must be seen as, if it must: its address is used again, its state is, or it is far older than
 * any other of its kind while others that began after it have ended.
 */
function leftAs(trace: Clean, life: Life): "leak" | "map-over-live" | undefined {
  const first = Math.floor(life.address / 4096);
  const last = Math.floor((life.address + life.size - 1) / 4096);
  const later = trace.lives.filter((other) => other.from > life.to && other.device === life.device);
  const overlap = later.find(
    (other) =>
      life.translated &&
      other.translated &&
      Math.floor(other.address / 4096) <= last &&
      Math.floor((other.address + other.size - 1) / 4096) >= first,
  );
  const reuse = life.kind === "two-step" ? later.find((other) => other.state === life.state) : undefined;
  const coherent = trace.lines.findIndex(
    ({ name, device, address, size }, i) =>
      i > life.to &&
      name === "dma_alloc" &&
      device === life.device &&
      life.translated &&
      Math.floor(address / 4096) <= last &&
      Math.floor((address + size - 1) / 4096) >= first,
  );
  if (overlap && (!reuse || overlap.from < reuse.from)) return "map-over-live";
  if (coherent >= 0) return "map-over-live";
  if (reuse) return "leak";
  const group = trace.lives.filter(
    (other) => other.kind === life.kind && other.device === life.device && other !== life,
  );
  const way = (one: Life): string | undefined => /dir=(\w+)/.exec(trace.lines[one.to]!.text)?.[1];
  const lives = group.filter((one) => life.kind === "two-step" || way(one) === way(life));
  const longest = Math.max(0, ...lives.map((one) => trace.lines[one.to]!.timeNs - trace.lines[one.from]!.timeNs));
  const age = trace.lastNs - trace.lines[life.from]!.timeNs;
  const behind = lives.filter((one) => one.from > life.from).length;
  return remapped(trace, life) && behind >= 8 && age > 2 * longest ? "leak" : undefined;
}

/** Whether the device's address is not the memory's: only then must it be given back. */
function remapped(trace: Clean, life: Life): boolean {
  if (life.kind === "two-step" || life.translated) return true;
  return hexOf(trace.lines[life.from]!.text, /phys_addr=([0-9a-f]+)/) !== life.address;
}

/** A direct mapping of memory that is mapped another time at once: which one ends cannot be told. */
const alone = (trace: Clean, life: Life): boolean =>
  remapped(trace, life) ||
  !trace.lines.some(
    (line, i) =>
      line.name === "dma_map_phys" &&
      line.address === life.address &&
      line.device === life.device &&
      i < life.to &&
      i !== life.from &&
      !trace.lives.some((one) => one.from === i && one.to < life.from),
  );

const LEFT = ["leak", "map-over-live"];

/** What is expected when `life` stays. */
function left(trace: Clean, life: Life): Pick<Variant, "expected" | "allowed" | "determined"> {
  const rule = leftAs(trace, life);
  return rule
    ? { expected: [rule], allowed: LEFT, determined: true }
    : { expected: LEFT, allowed: [], determined: false };
}

/** An `iommu:unmap` that no event names, and where its pages were mapped. */
interface Unnamed {
  readonly at: number;
  readonly from: number;
}

/** Two-step without probes: maps of adjacent pages, and one unmap that takes them all. */
function unnamedOf({ lines }: Clean): Unnamed[] {
  const unnamed: Unnamed[] = [];
  const mapped = new Map<number, number>();
  const before = new Map<number, string>();
  lines.forEach((line, i) => {
    if (line.name === "map") mapped.set(line.address, i);
    const previous = before.get(line.cpu) ?? "";
    before.set(line.cpu, line.name);
    if (line.name !== "unmap" || previous === "dma_free" || previous === "dma_iova_destroy") return;
    const next = lines.find((other, at) => at > i && at < i + 200 && other.cpu === line.cpu);
    const from = mapped.get(line.address);
    if (from !== undefined && next && next.name !== "dma_unmap_phys") unnamed.push({ at: i, from });
  });
  return unnamed;
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
        allowed: ["direction-mismatch", "double-unmap"],
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
        allowed: ["unmap-unknown", "map-over-live"],
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
      return { lines, expected: ["invalid-address"], allowed: ["double-unmap", "leak"], determined: true };
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
      // A second domain may use the address as well: then nothing can be said.
      const determined = !again && behind >= 16 && age > 2 * longest;
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
