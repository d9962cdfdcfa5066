/**
 * Judge of the HMM files: what a device saw of up to six processes, after each step of a long history.
 *
 * The file says only what changed. Here the whole state that it implies is kept, and compared with dmalink's after every line: the
 * word, the snapshot byte of each device, page map, device tables, shared pages, areas, and the notifier calls.
 */

import { DmaError, ERRNO, PAGE_SIZE, type PhysPage } from "../../src/base/index.ts";
import { HMM, PfnWords, rangeFault } from "../../src/consumers/hmm/index.ts";
import { SimulatedMachine } from "../../src/hosts/simulated/index.ts";
import {
  type Access,
  type Advice,
  AREA,
  Frames,
  SimulatedDeviceMemory,
  SimulatedFile,
  SimulatedProcess,
} from "../../src/hosts/simulated/process/index.ts";
import {
  type FaultOutcome,
  finish,
  type IntervalNotifier,
  type MemoryOwner,
  newPageEntry,
  USER_END,
  UserAddr,
} from "../../src/platform/index.ts";
import { Mirror, type TestDevice } from "./hmm-driver.ts";
import { Differences, type Header, type Judge, judgeLines, known, type Line } from "./judge.ts";
import { INVALIDATION_WORDS } from "./words.ts";

const SIGNALS: Readonly<Partial<Record<FaultOutcome, string>>> = {
  "no-area": "segv1",
  "no-permission": "segv2",
  "no-page": "bus2",
};

interface Person {
  readonly process: SimulatedProcess;
  readonly notifier: IntervalNotifier;
  /** What the file says of each page so far. */
  readonly expected: PageStates;
  expectedAreas: string;
}

type Value = number | readonly number[] | string;

/** Runs of contents, page by page. */
function* eachValue(runs: readonly (readonly [Value, number, number?])[]): Generator<string> {
  for (const [value, count, growing] of runs)
    for (let i = 0; i < count; i++) {
      const by = growing ? i : 0;
      if (typeof value === "string") yield value;
      else if (typeof value === "number") yield JSON.stringify([value + by, value + by]);
      else yield JSON.stringify(value.map((half) => half + by));
    }
}

const MODES = ".-rwx";
const MAP_LETTERS = "psfx";

/** What is known of each page, as two numbers: the word, page map and tables in one, the snapshot bytes in the other. */
class PageStates {
  readonly #words: Int32Array;
  readonly #snaps: Int32Array;
  #devices = 0;

  constructor(pages: number) {
    this.#words = new Int32Array(pages);
    this.#snaps = new Int32Array(pages);
  }

  set(page: number, word: number, snap: number, letters: number, tables: number): void {
    this.#words[page] = word | (letters << 11) | (tables << 15);
    this.#snaps[page] = snap;
  }

  /** As a file says it. */
  fill(page: number, count: number, word: string, snap: string, map: string, tables: string): void {
    this.#devices = tables.length;
    let bytes = 0;
    let modes = 0;
    for (let i = 0; i < tables.length; i++) {
      const byte = snap.slice(2 * i, 2 * i + 2);
      if (byte !== "..") bytes |= Number.parseInt(byte, 16) << (8 * i);
      modes |= MODES.indexOf(tables[i]!) << (3 * i);
    }
    let letters = 0;
    for (const letter of map) letters |= 1 << MAP_LETTERS.indexOf(letter);
    for (let i = page; i < page + count; i++) this.set(i, Number.parseInt(word, 16), bytes, letters, modes);
  }

  firstDifference(other: PageStates): number {
    for (let page = 0; page < this.#words.length; page++)
      if (this.#words[page] !== other.#words[page] || this.#snaps[page] !== other.#snaps[page]) return page;
    return -1;
  }

  /** For people: word, snapshot bytes, page map, tables. */
  text(page: number): string {
    const word = this.#words[page]!;
    const devices = Array.from({ length: this.#devices || 4 }, (_, i) => i);
    const snaps = devices.map((i) => ((this.#snaps[page]! >>> (8 * i)) & 0xff).toString(16).padStart(2, "0"));
    const letters = [...MAP_LETTERS].filter((_, i) => ((word >>> (11 + i)) & 1) !== 0);
    const modes = devices.map((i) => MODES[(word >>> (15 + 3 * i)) & 7]);
    return `${(word & 0x7ff).toString(16)}|${snaps.join("")}|${letters.join("")}|${modes.join("")}`;
  }
}

class Replay {
  readonly #arena = 2 ** 40 / PAGE_SIZE;
  readonly #pages: number;
  readonly #machine = new SimulatedMachine({ memoryBytes: 2 ** 32 });
  readonly #frames: Frames;
  readonly #devices: TestDevice[] = [];
  readonly #files = new Map<number, SimulatedFile>();
  readonly #people = new Map<number, Person>();
  readonly #owners = new Map<MemoryOwner, number>();
  #expectedShares = "[]";
  #events: unknown[][] = [];
  readonly differences = new Differences();

  constructor(header: Header) {
    this.#pages = header["arenaPages"] as number;
    this.#frames = new Frames({
      pages: this.#machine.pages,
      memory: this.#machine.memory,
      hugetlbPages: header["hugetlbPages"] as number,
    });
    for (const { dev, memory, owner } of header["devices"] as { dev: number; memory: string; owner: number }[])
      this.#addDevice(dev, memory, owner);
    for (const { file, type, pages, written, value } of header["files"] as Record<string, number>[]) {
      const made = new SimulatedFile({
        frames: this.#frames,
        name: `f${file}`,
        medium: type as unknown as "memfd",
        length: pages! * PAGE_SIZE,
      });
      for (let i = 0; i < written!; i++) made.write(i * PAGE_SIZE, filled(value! + i));
      this.#files.set(file!, made);
    }
    const process = new SimulatedProcess(this.#frames, { pid: 0 });
    this.#enter(0, process);
    for (const device of this.#devices) if (device) this.#open(process, device);
    this.#expect(header["pages"] as Run[]);
  }

  #addDevice(number: number, kind: string, owner: number): void {
    const who = { name: `device ${number}` };
    this.#owners.set(who, owner);
    const count = 2 ** 15;
    const isCoherent = kind === "coherent";
    const firstPage = isCoherent
      ? this.#machine.pages.allocatePages(count + 511)!
      : ((2 ** 30 + number * count) as PhysPage);
    const mirrors = new Map<SimulatedProcess, Mirror>();
    const memory: SimulatedDeviceMemory = new SimulatedDeviceMemory({
      frames: this.#frames,
      kind: isCoherent ? "device-coherent" : "device-private",
      owner: who,
      firstPage: (Math.ceil(firstPage / 512) * 512) as PhysPage,
      pages: count,
      driver: {
        *bringBack(process, address, page, order) {
          const mirror = [...mirrors.values()].find((each) => each.process.memory === process);
          return yield* memory.copyBack(process, address, page, order, mirror?.hooks);
        },
      },
    });
    this.#devices[number] = { number, owner: who, memory, mirrors };
  }

  #enter(number: number, process: SimulatedProcess): void {
    const notifier = process.memory.watch(UserAddr(0), USER_END, ({ kind, start, end, owner }) => {
      const event: unknown[] = [
        number,
        INVALIDATION_WORDS[kind],
        start / PAGE_SIZE - this.#arena,
        (end - start) / PAGE_SIZE,
      ];
      if (owner) event.push(this.#owners.get(owner));
      if (kind !== "release") this.#events.push(event);
      return true;
    });
    this.#people.set(number, { process, notifier, expected: new PageStates(this.#pages), expectedAreas: "[]" });
  }

  #open(process: SimulatedProcess, device: TestDevice): void {
    device.mirrors.set(process, new Mirror(process, device, this.#machine.memory));
  }

  #address(page: number): UserAddr {
    return UserAddr((this.#arena + page) * PAGE_SIZE);
  }

  /** Does what the line says, and gives what the line should say of it. */
  run(line: Line): Record<string, unknown> {
    const op = line["op"] as string;
    const n = (key: string): number => line[key] as number;
    const { process } = this.#people.get(n("s")) ?? { process: undefined as unknown as SimulatedProcess };
    const { memory } = process ?? {};
    const page = n("page");
    const count = n("n");
    const address = this.#address(page);
    const length = count * PAGE_SIZE;
    const mirror = (): Mirror => this.#devices[n("dev")]!.mirrors.get(process)!;
    const virtual = this.#arena + page;
    switch (op) {
      case "note":
        return {};
      case "mmap":
        return answer(() => {
          const kind = line["kind"] as string;
          memory.map({
            address,
            length,
            access: line["prot"] as Access,
            shared: kind.endsWith("Shared"),
            hugetlb: kind.startsWith("huge"),
            ...(kind.startsWith("file") && { file: this.#files.get(n("file"))!, offset: n("off") * PAGE_SIZE }),
            replace: line["over"] === true,
          });
        });
      case "munmap":
        return answer(() => memory.unmap(address, length));
      case "mprotect":
        return answer(() => memory.protect(address, length, line["prot"] as Access));
      case "mremap": {
        const to = line["to"] === undefined ? undefined : this.#address(n("to"));
        const keep = line["dontUnmap"] === true;
        return answer(() => memory.remap(address, length, n("newN") * PAGE_SIZE, to, keep));
      }
      case "madvise":
        return answer(() => memory.advise(address, length, line["advice"] as Advice));
      case "cpuRead": {
        const values: string[] = [];
        for (let i = 0; i < count; i++) values.push(this.#cpuRead(process, page + i));
        return { values };
      }
      case "cpuWrite": {
        const results: string[] = [];
        for (let i = 0; i < count; i++) results.push(this.#cpuWrite(process, page + i, n("value") + i, line["half"]));
        const failed = results.some((each) => each !== "[0,0]");
        return failed || line["result"] ? { result: results } : {};
      }
      case "fork": {
        const child = process.fork();
        this.#enter(n("child"), child);
        return { ret: 0 };
      }
      case "exit": {
        const { notifier } = this.#people.get(n("s"))!;
        notifier.remove();
        process.exit();
        this.#people.delete(n("s"));
        for (const device of this.#devices) device?.mirrors.get(process)?.close();
        return {};
      }
      case "devOpen":
        this.#open(process, this.#devices[n("dev")]!);
        return { ret: 0 };
      case "devClose":
        mirror().close();
        return { ret: 0 };
      case "release":
        this.#devices[n("dev")]!.memory.evict();
        return { ret: 0 };
      case "failNextAlloc":
        mirror().failNext = true;
        return { ret: 0 };
      case "devRead":
      case "devWrite":
        return answer(() => {
          const value = op === "devWrite" ? n("value") : undefined;
          const { faults, values } = mirror().access(virtual, count, value);
          return {
            cpages: count,
            faults,
            ...(value === undefined && { values: values.map((v) => JSON.stringify(v)) }),
          };
        });
      case "toDevice":
        return answer(() => {
          const values = mirror().toDevice(virtual, count);
          if (!values) throw new DmaError("ERR_DMA_TEST", "ENOENT", "a page has no entry", {});
          return { cpages: count, values: values.map((v) => JSON.stringify(v)) };
        });
      case "toSystem":
        return answer(() => ({ cpages: mirror().toSystem(virtual, count) }));
      case "exclusive":
        return answer(() => ({
          cpages: count,
          values: mirror()
            .exclusive(virtual, count)
            .map((v) => JSON.stringify(v)),
        }));
      case "checkExclusive":
        return { ret: mirror().hasExclusive(virtual, count) ? -1 : 0 };
      case "hmmRange":
        return this.#hmmRange(n("s"), page, count, line);
      case "fileWrite":
        return { ret: this.#files.get(n("file"))!.write(n("off") * PAGE_SIZE, filled(n("value"))) };
      case "fileRead": {
        const bytes = new Uint8Array(PAGE_SIZE);
        const ret = this.#files.get(n("file"))!.read(n("off") * PAGE_SIZE, bytes);
        return { ret, values: [JSON.stringify(halves(bytes))] };
      }
      case "filePunch":
        return answer(() => this.#files.get(n("file"))!.punch(n("off") * PAGE_SIZE, (n("off") + count) * PAGE_SIZE));
      case "fileTruncate":
        return answer(() => this.#files.get(n("file"))!.truncate(count * PAGE_SIZE));
      default:
        return known("the operation", {}, op);
    }
  }

  #cpuRead(process: SimulatedProcess, page: number): string {
    const address = this.#address(page);
    const outcome = process.memory.touch(address, false);
    if (outcome !== "done") return SIGNALS[outcome] ?? outcome;
    const bytes = new Uint8Array(PAGE_SIZE);
    process.memory.read(address, bytes);
    return JSON.stringify(halves(bytes));
  }

  #cpuWrite(process: SimulatedProcess, page: number, value: number, half: unknown): string {
    const address = this.#address(page);
    const outcome = process.memory.touch(address, true);
    if (outcome !== "done") return SIGNALS[outcome] ?? outcome;
    const start = half === "high" ? PAGE_SIZE / 2 : 0;
    process.memory.write(
      UserAddr(address + start),
      half === undefined ? filled(value) : filled(value).subarray(0, PAGE_SIZE / 2),
    );
    return "[0,0]";
  }

  #hmmRange(who: number, page: number, count: number, line: Line): Record<string, unknown> {
    const { process, notifier } = this.#people.get(who)!;
    const words = new PfnWords(count);
    let at = 0;
    for (const [word, times] of (line["in"] ?? []) as [string, number][])
      for (let i = 0; i < times; i++) words.flags[at++] = Number.parseInt(word, 16);
    const owner = this.#devices.find((device) => device && this.#owners.get(device.owner) === line["owner"])?.owner;
    const asked = (key: string): number => {
      const flags = (line[key] ?? "") as string;
      return (flags.includes("F") ? HMM.valid : 0) | (flags.includes("W") ? HMM.write : 0);
    };
    let retries = 0;
    const result = answer(() => {
      for (;;) {
        const sequence = notifier.readBegin();
        const done = finish(
          rangeFault({
            memory: process.memory,
            notifier,
            sequence,
            start: this.#address(page),
            end: this.#address(page + count),
            words,
            ask: asked("default"),
            mask: asked("mask"),
            ...(owner && { owner }),
          }),
        );
        if (done) return {};
        retries++;
      }
    });
    const out: string[] = [];
    for (const [word, times] of (line["out"] ?? []) as [string, number][])
      for (let i = 0; i < times; i++) out.push(word);
    const found = Array.from(words.flags, (word) => word.toString(16));
    this.differences.same("out", out, found);
    return { ...result, retries };
  }

  /** Compares what a line says of itself. */
  compare(line: Line, found: Record<string, unknown>): void {
    for (const [key, value] of Object.entries(found)) {
      const isRuns = key === "values" || key === "result";
      const expected = isRuns && line[key] ? [...eachValue(line[key] as [Value, number][])] : line[key];
      this.differences.same(key, expected, value);
    }
    this.#compareEvents(line);
    if (line["pages"]) this.#expect(line["pages"] as Run[]);
    for (const [number, person] of this.#people) {
      if (line[`vmas${number}`]) person.expectedAreas = JSON.stringify(line[`vmas${number}`]);
    }
    if (line["op"] === "fork" && !line[`vmas${line["child"]}`])
      this.#people.get(line["child"] as number)!.expectedAreas = "[]";
    if (line["shares"]) this.#expectedShares = JSON.stringify(line["shares"]);
    this.#compareState();
  }

  #compareEvents(line: Line): void {
    const order = (events: unknown[][]): unknown[][] => {
      const isSet = ["devClose", "release", "exit"].includes(line["op"] as string);
      const key = (event: unknown[]): string => JSON.stringify(event);
      const groups = [...events].sort((a, b) => (a[0] as number) - (b[0] as number));
      return isSet ? groups.sort((a, b) => (key(a) < key(b) ? -1 : 1)) : groups;
    };
    this.differences.same("events", order((line["events"] ?? []) as unknown[][]), order(this.#events));
    this.#events = [];
  }

  #expect(runs: readonly Run[]): void {
    for (const [s, page, count, word, snap, pm, pt] of runs) {
      const person = this.#people.get(s);
      if (!person) continue;
      person.expected.fill(page, count, word, snap, pm, pt);
    }
  }

  #compareState(): void {
    const first = new Map<PhysPage, [number, number]>();
    const shares: (readonly [number, number, number, number, number])[] = [];
    for (const [number, person] of [...this.#people].sort(([a], [b]) => a - b)) {
      const found = this.#stateOf(person.process);
      const different = found.states.firstDifference(person.expected);
      if (different >= 0)
        this.differences.add(
          `process ${number}, page ${different}: expected ${person.expected.text(different)}, found ${found.states.text(different)}`,
        );
      let last: [number, number, number, number, number] | undefined;
      for (const [page, frame] of found.frames) {
        const place = first.get(frame);
        if (!place) {
          first.set(frame, [number, page]);
          continue;
        }
        const [s2, page2] = place;
        if (last && last[1] + last[2] === page && last[3] === s2 && last[4] + last[2] === page2) last[2]++;
        else {
          last = [number, page, 1, s2, page2];
          shares.push(last);
        }
      }
      const areas = JSON.stringify(this.#areasOf(person.process));
      if (areas !== person.expectedAreas)
        this.differences.add(`areas of ${number}: expected ${person.expectedAreas}, found ${areas}`);
    }
    const text = JSON.stringify(shares);
    if (text !== this.#expectedShares) this.differences.add(`shares: expected ${this.#expectedShares}, found ${text}`);
  }

  #stateOf(process: SimulatedProcess): { states: PageStates; frames: [number, PhysPage][] } {
    const { memory } = process;
    const { pages } = memory;
    const look = (owner?: MemoryOwner): PfnWords => {
      const words = new PfnWords(this.#pages);
      const notifier = memory.watch(this.#address(0), this.#address(this.#pages), () => true);
      finish(
        rangeFault({
          memory,
          notifier,
          sequence: notifier.readBegin(),
          start: this.#address(0),
          end: this.#address(this.#pages),
          words,
          ...(owner && { owner }),
        }),
      );
      notifier.remove();
      return words;
    };
    const words = look();
    const mirrors = Array.from(this.#devices, (device) => device?.mirrors.get(process));
    // What a device sees differs from what all see only where it has memory of its own.
    const views = mirrors.map((mirror) =>
      mirror && mirror.device.memory.pagesInUse > 0 ? look(mirror.device.owner) : mirror && words,
    );
    const states = new PageStates(this.#pages);
    const frames: [number, PhysPage][] = [];
    const entry = newPageEntry();
    for (let page = 0; page < this.#pages; page++) {
      const address = this.#address(page);
      let snap = 0;
      let tables = 0;
      for (let i = 0; i < mirrors.length; i++) {
        const mirror = mirrors[i];
        if (mirror) snap |= this.#snapshot(views[i]!, page, mirror.device) << (8 * i);
        const mode = mirror ? (mirror.table.get(this.#arena + page)?.mode ?? "-") : ".";
        tables |= MODES.indexOf(mode) << (3 * i);
      }
      const map = memory.pagemap(address);
      const letters = (map.present ? 1 : 0) | (map.swapped ? 2 : 0) | (map.file ? 4 : 0) | (map.mappedOnce ? 8 : 0);
      states.set(page, words.flags[page]!, snap, letters, tables);
      memory.entryAt(address, entry);
      if (entry.page !== 0 && !pages.isZeroPage(entry.page)) frames.push([page, entry.page]);
    }
    return { states, frames };
  }

  #snapshot(view: PfnWords, page: number, { owner }: TestDevice): number {
    const flags = view.flags[page]!;
    if ((flags & HMM.error) !== 0) return 0xff;
    if ((flags & HMM.valid) === 0) return 0;
    const frame = view.page(page);
    const kind = this.#frames.kindOf(frame);
    let byte = (flags & HMM.write) !== 0 ? 2 : 1;
    if (kind === "device-private") byte |= 0x20;
    else if (kind === "device-coherent") byte |= this.#frames.ownerOf(frame) === owner ? 0x40 : 0x50;
    else if (view.order(page) === 0 && this.#frames.isZeroPage(frame)) byte |= 0x10;
    if (view.order(page) === 9) byte |= 4;
    return byte;
  }

  #areasOf(process: SimulatedProcess): unknown[] {
    const { memory } = process;
    return memory.areas.map((area) => {
      const { flags, object } = memory.areaInfo(area.start)!;
      const access = `${area.readable ? "r" : "-"}${area.writable ? "w" : "-"}${area.executable ? "x" : "-"}${area.shared ? "s" : "p"}`;
      const letters = [
        [AREA.dontFork, "dc"],
        [AREA.wipeOnFork, "wf"],
        [AREA.hugetlb, "ht"],
        [AREA.huge, "hg"],
        [AREA.noHuge, "nh"],
      ] as const;
      const names = letters.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name);
      const start = area.start / PAGE_SIZE - this.#arena;
      return [
        start,
        (area.end - area.start) / PAGE_SIZE,
        access,
        object ?? "",
        area.fileOffset / PAGE_SIZE,
        names.join(" "),
      ];
    });
  }
}

type Run = readonly [number, number, number, string, string, string, string];

const filled = (value: number): Uint8Array => new Uint8Array(new Uint32Array(PAGE_SIZE / 4).fill(value).buffer);

const halves = (bytes: Uint8Array): number[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [view.getUint32(0, true), view.getUint32(PAGE_SIZE / 2, true)];
};

/** What a call gives: 0 and more, or the negative number of its error. */
function answer(call: () => unknown): Record<string, unknown> {
  try {
    return { ret: 0, ...((call() as Record<string, unknown> | undefined) ?? {}) };
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    return { ret: -ERRNO[error.errno] };
  }
}

const judgeHmm: Judge = (header, lines) => {
  const replay = new Replay(header);
  return judgeLines(lines, true, (line) => {
    replay.compare(line, replay.run(line));
    return replay.differences.take();
  });
};

export const judges: Readonly<Record<string, Judge>> = { hmm: judgeHmm };
