/**
 * `dmalink record`: records what this machine maps for DMA, on Linux, as root.
 *
 * Idea: the events of the DMA, IOMMU and bounce-buffer subsystems, the kernel's own lines, and on request probes on the two-step
 * functions, into one trace.dat: by trace-cmd where it is installed, else by tracefs directly. Promises: what was changed on the
 * machine is put back however the recording ends; what is missing is said with its cure (exit 3) before anything is changed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, closeSync, constants, statSync } from "node:fs";
import { release } from "node:os";
import { delimiter, join } from "node:path";
import { bytes, count, DmaError, duration, plural } from "../../../base/index.ts";
import { LOST_EVENTS, openTrace } from "../../../trace/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import { NODE_CODECS } from "../files/codecs.ts";
import { openInput } from "../files/input.ts";
import { cannotWrite, Outputs, openNew } from "../files/output.ts";
import { StopRequest, UndoOnExit } from "../files/undo-on-exit.ts";
import { print, say as tell } from "../terminal/print.ts";
import { addProbes, hasTwoStep, PROBE_GROUP, removeProbes } from "./probes.ts";
import { recordScript } from "./script.ts";
import { recordWithTraceCmd } from "./trace-cmd.ts";
import { findTracefs, type Tracefs } from "./tracefs.ts";
import { instanceName, recordWithTracefs, removeStale, type TracefsPlan } from "./tracefs-recorder.ts";

export interface RecordOptions {
  readonly file: string;
  /** How long, milliseconds; without it and without a command, until Ctrl-C. */
  readonly forMs: number | undefined;
  /** Only mappings of these devices, by their names in sysfs. */
  readonly devices: readonly string[];
  readonly probes: boolean;
  /** Each event with the stack that led to it: findings then name the code. */
  readonly stacks: boolean;
  /** Ring buffer per CPU. */
  readonly bufferKiB: number;
  /** What to run; the recording ends with it. */
  readonly command: readonly string[];
  readonly printScript: boolean;
  readonly json: boolean;
}

/** One clock for all CPUs, so that an unmap does not seem to come before its map on another CPU. */
const CLOCK = "mono";
/** `printk` is the kernel's own lines: on VT-d the only place where a device's fault is told. */
export const SYSTEMS: readonly string[] = ["dma", "iommu", "swiotlb", "printk"];
/** The field that names the device; `iommu:map` and `unmap` have none. */
const DEVICE_FIELD: Readonly<Record<string, string>> = { dma: "device", swiotlb: "dev_name", [PROBE_GROUP]: "dev" };

/** The kernel's filter that lets only events of `devices` through; empty: all. */
export function filterOf(system: string, devices: readonly string[]): string {
  const field = DEVICE_FIELD[system];
  if (field === undefined || devices.length === 0) return "";
  return devices.map((device) => `${field} == "${device}"`).join(" || ");
}

/** Records, and says what came of it; the exit code. */
export async function record(options: RecordOptions): Promise<number> {
  const { file, forMs, devices, probes, stacks, bufferKiB, command } = options;
  if (options.printScript) {
    const seconds = forMs === undefined ? undefined : forMs / 1000;
    const plan = { file, seconds, command, devices, systems: SYSTEMS, probes, stacks, bufferKiB, clock: CLOCK };
    process.stdout.write(recordScript(plan, (system) => filterOf(system, devices)));
    return 0;
  }
  const undo = new UndoOnExit();
  const output = new Outputs(undo).claim("-o", file);
  if (output.part === undefined || output.part === output.target)
    throw new DmaError(
      "ERR_DMA_OUTPUT",
      "EINVAL",
      `-o ${output.name} is no regular file: a recording is written at random places, name a file`,
    );
  const tracefs = findTracefs();
  const say = (message: string): void => tell(`dmalink: ${message}\n`);
  const plan = planRecording(tracefs, { ...options, part: output.part }, say);
  const program = onPath("trace-cmd");
  if (command.length > 0 && onPath(command[0]!) === undefined)
    throw new DmaError("ERR_DMA_INPUT", "ENOENT", `${command[0]}: no such command, so there is nothing to record`);
  writable(plan.file);
  const stop = new StopRequest();
  const load = new Load(options, stop);
  let failed: string[] = [];
  let trouble: string | undefined;
  try {
    removeStale(tracefs);
    if (probes) {
      undo.add("the probes", () => removeProbes(tracefs));
      addProbes(tracefs, hasTwoStep());
    }
    say(`recording ${load.description} into ${file}${program ? ", with trace-cmd" : ""} ...`);
    if (program) {
      undo.add("the instance of trace-cmd", () => removeLeftInstance(tracefs));
      await recordWithTraceCmd(program, plan, load.traceCmdCommand, stop, load.output);
    } else ({ trouble } = await recordWithTracefs(tracefs, plan, undo, () => load.run()));
    output.finish(); // an earlier recording under the same name is only replaced by a whole one
  } finally {
    load.end();
    failed = undo.run();
    stop.done();
    for (const what of failed) say(`could not put back ${what}`);
  }
  await report(options, say, program ? "trace-cmd" : "tracefs");
  if (trouble !== undefined)
    say(`the recording ended before its time: ${trouble}; ${file} has what there was until then`);
  return failed.length > 0 || trouble !== undefined ? 3 : stop.signal !== undefined && !load.endless ? 130 : 0;
}

/**
 * What is recorded; nothing is changed yet. `say` is told what the recording will lack.
 *
 * @throws EnvironmentError: the kernel has none of the events
 */
export function planRecording(
  tracefs: Tracefs,
  options: Pick<RecordOptions, "devices" | "probes" | "stacks" | "bufferKiB"> & { readonly part: string },
  say: (message: string) => void,
  twoStep: boolean = hasTwoStep(),
): TracefsPlan {
  const { part, devices, probes, stacks, bufferKiB } = options;
  const names = SYSTEMS.filter((system) => tracefs.list(`events/${system}`).length > 0);
  if (!names.includes("dma") && !names.includes("iommu"))
    throw new EnvironmentError(
      `this kernel (${release()}) has neither dma:* nor iommu:* events under ${tracefs.root}/events: ` +
        "a kernel with CONFIG_FTRACE is needed, Linux 6.12 or newer for dma:*",
    );
  if (!names.includes("dma"))
    say(
      `this kernel (${release()}) has no dma:* events (Linux 6.12 and newer do): the recording will not say whose the mappings are`,
    );
  if (devices.length > 0 && names.includes("iommu"))
    say("iommu:map and unmap name no device: those of other devices are recorded too");
  if (!probes && twoStep) say("this kernel has the two-step functions: --probes also records whose those mappings are");
  const systems = [...names, ...(probes ? [PROBE_GROUP] : [])];
  return {
    file: part,
    bufferKiB,
    clock: CLOCK,
    stacks,
    systems: systems.map((name) => ({ name, filter: filterOf(name, devices) })),
  };
}

function removeLeftInstance(tracefs: Tracefs): void {
  if (!tracefs.list("instances").includes(instanceName())) return;
  tracefs.write(`instances/${instanceName()}/tracing_on`, "0\n");
  tracefs.removeInstance(instanceName());
}

/** What happens while the recording runs: a command, a time, or nothing until Ctrl-C. */
class Load {
  readonly #options: RecordOptions;
  readonly #stop: StopRequest;
  #child: ChildProcess | undefined;

  constructor(options: RecordOptions, stop: StopRequest) {
    this.#options = options;
    this.#stop = stop;
  }

  get endless(): boolean {
    return this.#options.command.length === 0 && this.#options.forMs === undefined;
  }

  get description(): string {
    const { command, forMs } = this.#options;
    if (command.length > 0) return `while ${command[0]} runs`;
    return forMs === undefined ? "until Ctrl-C" : `for ${duration(forMs * 1e6)}`;
  }

  /** Where the command's words go: stdout is the command's, unless our answer is asked for there. */
  get output(): "inherit" | 2 {
    return this.#options.command.length > 0 && !this.#options.json ? "inherit" : 2;
  }

  /** For a recorder that runs the command itself. */
  get traceCmdCommand(): readonly string[] {
    const { command, forMs } = this.#options;
    return command.length > 0 || forMs === undefined ? command : ["sleep", String(forMs / 1000)];
  }

  /** Settled when the recording is to end. */
  async run(): Promise<void> {
    const { command, forMs } = this.#options;
    if (command.length > 0) await this.#runCommand(command);
    else if (forMs === undefined) await this.#stop.requested;
    else {
      let timer: NodeJS.Timeout | undefined;
      const time = new Promise<void>((done) => {
        timer = setTimeout(done, forMs);
      });
      await Promise.race([this.#stop.requested, time]);
      clearTimeout(timer);
    }
  }

  /** Ends the command if it still runs: there is no recording any more, and nobody waits for it. */
  end(): void {
    if (this.#child?.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGTERM");
    this.#child.unref();
  }

  async #runCommand([program, ...args]: readonly string[]): Promise<void> {
    const child = spawn(program!, args, { stdio: ["inherit", this.output, "inherit"] });
    this.#child = child;
    void this.#stop.requested.then(() => child.kill("SIGTERM"));
    const error = await new Promise<Error | undefined>((resolve) => {
      child.once("error", resolve);
      child.once("exit", () => resolve(undefined));
    });
    if (error) throw new DmaError("ERR_DMA_INPUT", "ENOENT", `cannot run ${program}: ${error.message}`);
  }
}

/** A recording that cannot be kept is not begun. */
function writable(file: string): void {
  try {
    closeSync(openNew(file));
  } catch (error) {
    throw cannotWrite(file, error);
  }
}

/** Where `name` is, as a shell would find it. */
function onPath(name: string): string | undefined {
  const places = name.includes("/") ? [name] : (process.env.PATH ?? "").split(delimiter).map((dir) => join(dir, name));
  return places.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return statSync(path).isFile();
    } catch {
      return false;
    }
  });
}

/** Reads the recording back: that it can be read, what it holds, and whether it is whole. */
async function report(options: RecordOptions, say: (message: string) => void, by: string): Promise<void> {
  const { file, json } = options;
  const source = await openInput(file);
  try {
    const trace = await openTrace(source.input, { codecs: NODE_CODECS });
    const counts: number[] = [];
    let [first, last] = [Number.POSITIVE_INFINITY, 0];
    for await (const batch of trace.batches())
      for (let row = 0; row < batch.count; row++) {
        const type = batch.type[row]!;
        counts[type] = (counts[type] ?? 0) + 1;
        first = Math.min(first, batch.timeNs[row]!);
        last = Math.max(last, batch.timeNs[row]!);
      }
    const events = new Map<string, number>(); // by names from the kernel: `constructor` may be one
    let total = 0;
    for (const [type, n] of counts.entries()) {
      const { name } = trace.types[type]!;
      if (!n || name === LOST_EVENTS) continue;
      events.set(name, (events.get(name) ?? 0) + n);
      total += n;
    }
    const { size } = statSync(file);
    const { lost } = trace;
    if (json)
      print(
        `${JSON.stringify({ schema: "dmalink.record/1", file, by, bytes: size, events: Object.fromEntries(events), eventTotal: total, lost, durationNs: total > 0 ? last - first : 0, probes: options.probes }, null, 2)}\n`,
      );
    say(
      `${file}: ${plural(total, "event")}${total > 0 ? ` over ${duration(last - first)}` : ""}, ${bytes(size)}, ` +
        (lost === 0
          ? "none lost"
          : `${lost < 0 ? "some" : count(lost)} LOST: give a larger --buffer than ${bytes(options.bufferKiB * 1024)}`),
    );
    if (total === 0) say("nothing was mapped or unmapped in that time: is there a load on the device?");
    else say(`next: dmalink check ${file}, or dmalink compare ${file}`);
  } finally {
    await source.close();
  }
}
