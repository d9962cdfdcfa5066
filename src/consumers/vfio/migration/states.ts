/**
 * The state machine of a device that moves: which single step leads from one state towards another.
 *
 * Idea: one table for a device that can do everything; a state that the device at hand does not have is stepped over, by
 * asking again from there. Promises: a way is as short as can be; a state that gives out data is never on the way to another,
 * only an end of it. Not for: taking the steps (device-migration.ts).
 * Specified by: behaviour of Linux 7.2 VFIO (next state); judged by test/golden/vfio-mig, every combination of flags.
 */
import { MIGRATION_FLAGS, MIGRATION_STATES, type MigrationState } from "../../../layouts/uapi/index.ts";

const { STOP_COPY, P2P, PRE_COPY } = MIGRATION_FLAGS;

/** What a device must be able to do to have a state. Nobody asks for `error`. */
const NEEDS: Readonly<Record<Exclude<MigrationState, "error">, number>> = {
  stop: STOP_COPY,
  running: STOP_COPY,
  "stop-copy": STOP_COPY,
  resuming: STOP_COPY,
  "running-p2p": STOP_COPY | P2P,
  "pre-copy": STOP_COPY | PRE_COPY,
  "pre-copy-p2p": STOP_COPY | P2P | PRE_COPY,
};

type State = keyof typeof NEEDS;

/** The next step from each state (row) towards each other (column), for a device with every state; `--`: refused. */
const TABLE = `
  from           S  R  SC RS RP PC PP
  S  stop          S  RP SC RS RP RP RP
  R  running       RP R  RP RP RP PC RP
  SC stop-copy     S  S  SC S  S  -- --
  RS resuming      S  S  S  RS S  S  S
  RP running-p2p   S  R  S  S  RP R  PP
  PC pre-copy      R  R  PP R  R  PC PP
  PP pre-copy-p2p  RP RP SC RP RP PC PP`;

const [COLUMNS, ...ROWS] = TABLE.trim()
  .split("\n")
  .map((line) => line.trim().split(/ +/));
/** By the short names of the table. */
const NAMES = new Map(ROWS.map(([short, name]) => [short!, name as State]));
const STEPS = new Map(
  ROWS.map(([, from, ...steps]) => [
    from as State,
    new Map(steps.map((step, i) => [NAMES.get(COLUMNS![i + 1]!), NAMES.get(step)])),
  ]),
);

/** Does a device with `flags` have `state`? `error` is had by all, and asked for by nobody. */
export const hasState = (flags: number, state: MigrationState): boolean =>
  state === "error" || (NEEDS[state] & flags) === NEEDS[state];

/**
 * The next single step from `from` towards `to` for a device with `flags` (bits of MIGRATION_FLAGS); `to` itself if it is
 * `from`. Undefined: refused, there is no such way.
 */
export function nextState(from: MigrationState, to: MigrationState, flags: number): MigrationState | undefined {
  if (from === "error" || to === "error" || !hasState(flags, from) || !hasState(flags, to)) return undefined;
  const towards = (at: State): State | undefined => STEPS.get(at)?.get(to);
  let next = towards(from);
  while (next !== undefined && !hasState(flags, next)) next = towards(next);
  return next;
}

/** All steps from `from` to `to`, the last one `to`; none if they are the same. Undefined: refused. */
export function pathBetween(from: MigrationState, to: MigrationState, flags: number): MigrationState[] | undefined {
  const path: MigrationState[] = [];
  for (let at = from; at !== to; at = path.at(-1)!) {
    const next = nextState(at, to, flags);
    if (next === undefined) return undefined;
    path.push(next);
  }
  return from === to && nextState(from, to, flags) === undefined ? undefined : path;
}

/** The state with the code that the kernel's interface has for it; undefined if none has. */
export const stateOfCode = (code: number): MigrationState | undefined => MIGRATION_STATES[code];

/** The code that the kernel's interface has for a state. */
export const codeOfState = (state: MigrationState): number => MIGRATION_STATES.indexOf(state);

/** States in which a device gives out data, one session from the first to the last of them. */
export const isSaving = (state: MigrationState): boolean =>
  state === "stop-copy" || state === "pre-copy" || state === "pre-copy-p2p";

/** States in which the device begins transfers of its own. With `p2p` it begins none to peers (most begin none at all). */
export const isRunning = (state: MigrationState): boolean => state === "running" || state === "pre-copy";
