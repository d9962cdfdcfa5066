/**
 * Probe events on the two-step functions, which have no tracepoints of their own.
 *
 * Idea: one group of events, `dmalink`, with the names and fields of the event catalogue (trace/catalogue.ts). Function
 * probes first: kprobes miss calls from an interrupt that lands in another probe. Specified by: signatures of the two-step
 * functions in Linux 6.16 to 7.2; the kernel's probe-event syntax.
 */
import { readFileSync } from "node:fs";
import { release } from "node:os";
import { EnvironmentError } from "../exit-errors.ts";
import type { Tracefs } from "./tracefs.ts";

export const PROBE_GROUP = "dmalink";

interface Probe {
  readonly name: string;
  /** Recorded when the function returns, with what it answers. */
  readonly atReturn: boolean;
  readonly fields: string;
}

/** The device's name: the first member of the first member of a struct device. */
const DEVICE = "dev=+0(+0($arg1)):string";
const STATE = "state=$arg2:x64 addr=+0($arg2):x64";

export const PROBES: readonly Probe[] = [
  {
    name: "dma_iova_try_alloc",
    atReturn: true,
    fields: `${DEVICE} ${STATE} phys=$arg3:x64 size=$arg4:u64 ret=$retval:u8`,
  },
  {
    name: "dma_iova_link",
    atReturn: false,
    fields: `${DEVICE} ${STATE} phys=$arg3:x64 offset=$arg4:u64 size=$arg5:u64 dir=$arg6:u32`,
  },
  { name: "dma_iova_sync", atReturn: false, fields: `${DEVICE} ${STATE} offset=$arg3:u64 size=$arg4:u64` },
  {
    name: "dma_iova_unlink",
    atReturn: false,
    fields: `${DEVICE} ${STATE} offset=$arg3:u64 size=$arg4:u64 dir=$arg5:u32 attrs=$arg6:x64`,
  },
  {
    name: "dma_iova_destroy",
    atReturn: false,
    fields: `${DEVICE} ${STATE} mapped_len=$arg3:u64 dir=$arg4:u32 attrs=$arg5:x64`,
  },
  { name: "dma_iova_free", atReturn: false, fields: `${DEVICE} ${STATE}` },
];

/** The ways to define a probe, best first: a function probe, then a kprobe. */
export const definitionsOf = ({ name, atReturn, fields }: Probe): readonly string[] => [
  `f:${PROBE_GROUP}/${name} ${name}${atReturn ? "%return" : ""} ${fields}`,
  `${atReturn ? "r" : "p"}:${PROBE_GROUP}/${name} ${name} ${fields}`,
];

/** Has this kernel the two-step functions, so that a plain recording does not show whose they are? */
export function hasTwoStep(kallsyms = "/proc/kallsyms"): boolean {
  try {
    return / dma_iova_try_alloc$/m.test(readFileSync(kallsyms, "latin1"));
  } catch {
    return false;
  }
}

/**
 * Sets the probes up; what was left by a recorder that was killed is used as it is.
 *
 * @throws EnvironmentError: the kernel has no such functions, or no probe events; nothing is left behind then
 */
export function addProbes(tracefs: Tracefs, twoStep: boolean): void {
  if (!twoStep)
    throw new EnvironmentError(
      `this kernel (${release()}) has no two-step functions: they came with Linux 6.16. Record without --probes; ` +
        "what its drivers map is all in the dma:* events",
    );
  if (!tracefs.has("dynamic_events"))
    throw new EnvironmentError(
      "this kernel has no dynamic_events in tracefs: --probes needs CONFIG_FPROBE_EVENTS or CONFIG_KPROBE_EVENTS. Record without --probes",
    );
  try {
    for (const probe of PROBES) if (!tracefs.has(`events/${PROBE_GROUP}/${probe.name}/format`)) define(tracefs, probe);
  } catch (error) {
    removeProbes(tracefs);
    throw error;
  }
}

function define(tracefs: Tracefs, probe: Probe): void {
  let first: unknown;
  for (const definition of definitionsOf(probe)) {
    try {
      tracefs.write("dynamic_events", `${definition}\n`);
      return;
    } catch (error) {
      first ??= error;
    }
  }
  throw new EnvironmentError(`${(first as Error).message}. Or record without --probes`);
}

/** Takes the probes away; one that another recording still uses stays, and its owner takes it away. */
export function removeProbes(tracefs: Tracefs): void {
  for (const { name } of PROBES) {
    if (!tracefs.has(`events/${PROBE_GROUP}/${name}/format`)) continue;
    try {
      tracefs.write("dynamic_events", `-:${PROBE_GROUP}/${name}\n`);
    } catch {
      // In use: see above.
    }
  }
}
