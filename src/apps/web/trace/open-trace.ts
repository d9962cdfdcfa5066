/**
 * A trace that is open in the worker: read twice, first counted (what `stats` says), then judged and kept as columns.
 *
 * Idea: the numbers are those of the commands, by the same functions, so the page cannot say something else than a terminal.
 * Promises: damage ends the reading, not the answer, and is said with it.
 */
import { readKernelLog, readStats } from "../../../analysis/index.ts";
import { DmaError, plural } from "../../../base/index.ts";
import { checkJson, readRecording, statsJson } from "../../../report/index.ts";
import { openTrace, type Trace } from "../../../trace/index.ts";
import type { Tell } from "../frame/calls.ts";
import { Marks } from "../pictures/marks.ts";
import type { CheckAnswer, Overview } from "./answers.ts";
import { blobInput, unpacked } from "./open-file.ts";
import { Pictures } from "./pictures.ts";

/** The files of one session: a trace, and what lies beside it. */
export interface OpenedFiles {
  readonly trace: File;
  /** The kernel's log of the same machine. */
  readonly kernelLog?: File;
}

/** Batches of events after which their number is told. */
const TOLD_EVERY = 16;

export class OpenTrace {
  readonly #files: OpenedFiles;
  readonly #blob: Blob;
  /** What `stats` says. */
  readonly overview: Overview;
  #checked: Promise<CheckAnswer> | undefined;
  #pictures: Pictures | undefined;

  private constructor(files: OpenedFiles, blob: Blob, overview: Overview) {
    this.#files = files;
    this.#blob = blob;
    this.overview = overview;
  }

  /** @throws DmaError: it is no trace, or cannot be read */
  static async open(files: OpenedFiles, tell: Tell): Promise<OpenTrace> {
    const { trace: file } = files;
    const { blob, cut } = await unpacked(file, tell);
    const trace = await openBlob(file.name, blob);
    const result = await readStats(trace, { progress: telling(tell, "counting") });
    const { format, clock, cpus, system, timing, remarks, damage } = trace;
    const json = statsJson(file.name, trace, result) as Overview["statsJson"];
    const overview: Overview = {
      name: file.name,
      sizeBytes: file.size,
      statsJson: json,
      stats: json.traces[0],
      trace: { format, clock, cpus, system, timing, damage, remarks: [...remarks], timeBase: trace.timeBase },
      wentBack: result.wentBack,
      ...(cut !== undefined && { cut }),
    };
    return new OpenTrace(files, blob, overview);
  }

  check(tell: Tell): Promise<CheckAnswer> {
    this.#checked ??= this.#check(tell);
    return this.#checked;
  }

  /** What pictures and tables show; known once it was checked. */
  get pictures(): Pictures {
    if (!this.#pictures) throw new Error("the trace was not checked yet");
    return this.#pictures;
  }

  /** The trace again, from its beginning. */
  again(): Promise<Trace> {
    return openBlob(this.#files.trace.name, this.#blob);
  }

  async #check(tell: Tell): Promise<CheckAnswer> {
    const { trace: file, kernelLog } = this.#files;
    const log = kernelLog && (await readKernelLog(await this.#openLog(kernelLog, tell)));
    const trace = await openBlob(file.name, this.#blob);
    const marks = new Marks(trace);
    const recording = await readRecording(trace, {
      visit: marks.add,
      progress: telling(tell, "checking"),
      ...(log && { kernelLog: log }),
    });
    tell("arranging the pictures");
    this.#pictures = new Pictures(recording, marks);
    const { result, firstNs, lastNs, mappings } = recording;
    const { format, timeBase, clock, damage, remarks, timing } = trace;
    const checked = { file: file.name, format, timeBase, clock, damage, remarks, timing, result };
    return {
      check: checkJson([checked]) as CheckAnswer["check"],
      findings: result.findings,
      firstNs,
      lastNs,
      mappings: mappings.count,
      devices: this.#pictures.devices,
      tracks: this.#pictures.tracks,
    };
  }

  async #openLog(file: File, tell: Tell): Promise<Trace> {
    const { blob } = await unpacked(file, tell);
    const log = await openBlob(file.name, blob);
    if (log.format !== "kernel log")
      throw new DmaError("ERR_DMA_INPUT", "EINVAL", `${file.name} is no kernel log, but ${log.format}`, {
        file: file.name,
      });
    return log;
  }
}

const openBlob = (name: string, blob: Blob): Promise<Trace> => openTrace(blobInput(name, blob), { bestEffort: true });

/** Tells the number of events now and then: words take longer than counting. */
function telling(tell: Tell, what: string): (events: number) => void {
  let batches = 0;
  return (events) => {
    if (batches++ % TOLD_EVERY === 0) tell(`${what}: ${plural(events, "event")}`);
  };
}
