/** The program in this process: quicker than a shell for what does not hang on one. */
import { vi } from "vitest";
import { COMMANDS } from "../../src/apps/cli/commands/index.ts";
import { endOf } from "../../src/apps/cli/exit-errors.ts";
import { runWords } from "../../src/apps/cli/run-words.ts";

/** What came of a call. */
export interface Answered {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs `dmalink WORDS`; an error ends it as it ends the program. */
export async function dmalink(...words: readonly string[]): Promise<Answered> {
  const written = { out: "", err: "" };
  const to = (name: "out" | "err") => (text: unknown) => {
    written[name] += String(text);
    return true;
  };
  const spies = [
    vi.spyOn(process.stdout, "write").mockImplementation(to("out")),
    vi.spyOn(process.stderr, "write").mockImplementation(to("err")),
  ];
  try {
    return { code: await runWords(words, { version: "test", commands: COMMANDS }), ...written };
  } catch (error) {
    const { message, code } = endOf(error);
    return { code, out: written.out, err: `${written.err}dmalink: ${message}\n` };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}
