/**
 * Kinds of options, and those that several commands have: each says what it needs when it gets something else.
 */
import type { Argument, Completion, Option } from "./command.ts";
import { UsageError } from "./exit-errors.ts";
import { type Moment, parseMoment } from "./files/time-window.ts";

/** How an option is shown and completed, beside what it means. */
type About = Pick<Option<unknown>, "short" | "completes">;

/** A switch: on if it is there. */
export const flag = (meaning: string): Option<boolean> => ({
  meaning,
  read: ([value]) => value !== undefined && value !== "false",
});

/** An option whose one word `parse` understands; `undefined` if it was not given. */
export const option = <T>(
  value: string,
  meaning: string,
  parse: (text: string, option: string) => T,
  about: About = {},
): Option<T | undefined> => ({
  value,
  meaning,
  ...about,
  read: ([text], name) => (text === undefined ? undefined : parse(text, name)),
});

/** `it`, and `word` where it was not given. */
export const withDefault = <T>(word: string, it: Option<T | undefined>): Option<T> => ({
  ...it,
  byDefault: word,
  read: (given, name) => it.read(given.length > 0 ? given : [word], name) as T,
});

/** Any word. */
export const text = (value: string, meaning: string, about?: About): Option<string | undefined> =>
  option(value, meaning, (word) => word, about);

/** A path. */
export const file = (meaning: string, about: About = {}): Option<string | undefined> =>
  text("FILE", meaning, { completes: "file", ...about });

/** Words, each given by itself or several with commas between; none if it was not given. */
export const list = (value: string, meaning: string, completes?: Completion): Option<readonly string[]> => ({
  value,
  meaning: `${meaning}; may be given again`,
  repeated: true,
  ...(completes && { completes }),
  read: (given) => given.flatMap((word) => word.split(",")),
});

/** One of `words`. */
export const oneOf = <const T extends string>(
  value: string,
  meaning: string,
  words: readonly T[],
): Option<T | undefined> =>
  option(
    value,
    `${meaning}: ${words.slice(0, -1).join(", ")}${words.length > 1 ? " or " : ""}${words.at(-1)}`,
    (word, name) => {
      const found = words.find((one) => one === word);
      if (found === undefined) throw new UsageError(`${name} ${word}: one of ${words.join(", ")} is needed`);
      return found;
    },
    { completes: words },
  );

/** A whole number from `least` on. */
export const wholeNumber = (meaning: string, least: number): Option<number | undefined> =>
  option("N", meaning, (word, name) => {
    if (!/^\d{1,15}$/.test(word) || Number(word) < least)
      throw new UsageError(`${name} ${word}: a whole number from ${least} on is needed`);
    return Number(word);
  });

/** A time with its unit, in milliseconds. */
export const time = (meaning: string): Option<number | undefined> =>
  option("TIME", meaning, (word, name) => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(word);
    const factor = { ms: 1, s: 1000, m: 60_000 }[match?.[2] ?? "s"]!;
    if (!match || Number(match[1]) === 0)
      throw new UsageError(`${name} ${word}: a time such as 10s, 500ms or 2m is needed`);
    return Number(match[1]) * factor;
  });

/** A difference of times with its unit, may be negative, in nanoseconds. */
export const seconds = (meaning: string): Option<number | undefined> =>
  option("TIME", meaning, (word, name) => {
    const match = /^([+-]?\d{1,12}(?:\.\d{1,9})?)(ns|us|µs|ms|s)?$/.exec(word);
    const factor = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9 }[match?.[2] ?? "s"]!;
    if (!match) throw new UsageError(`${name} ${word}: a time such as 0.78s, 780ms or -2.5s is needed`);
    return Math.round(Number(match[1]) * factor);
  });

/** A size with its unit, in bytes. */
export const size = (meaning: string): Option<number | undefined> =>
  option("SIZE", meaning, (word, name) => {
    const match = /^(\d+)([KMG])?(?:i?B)?$/i.exec(word);
    if (!match || Number(match[1]) === 0) throw new UsageError(`${name} ${word}: a size such as 128K or 20M is needed`);
    return Number(match[1]) * 1024 ** " KMG".indexOf(match[2]?.toUpperCase() ?? " ");
  });

/** Of every command that answers: the answer for programs. */
export const JSON_ANSWER: Option<boolean> = flag("the answer for programs, as JSON on stdout");

/** Of every command that reads a trace: damage does not end it. */
export const BEST_EFFORT: Option<boolean> = flag("go on with what was read before damage in the file");

const moment = (meaning: string): Option<Moment | undefined> =>
  option("TIME", meaning, (word, name) => {
    const parsed = parseMoment(word);
    if (!parsed)
      throw new UsageError(
        `${name} ${word}: seconds as the trace prints them are needed, or +1.5s since its first event`,
      );
    return parsed;
  });

/** The trace that a command reads. */
export const TRACE: Argument = {
  name: "TRACE",
  meaning: "a trace.dat, the text of trace-cmd, tracefs or perf, or a kernel log; gzip too, and - for standard input",
  completes: "file",
};

/** The device that a command takes or gives. */
export const PCI_DEVICE: Argument = { name: "DEVICE", meaning: "its PCI address: 0000:00:04.0 or 00:04.0" };

/** A PCI address in full; other names of devices as they are. */
const pciName = (name: string): string => (/^[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i.test(name) ? `0000:${name}` : name);

const devices = list("NAME", "this device only: 0000:00:04.0");

/** The devices that a command looks at; none: all. */
export const DEVICES: Option<readonly string[]> = {
  ...devices,
  read: (given, name) => devices.read(given, name).map(pciName),
};

/** Numbers and ranges of them, ascending. */
const LARGEST_CPU = 65_535;
const cpus = (meaning: string): Option<readonly number[]> => {
  const words = list("N", meaning);
  return {
    ...words,
    read: (given, name) => {
      const found = new Set<number>();
      for (const word of words.read(given, name)) {
        const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(word);
        const [first, last] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
        if (!match || last < first || last > LARGEST_CPU)
          throw new UsageError(`${name} ${word}: the number of a CPU is needed, or a range such as 0-3`);
        for (let cpu = first; cpu <= last; cpu++) found.add(cpu);
      }
      return [...found].sort((a, b) => a - b);
    },
  };
};

/** Of every command that reads a trace: which part of it. */
export const PART: {
  readonly device: Option<readonly string[]>;
  readonly task: Option<readonly string[]>;
  readonly cpu: Option<readonly number[]>;
  readonly from: Option<Moment | undefined>;
  readonly to: Option<Moment | undefined>;
} = {
  device: DEVICES,
  task: list("NAME", "only what this task began, by name or number: fio, 812 or fio-812"),
  cpu: cpus("only what began on this CPU: 2, or 0-3"),
  from: moment("as if recorded from then on: seconds as the trace prints them, or +1.5s since its first event"),
  to: moment("as if recorded until then"),
};

/** DEVICE=BITS, may be given again: how many address bits a device drives. */
export const deviceBits = (meaning: string): Option<ReadonlyMap<string, number>> => {
  const pairs = list("DEVICE=BITS", meaning);
  return {
    ...pairs,
    read: (given, name) =>
      new Map(
        pairs.read(given, name).map((pair): [string, number] => {
          const match = /^(.+)=(\d{1,2})$/.exec(pair);
          const bits = Number(match?.[2]);
          if (!match || bits < 12 || bits > 64)
            throw new UsageError(`${name} ${pair}: a device and its address bits are needed, such as 0000:00:04.0=32`);
          return [pciName(match[1]!), bits];
        }),
      ),
  };
};
