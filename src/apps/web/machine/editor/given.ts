/** What the editor is given by the machine, whose code it shares nothing else with. */
export interface EditorGiven {
  readonly text: string;
  /** The line of the step ahead, from 1 on. */
  readonly ahead: number | undefined;
  /** Where the program went wrong. */
  readonly failed: { readonly line: number; readonly message: string } | undefined;
  /** Told of each change. */
  readonly changed: (text: string) => void;
  /** Ctrl-Enter was pressed. */
  readonly run: () => void;
}
