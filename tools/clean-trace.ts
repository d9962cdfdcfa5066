/**
 * A recorded trace in its printed form, read by a model too simple to be wrong: an address of a device begins and ends.
 *
 * What a fault in it does is known from this model, without the analyzer. Not for: reading traces.
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

export const textOf = (clean: Clean): string[] => clean.lines.map(({ text }) => text);
export const without = (clean: Clean, indices: readonly number[]): string[] =>
  clean.lines.filter((_, i) => !indices.includes(i)).map(({ text }) => text);
export const edited = (clean: Clean, edits: ReadonlyMap<number, string>): string[] =>
  clean.lines.map(({ text }, i) => edits.get(i) ?? text);
const hex16 = (value: number): string => `0x${value.toString(16).padStart(16, "0")}`;

/** A line with another address. */
export function moved(line: Line, to: number): string {
  const { text, name, size } = line;
  if (name === "map" || name === "unmap") {
    const page = Math.floor(to / 4096) * 4096;
    return text.replace(/iova=0x[0-9a-f]+ - 0x[0-9a-f]+/, `iova=${hex16(page)} - ${hex16(page + size)}`);
  }
  return text.replace(/dma_addr=[0-9a-f]+/, `dma_addr=${to.toString(16)}`);
}

export const pick = (trace: Clean, random: Random, fits: (life: Life) => boolean): Life | undefined => {
  const lives = trace.lives.filter(fits);
  return lives.length === 0 ? undefined : lives[random.below(lives.length)];
};

/**
 * What `life` left unmapped must be seen as, if it must: its address is used again, its state is, or it is far older than
 * any other of its kind while others that began after it have ended.
 */
export function leftAs(trace: Clean, life: Life): "leak" | "map-over-live" | undefined {
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
export function remapped(trace: Clean, life: Life): boolean {
  if (life.kind === "two-step" || life.translated) return true;
  return hexOf(trace.lines[life.from]!.text, /phys_addr=([0-9a-f]+)/) !== life.address;
}

/** A direct mapping of memory that is mapped another time at once: which one ends cannot be told. */
export const alone = (trace: Clean, life: Life): boolean =>
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

/** An `iommu:unmap` that no event names, and where its pages were mapped. */
export interface Unnamed {
  readonly at: number;
  readonly from: number;
}

/** Two-step without probes: maps of adjacent pages, and one unmap that takes them all. */
export function unnamedOf({ lines }: Clean): Unnamed[] {
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
