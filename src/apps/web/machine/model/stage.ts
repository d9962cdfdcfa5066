/**
 * The stage: a program, its machine, and where it stands. What the worker serves, without the worker.
 *
 * Idea: the program runs from one `await step(…)` to the next, and the machine is looked at in between; buttons act on the machine that it
 * left, by the same library. A program is a function of nothing but itself: begun anew and taken as far, it stands in the same place, which
 * is how one goes back.
 * Promises: an error of the program, or of a button, is an answer with its words and line, and the machine stays as it is.
 * Not for: ending a program that never ends; the page ends its worker.
 */
import { DmaError } from "../../../../base/index.ts";
import { type Action, act } from "./actions.ts";
import { look } from "./look.ts";
import { modulesFor } from "./modules.ts";
import type { MachinePicture } from "./picture.ts";
import { lineIn, type Program, type ProgramTools } from "./program.ts";
import { Watched } from "./watched.ts";

/** A step that waits to be taken. */
interface StepAhead {
  readonly title: string;
  /** What to see once it was taken. */
  readonly sentence: string;
  /** Of the program, where that is known. */
  readonly line: number | undefined;
}

/** What went wrong, in the words of who noticed. */
export interface Trouble {
  readonly message: string;
  /** Of a DmaError. */
  readonly code: string | undefined;
  readonly errno: string | undefined;
  readonly line: number | undefined;
}

/** Where everything stands. */
export interface Standing {
  readonly picture: MachinePicture;
  /** undefined: the program has ended. */
  readonly ahead: StepAhead | undefined;
  readonly trouble: Trouble | undefined;
  /** What a button did, as a program would write it. */
  readonly written: string | undefined;
}

/** Frames of an error: the program's own is the outermost. */
const DEEP_STACK = 60;
/** Characters of one line that a program prints. */
const LONGEST_LINE = 2000;

/** Runs one program. */
export class Stage {
  readonly #watched = new Watched();
  readonly #lines: number;
  #ahead: StepAhead | undefined;
  #trouble: Trouble | undefined;
  #go: (() => void) | undefined;
  /** Told when the program waits or is over. */
  #stands: () => void = () => {};
  #over = false;

  /** @param lines of the program, for where its errors are */
  constructor(lines: number) {
    this.#lines = lines;
  }

  /** Runs `program` to its first step. */
  begin(program: Program): Promise<Standing> {
    Error.stackTraceLimit = DEEP_STACK;
    const tools: ProgramTools = {
      step: (title, sentence = "") => this.#wait(String(title), String(sentence)),
      console: this.#console(),
      from: importer(modulesFor(this.#watched)),
    };
    return this.#until(() => {
      program(tools).then(
        () => this.#end(undefined),
        (error: unknown) => this.#end(this.#troubleOf(error)),
      );
    });
  }

  /** Takes the step ahead; nothing happens where there is none. */
  next(): Promise<Standing> {
    const go = this.#go;
    this.#watched.beginStep();
    if (!go) return Promise.resolve(this.stand());
    this.#go = undefined;
    this.#ahead = undefined;
    return this.#until(go);
  }

  /** Does what a button says. */
  act(action: Action): Standing {
    this.#watched.beginStep();
    try {
      const written = act(this.#watched, action);
      return this.stand(undefined, written);
    } catch (error) {
      return this.stand(this.#troubleOf(error));
    }
  }

  /** Where everything stands. */
  stand(trouble: Trouble | undefined = this.#trouble, written?: string): Standing {
    return { picture: look(this.#watched), ahead: this.#ahead, trouble, written };
  }

  #until(begin: () => void): Promise<Standing> {
    return new Promise((done) => {
      this.#stands = () => done(this.stand());
      begin();
    });
  }

  #wait(title: string, sentence: string): Promise<void> {
    if (this.#go) return Promise.reject(new Error("this step begins while the one before waits: write await step(…)"));
    if (this.#over) return Promise.reject(new Error("the program is over"));
    this.#ahead = { title, sentence, line: lineIn(new Error("here").stack, this.#lines) };
    return new Promise((go) => {
      this.#go = go;
      this.#stands();
    });
  }

  #end(trouble: Trouble | undefined): void {
    this.#over = true;
    this.#go = undefined;
    this.#ahead = undefined;
    this.#trouble = trouble;
    this.#stands();
  }

  #troubleOf(error: unknown): Trouble {
    const known = error instanceof DmaError ? error : undefined;
    const { message, stack, name } = error instanceof Error ? error : new Error(`${error} was thrown`);
    const words = known || name === "Error" ? message : `${name}: ${message}`;
    return { message: words, code: known?.code, errno: known?.errno, line: lineIn(stack, this.#lines) };
  }

  #console(): ProgramTools["console"] {
    const say = (...parts: unknown[]): void =>
      this.#watched.happenings.say("said", parts.map(asText).join(" ").slice(0, LONGEST_LINE));
    return { log: say, info: say, warn: say, error: say };
  }
}

function asText(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null && !(value instanceof Error)) {
    try {
      return JSON.stringify(value, (_, each) => (typeof each === "bigint" ? `${each}` : each)) ?? String(value);
    } catch {
      return Object.prototype.toString.call(value); // it leads to itself
    }
  }
  return String(value);
}

/** What `import` does. */
const importer =
  (modules: Readonly<Record<string, Readonly<Record<string, unknown>>>>): ProgramTools["from"] =>
  (name, names) => {
    const module = Object.hasOwn(modules, name) ? modules[name] : undefined;
    if (!module) throw new Error(`there is no ${JSON.stringify(name)} here: ${Object.keys(modules).join(", ")}`);
    const lacking = names.filter((each) => !Object.hasOwn(module, each));
    if (lacking.length > 0) throw new Error(`${name} has no ${lacking.join(", ")}`);
    return module;
  };
