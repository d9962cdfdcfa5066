/**
 * Records through tracefs, without trace-cmd: an instance of the kernel's recorder for this recording alone.
 *
 * Idea: the pages of the kernel's ring buffers are taken as they are, CPU by CPU, into a file each, and put behind the
 * formats when the recording is over: a trace.dat of version 6. Binary and not text, because it is exact (all 64 bits of
 * every field, a mark where events were lost), a quarter of the size of text, and quicker to read.
 * Promises: the machine's own recorder is not touched; the instance goes away however the recording ends; what was recorded does
 * not, whatever fails.
 * Specified by: Linux's documentation of ftrace (instances, trace_pipe_raw).
 */
import { readFileSync } from "node:fs";
import { endianness, hostname, machine, release } from "node:os";
import { recordedHead } from "../../../trace/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import { cannotWrite } from "../files/output.ts";
import { isGone, OWNER, ownerName } from "../files/owner.ts";
import type { UndoOnExit } from "../files/undo-on-exit.ts";
import { CpuFiles, JOIN_UNIT, type Kept } from "./cpu-files.ts";
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
const INSTANCE = new RegExp(`^dmalink\\.(${OWNER.source})$`);
export const instanceName = (): string => `dmalink.${ownerName()}`;

/** Takes away the instances of recorders that are no more for certain; another container's cannot be told, and stays. */
export function removeStale(tracefs: Tracefs): void {
  for (const name of tracefs.list("instances")) {
    const owner = INSTANCE.exec(name)?.[1];
    if (owner === undefined || !isGone(owner)) continue;
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
/** Pages taken of one CPU before it is another's turn, and the end is looked for: 1 MiB. */
const TURN_PAGES = 256;

/** How a recording came out. */
interface Recorded {
  /** Why it ended before it should have, in words; the file holds what there was until then. */
  readonly trouble: string | undefined;
}

/**
 * Records until `start`'s promise is settled, and writes the file. What was recorded is never thrown away: if the disk fills, the
 * recording ends there and the file holds what there was; if even that cannot be, the parts stay and the error says how to join them.
 *
 * @throws EnvironmentError: tracefs refused, or the parts could not be joined, with the cure; what the promise was rejected with
 */
export async function recordWithTracefs(
  tracefs: Tracefs,
  plan: TracefsPlan,
  undo: UndoOnExit,
  start: () => Promise<unknown>,
): Promise<Recorded> {
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
  const head = (): Uint8Array => {
    const clock = tracefs.read(at("trace_clock")) ?? "";
    return headOf(tracefs, plan, { headerPage, headerEvent, clock }, cpus.sizes, cpus.stats(at("per_cpu")));
  };
  try {
    cpus.reserve(head().length);
  } catch (error) {
    throw cannotWrite(plan.file, error);
  }
  tracefs.write(at("tracing_on"), "1\n");
  let over = false;
  const ended = start().finally(() => {
    over = true;
  });
  ended.catch(() => undefined); // it is awaited below, after the last look
  let trouble: string | undefined;
  try {
    while (!over) {
      const pages = cpus.drain(TURN_PAGES);
      const wait = pages >= TURN_PAGES ? 0 : pages >= BUSY_PAGES ? BUSY_MS : IDLE_MS;
      await Promise.race([ended, sleep(wait)]).catch(() => undefined);
    }
    await ended;
    tracefs.write(at("tracing_on"), "0\n");
    // Nothing comes any more: what is left is what the buffers hold.
    while (cpus.drain(TURN_PAGES) > 0) await sleep(0);
  } catch (error) {
    if (cpus.isEmpty) throw error; // there is nothing to keep
    trouble = (cannotWrite(plan.file, error) as Error).message;
  }
  return keep(cpus, plan.file, head, trouble);
}

/** Joins what was recorded; if that fails, says where it lies. */
function keep(cpus: CpuFiles, file: string, head: () => Uint8Array, trouble: string | undefined): Recorded {
  try {
    const whole = head();
    cpus.close();
    cpus.join(file, whole);
  } catch (error) {
    throw cpus.isEmpty ? error : partsKept(error as Error, cpus.keep());
  }
  return { trouble };
}

/** Everything before the pages. */
function headOf(
  tracefs: Tracefs,
  plan: TracefsPlan,
  said: Pick<Parameters<typeof recordedHead>[0], "headerPage" | "headerEvent" | "clock">,
  sizes: readonly number[],
  stats: readonly string[],
): Uint8Array {
  const formats = [...plan.systems.map(({ name }) => name), ...(plan.stacks ? ["ftrace"] : [])].flatMap((system) =>
    tracefs
      .list(`events/${system}`)
      .map((event) => tracefs.read(`events/${system}/${event}/format`))
      .filter((text) => text !== undefined)
      .map((text) => ({ system, text })),
  );
  return recordedHead({
    ...said,
    littleEndian: endianness() === "LE",
    longSize: /64|s390x/.test(machine()) ? 8 : 4,
    formats,
    tasks: tracefs.read("saved_cmdlines") ?? "",
    ...(plan.stacks && { symbols: functionSymbols() }),
    system: `Linux ${hostname()} ${release()} ${machine()}`,
    cpus: sizes.map((size, i) => ({ size, stats: stats[i] ?? "" })),
  });
}

const partsKept = (error: Error, { parts, whole }: Kept): EnvironmentError =>
  new EnvironmentError(
    `${error.message}. What was recorded is kept, a file for each CPU. Make room, and join it:\n${
      whole === undefined
        ? `  trace-cmd restore -o recording.dat ${parts.map(({ path }) => path).join(" ")}`
        : [
            ...parts.map(
              ({ path, offset }) =>
                `  dd if=${path} of=${whole} bs=${JOIN_UNIT} seek=${offset / JOIN_UNIT} conv=notrunc`,
            ),
            `  mv ${whole} recording.dat`,
          ].join("\n")
    }`,
  );

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
