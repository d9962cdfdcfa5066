/**
 * How wide a terminal is and whether it shows colours, as a {@link Style} for reports.
 *
 * Idea: where no terminal is, text is the same everywhere: 80 columns, no colours. Prose wider than {@link WIDEST} is hard to
 * read, however wide the terminal is. Specified by: no-color.org (NO_COLOR); COLUMNS as of POSIX; FORCE_COLOR as Node has it.
 */
import { type Emphasis, PLAIN, type Style } from "../../../report/text/index.ts";

const NARROWEST = 40;
const WIDEST = 120;

/** What is asked of a stream; process.stdout and process.stderr are such. */
interface Screen {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** The signs that a terminal takes for a colour, and nothing else. */
const SIGNS: Readonly<Record<Emphasis, string>> = {
  error: "\x1b[1;31m",
  warning: "\x1b[1;33m",
  advice: "\x1b[1;36m",
  good: "\x1b[32m",
  strong: "\x1b[1m",
  faint: "\x1b[2m",
};
const END = "\x1b[0m";

/** Is it to be coloured? */
export function isColoured(screen: Screen, env: NodeJS.ProcessEnv = process.env): boolean {
  if (env.NO_COLOR) return false;
  if (env.FORCE_COLOR !== undefined) return env.FORCE_COLOR !== "0" && env.FORCE_COLOR !== "false";
  return screen.isTTY === true && env.TERM !== "dumb";
}

/** Columns that a line may have. */
function widthOf(screen: Screen, env: NodeJS.ProcessEnv = process.env): number {
  const asked = /^[1-9]\d{0,3}$/.test(env.COLUMNS ?? "") ? Number(env.COLUMNS) : undefined;
  const columns = asked ?? ((screen.isTTY && screen.columns) || PLAIN.width);
  return Math.min(WIDEST, Math.max(NARROWEST, columns));
}

/** The style of what goes to `screen`. */
export function styleOf(screen: Screen, env: NodeJS.ProcessEnv = process.env): Style {
  const width = widthOf(screen, env);
  if (!isColoured(screen, env)) return { ...PLAIN, width };
  // A line at a time: what cuts the text between two lines must not leave a colour on.
  const paint = (emphasis: Emphasis, text: string): string =>
    text
      .split("\n")
      .map((line) => (line === "" ? "" : `${SIGNS[emphasis]}${line}${END}`))
      .join("\n");
  return { width, paint };
}

/** The signs of {@link styleOf}, as a text is split at. */
export const PAINT: RegExp = new RegExp(
  `(${[...Object.values(SIGNS), END].map((sign) => sign.replace("[", "\\[")).join("|")})`,
);
