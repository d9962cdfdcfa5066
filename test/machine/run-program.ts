/** Runs a program of the page's machine outside of a browser, by the same source that its worker is given. */
import { runInThisContext } from "node:vm";
import { PROGRAM_NAME, type Program, sourceOf } from "../../src/apps/web/machine/model/program.ts";
import { Stage, type Standing } from "../../src/apps/web/machine/model/stage.ts";

/** The stage of `text`, and where it stands at its first step. @throws SyntaxError: it is no program */
export async function begin(text: string): Promise<{ readonly stage: Stage; readonly first: Standing }> {
  runInThisContext(sourceOf(text), { filename: "blob:program" });
  const stage = new Stage(text.split("\n").length);
  return { stage, first: await stage.begin((globalThis as unknown as Record<string, Program>)[PROGRAM_NAME]!) };
}

/** Where `text` stands at its first step, and after each. */
export async function stepThrough(text: string): Promise<Standing[]> {
  const { stage, first } = await begin(text);
  const all = [first];
  while (all.at(-1)!.ahead) all.push(await stage.next());
  return all;
}
