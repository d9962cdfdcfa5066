/**
 * One line on stderr for what takes longer than a second, with how much is done and how long the rest will take.
 *
 * Idea: a command goes through stages, and whoever does the work says which share of a stage is done; the rest is taken to be
 * as quick. Only where a person is looking: on a terminal. The line stays where an interrupt left it, and says what was
 * reached. Cost: a clock reading a call; it is drawn ten times a second at most.
 */
import { visibleInLine } from "../../../report/text/index.ts";

/** What a command tells while it works. */
export interface Progress {
  /** A stage begins: "reading trace.dat". */
  say(stage: string): void;
  /** `share` of the stage is done, 0 to 1; `undefined`: nobody knows. `detail` is a count, as "1,234 events". */
  reached(share: number | undefined, detail?: string): void;
  /** The line goes. */
  done(): void;
  /** What is done and how far, in words: for whoever interrupts. */
  said(): string;
}

/** What is quicker needs no line, nanoseconds aside: milliseconds. */
const PATIENCE_MS = 1000;
const DRAWN_EVERY_MS = 100;
/** With less of a stage behind it, what is left is a guess. */
const KNOWN_AFTER_MS = 500;
const KNOWN_FROM = 0.01;

/** A terminal to draw on, and a clock in milliseconds. */
interface ProgressTerminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export function progressLine(
  terminal: ProgressTerminal = process.stderr,
  nowMs: () => number = () => performance.now(),
): Progress {
  const start = nowMs();
  let [stage, since, drawnAt, shown] = ["", start, Number.NEGATIVE_INFINITY, false];
  let [share, detail]: [number | undefined, string | undefined] = [undefined, undefined];
  const draw = (): void => {
    const now = nowMs();
    if (!terminal.isTTY || now - start < PATIENCE_MS || now - drawnAt < DRAWN_EVERY_MS) return;
    drawnAt = now;
    shown = true;
    const line = visibleInLine(lineOf(stage, share, detail, now - since));
    terminal.write(`\r\x1b[K${line.slice(0, (terminal.columns || 80) - 1)}`);
  };
  return {
    say(next) {
      [stage, since, share, detail] = [next, nowMs(), undefined, undefined];
      drawnAt = Number.NEGATIVE_INFINITY; // a new stage is shown at once
      draw();
    },
    reached(part, count) {
      if (part !== undefined) share = Math.min(1, Math.max(part, 0));
      if (count !== undefined) detail = count;
      draw();
    },
    said: () => lineOf(stage, share, detail, 0),
    done() {
      if (shown) terminal.write("\r\x1b[K");
      shown = false;
    },
  };
}

function lineOf(stage: string, share: number | undefined, detail: string | undefined, elapsedMs: number): string {
  const parts = [
    ...(share === undefined ? [] : [`${Math.floor(share * 100)} %`]),
    ...(detail === undefined ? [] : [detail]),
  ];
  if (share !== undefined && share >= KNOWN_FROM && share < 1 && elapsedMs >= KNOWN_AFTER_MS)
    parts.push(`${timeLeft((elapsedMs * (1 - share)) / share / 1000)} left`);
  return parts.length === 0 ? `${stage} ...` : `${stage}: ${parts.join(", ")}`;
}

/** Seconds as "42 s", "3 min 20 s", "2 h 5 min". */
function timeLeft(seconds: number): string {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
