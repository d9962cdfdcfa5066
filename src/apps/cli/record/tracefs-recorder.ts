/**
 * Records through tracefs, without trace-cmd: an instance of the kernel's recorder for this recording alone.
 *
 * Idea: the pages of the kernel's ring buffers are taken as they are, CPU by CPU, into a file each, and put behind the
 * formats when the recording is over: a trace.dat of version 6. Binary and not text, because it is exact (all 64 bits of
 * every field, a mark where events were lost), a quarter of the size of text, and quicker to read.
 * Promises: the machine's own recorder is not touched; the instance goes away however the recording ends.
 * Specified by: Linux's documentation of ftrace (instances, trace_pipe_raw).
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync, rmSync, writeSync } from "node:fs";
import { endianness, hostname, machine, release } from "node:os";
import { pagePadding, recordedHead } from "../../../trace/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import type { UndoOnExit } from "../files/undo-on-exit.ts";
import type { Tracefs } from "./tracefs.ts";

export interface TracefsPlan {
  readonly file: string;
  /** Systems whose events are switched on, with the filter for each; an empty filter lets all through. */
  readonly systems: readonly { readonly name: string; readonly filter: string }[];
  readonly bufferKiB: number;
  readonly clock: string;
  /** Each event with the stack that led to it. */
  readonly stacks: boolean;
}

/** Before a recording there may be what one that was killed left. */
const INSTANCE = /^dmalink\.(\d+)$/;
export const instanceName = (pid: number = process.pid): string => `dmalink.${pid}`;

/** Takes away the instances of recorders that are no more. */
export function removeStale(tracefs: Tracefs, isAlive: (pid: number) => boolean): void {
  for (const name of tracefs.list("instances")) {
    const pid = INSTANCE.exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    try {
      tracefs.write(`instances/${name}/tracing_on`, "0\n");
      tracefs.removeInstance(name);
    } catch {
      // Somebody looks into it: it stays.
    }
  }
}

/** The kernel's functions and their addresses; empty where it does not show them. Data symbols are no frames. */
function functionSymbols(): string {
  try {
    const lines = readFileSync("/proc/kallsyms", "utf8").split("\n");
    return lines
      .filter((line) => / [tTwW] /.test(line))
      .map((line) => `${line}\n`)
      .join("");
  } catch {
    return "";
  }
}

/** The longest wait for events, milliseconds; after a busy look the next one comes sooner. */
const IDLE_MS = 100;
const BUSY_MS = 10;
const BUSY_PAGES = 64;

/**
 * Records until `ended` is settled, and writes the file.
 *
 * @throws EnvironmentError: tracefs refused, with the cure; what `ended` was rejected with
 */
export async function recordWithTracefs(
  tracefs: Tracefs,
  plan: TracefsPlan,
  undo: UndoOnExit,
  start: () => Promise<unknown>,
): Promise<void> {
  const name = instanceName();
  const at = (file: string): string => `instances/${name}/${file}`;
  tracefs.makeInstance(name);
  undo.add(`the instance ${name} of tracefs`, () => tracefs.removeInstance(name));
  tracefs.write(at("tracing_on"), "0\n");
  tracefs.write(at("buffer_size_kb"), `${plan.bufferKiB}\n`);
  if ((tracefs.read(at("trace_clock")) ?? "").split(/\s+/).includes(plan.clock))
    tracefs.write(at("trace_clock"), `${plan.clock}\n`);
  if (plan.stacks) tracefs.write(at("trace_options"), "stacktrace\n");
  for (const { name: system, filter } of plan.systems) {
    if (filter !== "") tracefs.write(at(`events/${system}/filter`), `${filter}\n`);
    tracefs.write(at(`events/${system}/enable`), "1\n");
  }
  const headerPage = tracefs.read(at("events/header_page")) ?? tracefs.read("events/header_page") ?? "";
  const headerEvent = tracefs.read(at("events/header_event")) ?? tracefs.read("events/header_event") ?? "";
  const cpus = new CpuFiles(tracefs, at("per_cpu"), plan.file, subBufferBytes(headerPage), undo);
  tracefs.write(at("tracing_on"), "1\n");
  let over = false;
  const ended = start().finally(() => {
    over = true;
  });
  ended.catch(() => undefined); // it is awaited below, after the last look
  while (!over) {
    const pages = cpus.drain();
    await Promise.race([ended, sleep(pages >= BUSY_PAGES ? BUSY_MS : IDLE_MS)]).catch(() => undefined);
  }
  tracefs.write(at("tracing_on"), "0\n");
  cpus.drain();
  const stats = cpus.stats(at("per_cpu"));
  const formats = [...plan.systems.map(({ name }) => name), ...(plan.stacks ? ["ftrace"] : [])].flatMap((system) =>
    tracefs
      .list(`events/${system}`)
      .map((event) => tracefs.read(`events/${system}/${event}/format`))
      .filter((text) => text !== undefined)
      .map((text) => ({ system, text })),
  );
  const tasks = tracefs.read("saved_cmdlines") ?? "";
  const clock = tracefs.read(at("trace_clock")) ?? "";
  cpus.close();
  await ended;
  const head = recordedHead({
    littleEndian: endianness() === "LE",
    longSize: /64|s390x/.test(machine()) ? 8 : 4,
    headerPage,
    headerEvent,
    formats,
    tasks,
    clock,
    ...(plan.stacks && { symbols: functionSymbols() }),
    system: `Linux ${hostname()} ${release()} ${machine()}`,
    cpus: cpus.sizes.map((size, i) => ({ size, stats: stats[i]! })),
  });
  cpus.join(plan.file, head);
}

const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** Bytes of a sub-buffer, from the description of its parts. */
function subBufferBytes(headerPage: string): number {
  const match = /field: char data;\s*offset:(\d+);\s*size:(\d+);/.exec(headerPage);
  if (!match)
    throw new EnvironmentError(
      "tracefs does not describe its pages (events/header_page): install trace-cmd, and record again",
    );
  return Number(match[1]) + Number(match[2]);
}

/** The pages of each CPU, from the kernel into a file. */
class CpuFiles {
  readonly sizes: number[] = [];
  readonly #tracefs: Tracefs;
  readonly #page: Uint8Array;
  readonly #cpus: { readonly name: string; readonly part: string; readonly target: number; source: number }[] = [];
  #open = true;

  constructor(tracefs: Tracefs, folder: string, file: string, pageBytes: number, undo: UndoOnExit) {
    this.#tracefs = tracefs;
    this.#page = new Uint8Array(pageBytes);
    const names = tracefs.list(folder).filter((name) => /^cpu\d+$/.test(name));
    names.sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)));
    undo.add("the files of the recording's parts", () => this.remove());
    for (const name of names) {
      const part = `${file}.${name}`;
      const target = openSync(part, "w+");
      this.#cpus.push({ name, part, target, source: -1 });
      this.#cpus.at(-1)!.source = tracefs.openPages(`${folder}/${name}/trace_pipe_raw`);
      this.sizes.push(0);
    }
  }

  /** Takes what is there; how many pages that was. */
  drain(): number {
    let pages = 0;
    for (const [i, { source, target }] of this.#cpus.entries())
      for (;;) {
        const length = this.#tracefs.readPage(source, this.#page);
        if (length === 0) break;
        // The end of a page may be left out; the file holds whole ones.
        if (length < this.#page.length) this.#page.fill(0, length);
        writeSync(target, this.#page);
        this.sizes[i]! += this.#page.length;
        pages++;
      }
    return pages;
  }

  stats(folder: string): string[] {
    return this.#cpus.map(({ name }) => this.#tracefs.read(`${folder}/${name}/stats`) ?? "");
  }

  /** The instance can only go away when nobody has its files open. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const { source } of this.#cpus) if (source >= 0) closeSync(source);
  }

  /** Head and parts, one behind the other. */
  join(file: string, head: Uint8Array): void {
    const whole = openSync(file, "w");
    try {
      writeSync(whole, head);
      const chunk = new Uint8Array(1 << 20);
      for (const { target } of this.#cpus) {
        const { size } = fstatSync(target);
        for (let at = 0; at < size; ) {
          const length = readSync(target, chunk, 0, chunk.length, at);
          if (length === 0) break;
          for (let done = 0; done < length; ) done += writeSync(whole, chunk, done, length - done);
          at += length;
        }
        writeSync(whole, new Uint8Array(pagePadding(size)));
      }
    } finally {
      closeSync(whole);
    }
  }

  remove(): void {
    this.close();
    for (const { part, target } of this.#cpus.splice(0)) {
      closeSync(target);
      rmSync(part, { force: true });
    }
  }
}
