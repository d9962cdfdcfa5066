/**
 * The worker of the machine: one program, from its beginning to its end. The page makes a new one for each, with the program's text before
 * this file's own (model/program.ts).
 */
import { type Served, serve } from "../frame/calls.ts";
import type { Action } from "./model/actions.ts";
import { PROGRAM_NAME, type Program } from "./model/program.ts";
import { Stage } from "./model/stage.ts";

let stage: Stage | undefined;

const theStage = (): Stage => {
  if (!stage) throw new Error("no program has begun");
  return stage;
};

const functions = {
  /** Runs the program to its first step. `lines`: of its text. */
  begin({ lines }: { readonly lines: number }) {
    stage = new Stage(lines);
    return stage.begin((self as unknown as Record<string, Program>)[PROGRAM_NAME]!);
  },
  /** Takes the next step. */
  next: (_: undefined) => theStage().next(),
  /** Does what a button says. */
  act: (action: Action) => theStage().act(action),
} satisfies Served;

/** What this worker serves. */
export type MachineCalls = typeof functions;

serve(functions);
