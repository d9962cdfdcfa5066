/**
 * Remarks: what of a trace was not understood, or must be known to read it rightly; counted, the first one shown.
 *
 * Idea: a reader neither guesses nor gives up. What it cannot read is left out and counted here, so that every report can
 * carry it and "no errors" never stands alone over a file that was half read.
 * Promises: memory is one entry per kind of remark and subject, bounded. Not for: where a file is cut or damaged (that is
 * `Trace.damage`), nor for events that the kernel lost (`Trace.lost`).
 */

/** What a remark is about. */
export type RemarkCode =
  /** A line of text that is no event, no comment and nothing else that the tools print. */
  | "unknown-line"
  /** An event of the catalogue whose fields are in a form that is not known: it is kept, and takes no part in any verdict. */
  | "unknown-form"
  /** A word or value of one field: the field is unknown there (of attributes: that word), the event is read. */
  | "unknown-value"
  /** The stamps are no times, or coarse ones. */
  | "clock"
  /** Stamps go backwards. */
  | "time-back"
  /** The file does not say something that its kind of file says as a rule (CPU, time, process). */
  | "not-said"
  /** A call chain whose event is not in the file. */
  | "chain-without-event"
  /** Something else about how the file was read. */
  | "note";

/** Something about a trace that every report must carry: what was not understood, how often, and where first. */
export interface Remark {
  /** What kind of remark, by a name that stays. */
  readonly code: RemarkCode;
  /** One sentence for people, with the numbers in it. */
  readonly message: string;
  /** How often. */
  readonly count: number;
  /** Line of the first one in a text file, from 1. */
  readonly line?: number;
  /** The beginning of the first one, as it stands in the file. */
  readonly text?: string;
}

interface Kept {
  readonly code: RemarkCode;
  readonly sentence: (count: number, subject: string) => string;
  readonly subject: string;
  readonly line: number | undefined;
  readonly text: string | undefined;
  count: number;
}

/** Different subjects of one code; what comes after is counted together. */
const MOST_SUBJECTS = 64;
const LONGEST_TEXT = 160;
const REST = "others";

const times = (count: number): string => (count === 1 ? "once" : `${count} times`);

const SENTENCES: Readonly<Partial<Record<RemarkCode, Kept["sentence"]>>> = {
  "unknown-line": (count) => (count === 1 ? "1 line of an unknown form" : `${count} lines of an unknown form`),
  "unknown-form": (count, event) =>
    `${event}: ${count === 1 ? "1 event is" : `${count} events are`} in a form that is not known, and left out of every verdict`,
  "unknown-value": (count, value) => `${value} is not known: ${times(count)}`,
  "time-back": (count) => `times go backwards: ${times(count)}`,
  "chain-without-event": (count) =>
    count === 1 ? "1 call chain whose event was not found" : `${count} call chains whose events were not found`,
};

export class Remarks {
  readonly #kept = new Map<string, Kept>();
  readonly #subjects = new Map<RemarkCode, number>();

  /** Counts one more of `code` and `subject`. `line` and `text` are kept of the first one. */
  count(code: RemarkCode, subject = "", line?: number, text?: string): void {
    const known = this.#kept.get(`${code} ${subject}`);
    if (known) known.count++;
    else this.#add(code, subject, line, text);
  }

  /** A sentence that is said once. */
  say(code: RemarkCode, message: string): void {
    if (!this.#kept.has(`${code} ${message}`))
      this.#keep(code, message, {
        code,
        sentence: () => message,
        subject: message,
        line: undefined,
        text: undefined,
        count: 1,
      });
  }

  get list(): readonly Remark[] {
    return [...this.#kept.values()].map(({ code, sentence, subject, line, text, count }): Remark => {
      const where = line === undefined ? "" : `${count === 1 ? ", line" : ", the first at line"} ${line}`;
      return {
        code,
        message: `${sentence(count, subject)}${where}${text === undefined ? "" : `: ${text}`}`,
        count,
        ...(line === undefined ? {} : { line }),
        ...(text === undefined ? {} : { text }),
      };
    });
  }

  #add(code: RemarkCode, subject: string, line?: number, text?: string): void {
    const subjects = this.#subjects.get(code) ?? 0;
    if (subjects >= MOST_SUBJECTS && subject !== REST) {
      this.count(code, REST, line, text);
      return;
    }
    this.#keep(code, subject, {
      code,
      sentence: SENTENCES[code] ?? ((count) => `${subject}: ${times(count)}`),
      subject,
      line,
      text: text === undefined ? undefined : shown(text),
      count: 1,
    });
  }

  #keep(code: RemarkCode, subject: string, kept: Kept): void {
    this.#subjects.set(code, (this.#subjects.get(code) ?? 0) + 1);
    this.#kept.set(`${code} ${subject}`, kept);
  }
}

/** A piece of a file as it can be printed anywhere: without control characters, cut where it is long. */
export function shown(text: string): string {
  let clean = "";
  for (const character of text.slice(0, LONGEST_TEXT)) {
    const code = character.codePointAt(0)!;
    clean += code < 32 || (code >= 127 && code < 160) ? " " : character;
  }
  return text.length > LONGEST_TEXT ? `${clean.trimEnd()}…` : clean.trimEnd();
}
