/**
 * Where one is in the machine: the lesson, its program as it stands in the editor, what was done, and the machine after it.
 *
 * Idea: what was done is a list; the machine is what its program and that list make of it. So going back is doing all but the last again, in
 * a new worker, and nothing can be left over. The lesson and the number of steps are in the URL.
 */
import { batch, computed, type ReadonlySignal, signal } from "@preact/signals";
import { type CallError, WorkerCalls } from "../frame/calls.ts";
import { go, move, route } from "../frame/route.ts";
import { programOf } from "./lessons/lesson.ts";
import { LESSONS } from "./lessons/lessons.ts";
import type { Action } from "./model/actions.ts";
import { LINES_BEFORE, sourceOf } from "./model/program.ts";
import type { Standing, Trouble } from "./model/stage.ts";
import type { MachineCalls } from "./worker.ts";

/** A program has so long from one step to the next. */
const LIMIT_MS = 4000;
/** Between two steps of a run. */
const RUN_MS = 1100;

/** What was done: a step of the program, or a button. */
type Input = "next" | Action;

/** One thing that was done, as it is told. */
interface Done {
  readonly input: Input;
  readonly title: string;
  readonly sentence: string;
}

/** The lesson that was chosen. */
const lessonName = signal(LESSONS[0]!.name);
/** Its breakage, by number; undefined: whole. */
export const broken = signal<number | undefined>(undefined);
/** The program. */
export const text = signal("");
/** What was done since the program began. */
export const done = signal<readonly Done[]>([]);
/** The machine now, and before the last thing that was done. */
export const standing = signal<Standing | undefined>(undefined);
export const before = signal<Standing | undefined>(undefined);
export const trouble = signal<Trouble | undefined>(undefined);
export const running = signal(false);
export const busy = signal(false);

export const lesson = computed(() => LESSONS.find(({ name }) => name === lessonName.value) ?? LESSONS[0]!);
/** The program is not as the lesson has it. */
export const edited: ReadonlySignal<boolean> = computed(() => text.value !== programOf(lesson.value, broken.value));

let calls: WorkerCalls<MachineCalls> | undefined;
/** Of the program that runs: answers of one before it are of no interest. */
let generation = 0;

/** Begins what the URL names. */
export function beginFromRoute(): void {
  const { view, at } = route.value;
  if (view !== "machine") return;
  const name = LESSONS.find((each) => each.name === at["lesson"])?.name ?? LESSONS[0]!.name;
  const number = at["broken"] === undefined ? undefined : Number(at["broken"]);
  const steps = Math.max(0, Math.min(200, Math.trunc(Number(at["step"] ?? 0)) || 0));
  const place = placeOf(name, number, steps);
  if (place === told) return;
  told = place;
  const same = name === lessonName.value && number === broken.value && standing.value !== undefined;
  lessonName.value = name;
  broken.value = number;
  if (!same) text.value = programOf(lesson.value, number);
  restart(Array.from({ length: steps }, () => "next"));
}

const stepsDone = (): number => done.value.filter(({ input }) => input === "next").length;

/** The place that the URL was last told of, or said: one that is here already is not gone to. */
let told: string | undefined;
const placeOf = (name: string, number: number | undefined, steps: number): string => [name, number, steps].join();

/** Says in the URL where one is. */
function tell(): void {
  const steps = stepsDone();
  told = placeOf(lessonName.value, broken.value, steps);
  move({ lesson: lessonName.value, step: steps > 0 ? String(steps) : undefined });
}

/** Another lesson, from its beginning. */
export function choose(name: string, breakage?: number): void {
  go("machine", { lesson: name, ...(breakage !== undefined && { broken: String(breakage) }) });
}

/** Runs the program anew, and does `inputs`. */
async function restart(inputs: readonly Input[] = []): Promise<void> {
  const own = ++generation;
  calls?.end();
  calls = new WorkerCalls<MachineCalls>("machine", sourceOf(text.value));
  const lines = text.value.split("\n").length;
  let now = await ask(own, (worker) => worker.call("begin", { lines }));
  let from: Standing | undefined;
  const all: Done[] = [];
  let failed = now === undefined;
  for (const input of inputs) {
    if (!now || (input === "next" && !now.ahead)) break;
    const after = await ask(own, asking(input));
    failed = after === undefined;
    if (!after) break;
    all.push(doneOf(input, now, after));
    [from, now] = [now, after];
  }
  if (own !== generation) return;
  show(all, from, failed ? undefined : now);
}

/** Does one thing. */
async function take(input: Input, from: Standing): Promise<void> {
  const own = generation;
  const now = await ask(own, asking(input));
  if (now && own === generation) show([...done.value, doneOf(input, from, now)], from, now);
}

const asking =
  (input: Input) =>
  (worker: WorkerCalls<MachineCalls>): Promise<Standing> =>
    input === "next" ? worker.call("next", undefined) : worker.call("act", input);

function doneOf(input: Input, from: Standing, now: Standing): Done {
  if (input !== "next") return { input, title: now.written ?? input.do, sentence: "" };
  return { input, title: from.ahead?.title ?? "", sentence: from.ahead?.sentence ?? "" };
}

/** All at once: what lies between is not shown. Without `now` the worker is gone, and said why. */
function show(all: readonly Done[], from: Standing | undefined, now: Standing | undefined): void {
  batch(() => {
    done.value = all;
    before.value = from;
    if (now) {
      standing.value = now;
      trouble.value = now.trouble;
    }
    tell();
  });
}

/** One call of the worker, within the limit of time. */
async function ask(
  own: number,
  call: (worker: WorkerCalls<MachineCalls>) => Promise<Standing>,
): Promise<Standing | undefined> {
  const worker = calls!;
  busy.value = true;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    worker.end();
  }, LIMIT_MS);
  try {
    const now = await call(worker);
    return own === generation ? now : undefined;
  } catch (error) {
    if (own !== generation) return undefined;
    const { message, line } = error as CallError;
    running.value = false;
    if (standing.value) standing.value = { ...standing.value, ahead: undefined };
    trouble.value = {
      message: late
        ? `no next step within ${LIMIT_MS / 1000} seconds: the program was ended`
        : message.replace(/^Uncaught /, ""),
      code: undefined,
      errno: undefined,
      line: late || line === undefined ? undefined : line - LINES_BEFORE,
    };
    return undefined;
  } finally {
    clearTimeout(timer);
    if (own === generation) busy.value = false;
  }
}

/** The program's next step. */
export async function next(): Promise<void> {
  const from = standing.value;
  if (from?.ahead && !busy.value) await take("next", from);
}

/** A button. */
export async function press(action: Action): Promise<void> {
  const from = standing.value;
  if (from && !busy.value) await take(action, from);
}

/** As it was before the last thing that was done. */
export function back(): void {
  running.value = false;
  restart(done.value.slice(0, -1).map(({ input }) => input));
}

/** From the beginning. */
export function again(): void {
  running.value = false;
  restart();
}

/** Step after step, until the end or a pause. */
export async function run(): Promise<void> {
  running.value = true;
  const own = generation;
  while (running.value && own === generation && standing.value?.ahead) {
    await next();
    if (standing.value?.ahead) await new Promise((wait) => setTimeout(wait, RUN_MS));
  }
  if (own === generation) running.value = false;
}

export function pause(): void {
  running.value = false;
}
