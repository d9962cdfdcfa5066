/**
 * What a command is: one value, with its name, arguments, options, examples, and how it runs.
 *
 * Idea: main.ts is a loop over these values; help, the man page, completion in a shell, and what is said of a typing error are
 * made of the same ones, so none of them can say something else. An option reads its own words, and says what it needed.
 * Not for: the heavy code behind a command; `run` loads that when it is called, so that --help is quick.
 */

/** A word that a shell can complete: one of a list, or a file or folder. */
export type Completion = "file" | "folder" | readonly string[] | (() => Promise<readonly string[]>);

/** An option: how it is typed, what it means, and how its words become a value. Its name is its key: `requestCap` is --request-cap. */
export interface Option<T> {
  /** One letter that stands for it, as "o" for --output. */
  readonly short?: string;
  /** What stands for its value in help, as "FILE"; an option without one is a switch. */
  readonly value?: string;
  /** In a few words, after the name. */
  readonly meaning: string;
  /** The value if it is not given, as it would be typed. */
  readonly byDefault?: string;
  /** May be given several times. */
  readonly repeated?: boolean;
  readonly completes?: Completion;
  /**
   * The value of the words that were given for `option` ("--jobs"); none if it was not given.
   *
   * @throws UsageError: what was given, and what is needed
   */
  read(given: readonly string[], option: string): T;
}

/** Options by name. */
type Options = Readonly<Record<string, Option<unknown>>>;

/** The value of each option. */
type ValuesOf<O extends Options> = { readonly [K in keyof O]: O[K] extends Option<infer T> ? T : never };

/** A word that is no option. */
export interface Argument {
  /** In capitals, as help shows it. */
  readonly name: string;
  readonly meaning: string;
  /** May be left out. */
  readonly optional?: boolean;
  /** May be given several times; the last one of a command only. */
  readonly many?: boolean;
  readonly completes?: Completion;
}

/** One call of a command. */
export interface Call<O extends Options = Options> {
  /** As many as the command's arguments allow. */
  readonly arguments: readonly string[];
  readonly options: ValuesOf<O>;
  /** The words behind "--", of a command that runs another. */
  readonly behind: readonly string[];
  readonly program: Program;
}

/** A command. */
export interface Command<O extends Options = Options> {
  readonly name: string;
  /** In a line, for the list of commands. */
  readonly summary: string;
  /** What it does and answers, for its own help: a sentence a fact. */
  readonly description: string;
  readonly arguments: readonly Argument[];
  readonly options: O;
  /** Behind "--" it takes the words of another command, which it runs. */
  readonly runs?: boolean;
  /** Whole lines, as they are typed. */
  readonly examples: readonly string[];
  /** Does it; the exit code. */
  run(call: Call<O>): Promise<number>;
}

/** What the program is, for commands that are about it. */
export interface Program {
  readonly version: string;
  readonly commands: readonly Command[];
}

/** `it`, whose `run` gets the values of its own options. */
export const command = <const O extends Options>(it: Command<O>): Command => it as unknown as Command;

/** How the option `key` is typed: requestCap as "--request-cap". */
export const flagOf = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
