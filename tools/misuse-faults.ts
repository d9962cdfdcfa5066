/**
 * Misuse of the DMA API for clean traces: what a kernel with its DMA checks on would have warned of, planted into recordings of one without.
 *
 * Each is the lines that the wrong call would have written, where it would have written them.
 */
import { type Clean, edited, type Life, type Line, moved, pick, remapped, textOf } from "./clean-trace.ts";
import type { Fault } from "./faults.ts";

const PAGE = 4096;
const oneShot = (life: Life): boolean => life.kind === "one-shot";

/** What stands before the name of an event, with the time of `line` and `extraNs` more. */
function frontOf({ text, name, timeNs }: Line, extraNs: number): string {
  const at = timeNs + extraNs;
  const seconds = `${Math.floor(at / 1e9)}.${String(Math.floor((at % 1e9) / 1000)).padStart(6, "0")}`;
  const front = text.slice(0, text.indexOf(` ${name}:`));
  return front.replace(/\d+\.\d+:$/, `${seconds}:`);
}

const wayOf = (trace: Clean, life: Life): string =>
  /dir=(\w+)/.exec(trace.lines[life.from]!.text)?.[1] ?? "FROM_DEVICE";

/** `more` behind line `at`; before the first for -1. */
const behind = (trace: Clean, at: number, more: readonly string[]): string[] => {
  const lines = textOf(trace);
  return [...lines.slice(0, at + 1), ...more, ...lines.slice(at + 1)];
};

function sync(trace: Clean, life: Life, at: number, address: number, size: number): string {
  return `${frontOf(trace.lines[at]!, 0)} dma_sync_single_for_cpu: ${life.device} dir=${wayOf(trace, life)} dma_addr=${address.toString(16)} size=${size}`;
}

/** The `dma_free` lines whose memory the recording saw allocated, by one who releases drivers, and that nobody takes again. */
function released(trace: Clean): { readonly free: number; readonly unmap: number }[] {
  const found: { free: number; unmap: number }[] = [];
  trace.lines.forEach((line, free) => {
    if (line.name !== "dma_free" || !/^\s*(?:modprobe|rmmod)-/.test(line.text)) return;
    const same = (one: Line): boolean => one.device === line.device && one.address === line.address;
    if (!trace.lines.some((one, i) => i < free && one.name === "dma_alloc" && same(one))) return;
    if (trace.lines.some((one, i) => i > free && same(one))) return;
    const page = Math.floor(line.address / PAGE) * PAGE;
    const unmap = trace.lines.findIndex((one, i) => i > free && one.name === "unmap" && one.address === page);
    found.push({ free, unmap });
  });
  return found;
}

/** The trace with `life` as a scatterlist of two entries that lie one behind the other; its unmap names the first `ended` of them. */
function asList(trace: Clean, life: Life, ended: number): string[] | undefined {
  const map = trace.lines[life.from]!;
  const phys = /phys_addr=(?:0x)?([0-9a-f]+)/.exec(map.text)?.[1];
  const unmap = Math.min(...life.end);
  if (phys === undefined || life.size < 2 || unmap === life.to) return undefined;
  const way = wayOf(trace, life);
  const first = Number.parseInt(phys, 16);
  const entries = [first, first + Math.floor(life.size / 2)].map((at) => `0x${at.toString(16)}`);
  const begun = `${frontOf(map, 0)} dma_map_sg: ${life.device} dir=${way} nents=2/2 ents=1/1 dma_addrs={0x${life.address.toString(16)}} sizes={0x${life.size.toString(16)}} phys_addrs={${entries.join(",")}} attrs=`;
  // The kernel writes the end of a list before it takes the pages back.
  const over = `${frontOf(trace.lines[unmap]!, 0)} dma_unmap_sg: ${life.device} dir=${way} phys_addrs={${entries.slice(0, ended).join(",")}} attrs=`;
  return trace.lines.flatMap(({ text }, i) =>
    i === life.from ? [begun] : i === unmap ? [over, text] : i === life.to ? [] : [text],
  );
}

const asListOf =
  (ended: number, expected: readonly string[]): Fault["plant"] =>
  (trace, random) => {
    const life = pick(trace, random, (one) => oneShot(one) && one.translated && one.size >= 2);
    const lines = life && asList(trace, life, ended);
    return lines && { lines, expected, allowed: [], determined: expected.length > 0 };
  };

export const MISUSE: readonly Fault[] = [
  { name: "unmap a scatterlist with one entry less", plant: asListOf(1, ["entry-count"]) },
  { name: "unmap a scatterlist with all its entries (no fault)", plant: asListOf(2, []) },
  {
    name: "a device that drives fewer address bits than it is given",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && one.address >= PAGE);
      if (!life) return undefined;
      const bits = Math.floor(Math.log2(life.address));
      return {
        lines: textOf(trace),
        expected: ["beyond-device-width"],
        allowed: [],
        determined: true,
        deviceBits: new Map([[life.device, bits]]),
      };
    },
  },
  {
    name: "a device that drives all address bits (no fault)",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const deviceBits = new Map([[life.device, 64]]);
      return { lines: textOf(trace), expected: [], allowed: [], determined: false, deviceBits };
    },
  },
  {
    name: "the kernel's own DMA checks warn",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const at = `[device address=0x${life.address.toString(16).padStart(16, "0")}]`;
      const said = [
        `device driver frees DMA memory with different size ${at} [map size=${life.size} bytes] [unmap size=${life.size + 8} bytes]`,
        `device driver tries to free DMA memory it has not allocated ${at} [size=${life.size} bytes]`,
        `device driver failed to check map error${at} [size=${life.size} bytes] [mapped as single]`,
      ][random.below(3)]!;
      const line = `${frontOf(trace.lines[life.to]!, 0)} console: DMA-API: drv ${life.device}: ${said}`;
      return { lines: behind(trace, life.to, [line]), expected: ["dma-api-report"], allowed: [], determined: true };
    },
  },
  {
    name: "sync more than is mapped",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && remapped(trace, one));
      if (!life) return undefined;
      const size = life.size + 64 * (1 + random.below(200));
      const lines = behind(trace, life.from, [sync(trace, life, life.from, life.address, size)]);
      return { lines, expected: ["sync-outside"], allowed: [], determined: true };
    },
  },
  {
    name: "sync after the unmap",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && remapped(trace, one));
      if (!life) return undefined;
      const offset = random.below(2) === 0 ? 0 : Math.floor(life.size / 2);
      const lines = behind(trace, life.to, [sync(trace, life, life.to, life.address + offset, life.size - offset)]);
      return { lines, expected: ["sync-outside"], allowed: [], determined: true };
    },
  },
  {
    name: "sync before the map",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && remapped(trace, one));
      if (!life) return undefined;
      const at = Math.min(...life.begin);
      const lines = behind(trace, at - 1, [sync(trace, life, at, life.address, life.size)]);
      return { lines, expected: ["sync-outside"], allowed: [], determined: true };
    },
  },
  {
    name: "sync what is mapped (no fault)",
    plant(trace, random) {
      const life = pick(trace, random, oneShot);
      if (!life) return undefined;
      const lines = behind(trace, life.from, [sync(trace, life, life.from, life.address, life.size)]);
      return { lines, expected: [], allowed: [], determined: false };
    },
  },
  {
    name: "end a mapping as coherent memory",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && remapped(trace, one));
      if (!life) return undefined;
      const line = trace.lines[life.to]!;
      const free = `${frontOf(line, 0)} dma_free: ${life.device} dir=BIDIRECTIONAL dma_addr=${life.address.toString(16)} size=${life.size} virt_addr=0xffff888000000000 attrs=`;
      // The kernel writes this one before it takes the pages back.
      const [first, ...rest] = [...life.end].sort((a, b) => a - b) as [number, ...number[]];
      const edits = new Map([
        [first, rest.length > 0 ? `${free}\n${trace.lines[first]!.text}` : free],
        ...rest.map((at): [number, string] => [at, ""]),
      ]);
      const lines = edited(trace, edits)
        .filter((text) => text !== "")
        .flatMap((text) => text.split("\n"));
      return { lines, expected: ["wrong-function"], allowed: [], determined: true };
    },
  },
  {
    name: "end coherent memory as a mapping",
    plant(trace, random) {
      const frees = trace.lines.flatMap((line, i) => (line.name === "dma_free" && allocated(trace, i) ? [i] : []));
      const at = frees[random.below(frees.length)];
      if (at === undefined) return undefined;
      const line = trace.lines[at]!;
      const page = Math.floor(line.address / PAGE) * PAGE;
      const unmap = trace.lines.findIndex(
        (one, i) => i > at && one.name === "unmap" && one.address === page && one.cpu === line.cpu,
      );
      const end = `${frontOf(line, 1000)} dma_unmap_phys: ${line.device} dir=BIDIRECTIONAL dma_addr=${line.address.toString(16)} size=${line.size} attrs=`;
      const lines = trace.lines.flatMap(({ text }, i) =>
        i === at ? (unmap < 0 ? [end] : []) : i === unmap ? [text, end] : [text],
      );
      return { lines, expected: ["wrong-function"], allowed: [], determined: true };
    },
  },
  {
    name: "free all but one at release",
    plant(trace, random) {
      const frees = released(trace);
      const one = frees[random.below(frees.length)];
      if (!one || frees.length < 2) return undefined;
      const lines = textOf(trace).filter((_, i) => i !== one.free && i !== one.unmap);
      return { lines, expected: ["left-at-release", "leak"], allowed: [], determined: true };
    },
  },
  {
    name: "bounce a piece that never fits",
    plant(trace, random) {
      const life = pick(
        trace,
        random,
        (one) =>
          oneShot(one) &&
          trace.lines[one.from - 1]?.name === "swiotlb_bounced" &&
          trace.lines[one.from - 1]!.cpu === trace.lines[one.from]!.cpu,
      );
      if (!life) return undefined;
      const size = 256 * 1024 + 2048 * (1 + random.below(256));
      const large = (text: string): string => text.replace(/size=\d+/, `size=${size}`);
      const edits = new Map([
        [life.from - 1, large(trace.lines[life.from - 1]!.text)],
        [life.from, large(trace.lines[life.from]!.text).replace(/dma_addr=[0-9a-f]+/, "dma_addr=ffffffffffffffff")],
        ...life.end.map((at): [number, string] => [at, ""]),
      ]);
      const lines = edited(trace, edits).filter((text) => text !== "");
      return { lines, expected: ["bounce-pool-full"], allowed: [], determined: true };
    },
  },
  {
    name: "map the same memory twice",
    plant(trace, random) {
      const life = pick(trace, random, (one) => oneShot(one) && one.translated && wayOf(trace, one) === "FROM_DEVICE");
      if (!life) return undefined;
      const to = 0x1_0000_0000 + random.below(0x1000) * PAGE + (life.address % PAGE);
      const twin = (at: number): string => moved(trace.lines[at]!, to);
      const lines = trace.lines.flatMap(({ text }, i) =>
        i === life.from ? [text, ...life.begin.map(twin)] : i === life.to ? [text, ...life.end.map(twin)] : [text],
      );
      return { lines, expected: ["same-memory"], allowed: [], determined: true };
    },
  },
  {
    name: "an allocation that fails",
    plant(trace, random) {
      const at = random.below(trace.lines.length);
      const device = trace.lines.find((line) => line.device !== "")?.device;
      if (device === undefined) return undefined;
      const line = `${frontOf(trace.lines[at]!, 0)} dma_alloc: ${device} dir=BIDIRECTIONAL dma_addr=0 size=4194304 virt_addr=(nil) flags=GFP_KERNEL attrs=`;
      return { lines: behind(trace, at, [line]), expected: ["invalid-address"], allowed: [], determined: true };
    },
  },
];

const allocated = (trace: Clean, free: number): boolean => {
  const { device, address } = trace.lines[free]!;
  const before = trace.lines.slice(0, free).filter((line) => line.device === device && line.address === address);
  return before.at(-1)?.name === "dma_alloc";
};
