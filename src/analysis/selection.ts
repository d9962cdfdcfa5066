/**
 * A selection: the mappings of some devices, tasks or CPUs, where the rest of the recording is only followed.
 *
 * Idea: what is not selected is still matched, so that nothing is taken for lost or leaked because its other half lies on another
 * CPU; it is neither counted nor shown. A mapping belongs to the task and the CPU that began it.
 * Not for: a part of the recording by time, which is read as if it were all.
 */
import type { Trace } from "../trace/index.ts";
import { NO_DEVICE } from "./lifetimes/table.ts";

/** What is asked for; what is left out, or empty, is not asked about. */
export interface Selection {
  /** Names, as events have them: "0000:00:04.0". */
  readonly devices?: readonly string[];
  /** A task's name, its number, or both: "fio", "812", "fio-812". */
  readonly tasks?: readonly string[];
  readonly cpus?: readonly number[];
}

/** Something is asked for. */
export const isSelective = ({ devices, tasks, cpus }: Selection): boolean =>
  [devices, tasks, cpus].some((list) => list !== undefined && list.length > 0);

const asked = <T>(list: readonly T[] | undefined): ReadonlySet<T> | undefined =>
  list && list.length > 0 ? new Set(list) : undefined;

/** A {@link Selection}, ready to be asked of each mapping. Cost: a look into a set for each that is asked about. */
export class Selector {
  readonly #devices: ReadonlySet<string> | undefined;
  readonly #tasks: ReadonlySet<string> | undefined;
  readonly #cpus: ReadonlySet<number> | undefined;

  constructor({ devices, tasks, cpus }: Selection) {
    this.#devices = asked(devices);
    this.#tasks = asked(tasks);
    this.#cpus = asked(cpus);
  }

  /** `undefined`: no event names the device; it is none of those that were asked for. */
  hasDevice(name: string | undefined): boolean {
    return !this.#devices || (name !== undefined && this.#devices.has(name));
  }

  /** The task `name` with the number `pid`, on `cpu`. */
  hasPlace(name: string, pid: number, cpu: number): boolean {
    if (this.#cpus && !this.#cpus.has(cpu)) return false;
    const tasks = this.#tasks;
    return !tasks || tasks.has(name) || tasks.has(String(pid)) || tasks.has(`${name}-${pid}`);
  }

  /** Tasks or CPUs are asked for. */
  get asksForPlace(): boolean {
    return this.#tasks !== undefined || this.#cpus !== undefined;
  }
}

/** Who began a mapping, by the names of a recording. */
export function mappingSelector(
  selection: Selection | undefined,
  devices: readonly string[],
  trace: Pick<Trace, "strings">,
): ((device: number, task: number, pid: number, cpu: number) => boolean) | undefined {
  if (!selection || !isSelective(selection)) return undefined;
  const selector = new Selector(selection);
  return (device, task, pid, cpu) =>
    selector.hasDevice(device === NO_DEVICE ? undefined : devices[device]) &&
    selector.hasPlace(trace.strings[task] ?? "", pid, cpu);
}
