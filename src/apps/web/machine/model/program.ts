/**
 * A program for the machine, as it is written in the editor: JavaScript, with the library's own imports.
 *
 * Idea: it runs in a worker that is made for it, whose source is the program and then the worker's own: a page that allows no evaluation of
 * text allows that. Lines stay where they are, so that an error is shown at its line.
 * Promises: what is wrong with an import is said when it runs, at its line, with the names that there are.
 * Not for: TypeScript; nor an import that is not of names (`import * as`, a default).
 */

/** What a program is given besides its imports. */
export interface ProgramTools {
  /** Waits until the next step is asked for. What comes after it is that step: its name, and what to see then. */
  step(title: string, sentence?: string): Promise<void>;
  readonly console: Pick<Console, "log" | "info" | "warn" | "error">;
  /** What an import takes: the names of a module. */
  from(module: string, names: readonly string[]): Record<string, unknown>;
}

/** A program that is ready to run. */
export type Program = (tools: ProgramTools) => Promise<void>;

/** Lines before the program's own first one. */
export const LINES_BEFORE = 1;

/** Where a worker finds its program. */
export const PROGRAM_NAME = "dmalinkProgram";

const IMPORT = /^([ \t]*)import\s*\{([^{}]*)\}\s*from\s*(["'])([^"'\n]+)\3[ \t]*;?/gm;

/** The body of a function that does what `text` does, line by line. */
function bodyOf(text: string): string {
  return text.replace(IMPORT, (whole, indent: string, list: string, _quote: string, module: string) => {
    const names = list
      .split(",")
      .map((name) => name.trim())
      .filter((name) => name !== "" && !name.startsWith("type "));
    const taken = names.map((name) => name.replace(/\s+as\s+/, ": ")).join(", ");
    const asked = names.map((name) => JSON.stringify(name.split(/\s+as\s+/)[0]));
    const lines = "\n".repeat(whole.split("\n").length - 1);
    return `${indent}const { ${taken} } = __tools.from(${JSON.stringify(module)}, [${asked.join(", ")}]);${lines}`;
  });
}

/** The source of a script that leaves the program where its worker looks for it. */
export const sourceOf = (text: string): string =>
  `globalThis.${PROGRAM_NAME} = async (__tools) => { "use strict"; const { step, console } = __tools;\n${bodyOf(text)}\n};\n`;

/**
 * The line of the program that an error's stack names first, from 1 on; undefined: none of its `lines`.
 *
 * @param stack as Chromium ("at f (blob:…:12:5)") and others ("f@blob:…:12:5") write it; evaluated text is "<anonymous>"
 */
export function lineIn(stack: string | undefined, lines: number): number | undefined {
  for (const [, line] of (stack ?? "").matchAll(/(?:blob:|<anonymous>).*:(\d+):\d+\)?$/gm)) {
    const own = Number(line) - LINES_BEFORE;
    if (own >= 1 && own <= lines) return own;
  }
  return undefined;
}
