/**
 * Judge of the kind vfio-mig: states, data streams, feature calls and logs of devices that move.
 *
 * Every call goes through the kernel's own interface, bytes in and bytes out (vfio-mig-device.ts). A line says by its
 * operation what it belongs to: the files of the kind differ only in which operations they have. What a file merely names (a
 * device), its own answers about flags and size describe; everything else is judged. Sessions: vfio-mig-session.ts.
 */

import { nextState, stateOfCode } from "../../src/consumers/vfio/index.ts";
import { BareDevice, SerialCard } from "../../src/hosts/simulated/index.ts";
import {
  CStructValue,
  FEATURE,
  FEATURE_FLAGS,
  LOGGING_CONTROL,
  LOGGING_RANGE,
  LOGGING_REPORT,
  MIG_STATE,
  MIGRATION_FEATURES,
  MIGRATION_FLAGS,
  read64,
} from "../../src/layouts/uapi/index.ts";
import { PlainCallerMemory } from "../models/caller-memory.ts";
import { Differences, type Judge, type Line, Tally } from "./judge.ts";
import { answerOf, codeOf, JudgedDevice, nameOf } from "./vfio-mig-device.ts";
import { judgeSessions, type Numbered } from "./vfio-mig-session.ts";

const { GET, SET, PROBE } = FEATURE_FLAGS;
const UNKNOWN_FLAG = 1 << 19;
const ALL = MIGRATION_FLAGS.STOP_COPY | MIGRATION_FLAGS.P2P | MIGRATION_FLAGS.PRE_COPY;

export const judges: Readonly<Record<string, Judge>> = {
  "vfio-mig": (_header, lines) => {
    const tally = new Tally();
    const devices = new NamedDevices(lines);
    const log = new LogJudge();
    const session: Numbered[] = [];
    lines.forEach((line, i) => {
      const number = i + 2;
      const judge = (differences: Differences): void => tally.judge(number, differences.take());
      const { op } = line;
      if (op === "nextState") judge(judgeArc(line));
      else if (op === "feature") judge(devices.feature(line));
      else if (op === "unreachable") judge(judgeUnreachable(line));
      else if (op === "setState" && "variant" in line) judge(judgeVariant(line));
      else if (op === "setState" && "flags" in line) judge(judgeSteps(line));
      else if (LogJudge.OPERATIONS.has(op as string)) judge(log.line(line));
      else session.push({ number, line });
    });
    // Notes of a log are no session.
    if (session.some(({ line }) => line["op"] !== "note")) judgeSessions(session, tally);
    return tally.verdict();
  },
};

function judgeArc(line: Line): Differences {
  const differences = new Differences();
  const [from, to] = [stateOfCode(codeOf(line["from"])), stateOfCode(codeOf(line["to"]))];
  const next = from && to && nextState(from, to, line["flags"] as number);
  differences.same("ret", line["ret"], next ? 0 : -22);
  differences.same("next", line["next"], nameOf(next));
  return differences;
}

/** A device that takes one arc at a time, brought to the state that a line starts from. */
function bareAt(line: Line, from: unknown): { device: JudgedDevice; ret: number } {
  const device = new JudgedDevice(new BareDevice({ migrationFlags: line["flags"] as number }));
  const { ret } = device.setState(codeOf(from));
  device.steps.length = 0;
  return { device, ret };
}

function judgeUnreachable(line: Line): Differences {
  const differences = new Differences();
  differences.same("ret", line["ret"], bareAt(line, line["state"]).ret);
  return differences;
}

function judgeSteps(line: Line): Differences {
  const differences = new Differences();
  const { device } = bareAt(line, line["from"]);
  const { ret, fd } = device.setState(codeOf(line["to"]));
  differences.same("ret", line["ret"], ret);
  differences.same("fd", line["fd"], fd === "unchanged" ? fd : fd !== undefined);
  differences.same("state", line["state"], device.state);
  differences.same("steps", line["steps"], device.steps.map(nameOf));
  return differences;
}

/** A serial card with two ports, some of whose image was written or read before the state is set. */
function judgeVariant(line: Line): Differences {
  const differences = new Differences();
  const device = new JudgedDevice(new SerialCard());
  const image = new Uint8Array(96);
  const saved = device.setState(codeOf("STOP_COPY")).fd;
  if (typeof saved === "object") saved.read(image);
  device.migration!.reset();
  const opened = device.setState(codeOf(line["from"])).fd;
  const old = typeof opened === "object" ? opened : undefined;
  const variant = line["variant"] as number;
  if (old?.direction === "load") old.write(image.subarray(0, [0, image.length / 2, image.length][variant]));
  else old?.read(new Uint8Array([0, 5, image.length][variant]!));

  const { ret, fd } = device.setState(codeOf(line["to"]));
  differences.same("ret", line["ret"], ret);
  differences.same("fd", line["fd"], fd === "unchanged" ? fd : fd !== undefined);
  differences.same("state", line["state"], device.state);
  const read = (file: typeof old): number => answerOf(() => file!.read(new Uint8Array(32)));
  const write = (file: typeof old): number => answerOf(() => file!.write(new Uint8Array(1)));
  if ("oldFd" in line) differences.same("oldFd", line["oldFd"], old?.direction === "load" ? write(old) : read(old));
  const opening = typeof fd === "object" ? fd : undefined;
  if ("newFdRead" in line) differences.same("newFdRead", line["newFdRead"], read(opening));
  if ("newFdWrite" in line) differences.same("newFdWrite", line["newFdWrite"], write(opening));
  return differences;
}

/** The devices of feature calls: what they can do is what the file's answers say of them, or their name (`gold5`: flags 5). */
class NamedDevices {
  readonly #devices = new Map<unknown, JudgedDevice>();
  readonly #lines: readonly Line[];

  constructor(lines: readonly Line[]) {
    this.#lines = lines;
  }

  feature(line: Line): Differences {
    const differences = new Differences();
    const device = this.#deviceOf(line["dev"]);
    device.migration?.reset();
    const argsz = line["argsz"] as number;
    const memory = new PlainCallerMemory();
    const { address, bytes } = memory.add(Math.max(argsz, FEATURE.bytes) + 64);
    const index = line["index"] as number;
    if (index === MIGRATION_FEATURES.MIG_DEVICE_STATE)
      bytes.set(new CStructValue(MIG_STATE, { device_state: codeOf("RUNNING") }).bytes, FEATURE.bytes);
    const flags =
      (line["get"] ? GET : 0) |
      (line["set"] ? SET : 0) |
      (line["probe"] ? PROBE : 0) |
      (line["unknownFlag"] ? UNKNOWN_FLAG : 0);
    differences.same("ret", line["ret"], device.feature(memory, address, flags | index, argsz));
    const data = line["data"] as string | undefined;
    if (data !== undefined) {
      const found = bytes.subarray(FEATURE.bytes, FEATURE.bytes + data.length / 2);
      differences.same("data", data, Buffer.from(found).toString("hex"));
    }
    return differences;
  }

  #deviceOf(name: unknown): JudgedDevice {
    let device = this.#devices.get(name);
    if (device === undefined) {
      const migrationFlags = this.#said(name, MIGRATION_FEATURES.MIGRATION) ?? flagsOfName(name);
      const stopCopyBytes = this.#said(name, MIGRATION_FEATURES.MIG_DATA_SIZE) ?? 0;
      const bare = new BareDevice({ migrationFlags, stopCopyBytes });
      device = new JudgedDevice(this.#logs(name) ? bare : withoutLog(bare));
      this.#devices.set(name, device);
    }
    return device;
  }

  /** A number that the device says of itself. */
  #said(name: unknown, index: number): number | undefined {
    const line = this.#lines.find((each) => each["dev"] === name && each["index"] === index && "data" in each);
    return line && Number(Buffer.from(line["data"] as string, "hex").readBigUInt64LE());
  }

  /** The device has a log: somebody stopped it, or asked whether that can be done. */
  #logs(name: unknown): boolean {
    const { DMA_LOGGING_STOP } = MIGRATION_FEATURES;
    return this.#lines.some((each) => each["dev"] === name && each["index"] === DMA_LOGGING_STOP && each["ret"] === 0);
  }
}

const flagsOfName = (name: unknown): number => Number(/^gold(\d+)$/.exec(String(name))?.[1] ?? ALL);

/** The same device, but for its log. */
const withoutLog = (device: BareDevice): ConstructorParameters<typeof JudgedDevice>[0] => ({
  migrationFlags: device.migrationFlags,
  takeArc: (from, to) => device.takeArc(from, to),
  stopCopyLength: () => device.stopCopyLength(),
  wasReset: () => device.wasReset(),
});

/** The log of writes of a device whose limits and writes are operations of the file. */
class LogJudge {
  static readonly OPERATIONS: ReadonlySet<string> = new Set([
    "driver",
    "logStart",
    "logStop",
    "logReport",
    "dirty",
    "clean",
  ]);
  readonly #bare = new BareDevice();
  readonly #device: JudgedDevice = new JudgedDevice(this.#bare);

  line(line: Line): Differences {
    const differences = new Differences();
    switch (line["op"]) {
      case "driver":
        this.#bare.loggingLimits = {
          maxRanges: line["maxRanges"] as number,
          minPageBytes: BigInt(line["minPage"] as string),
          maxPageBytes: BigInt(line["maxPage"] as string),
        };
        break;
      case "dirty":
        this.#bare.wrote(BigInt(line["iova"] as string), BigInt(line["length"] as string));
        break;
      case "clean":
        this.#bare.forget();
        break;
      case "logStop":
        differences.same(
          "ret",
          line["ret"],
          this.#call(SET | MIGRATION_FEATURES.DMA_LOGGING_STOP, new Uint8Array(0)).ret,
        );
        break;
      case "logStart":
        this.#start(line, differences);
        break;
      default:
        this.#report(line, differences);
    }
    return differences;
  }

  #start(line: Line, differences: Differences): void {
    const memory = new PlainCallerMemory();
    const ranges = line["ranges"] as [string, string][];
    const list = memory.add(ranges.length * LOGGING_RANGE.bytes);
    ranges.forEach(([iova, length], i) => {
      const range = new CStructValue(LOGGING_RANGE);
      range.setBig("iova", BigInt(iova));
      range.setBig("length", BigInt(length));
      list.bytes.set(range.bytes, i * LOGGING_RANGE.bytes);
    });
    const control = new CStructValue(LOGGING_CONTROL, {
      num_ranges: line["num"] as number,
      ranges: line["badPointer"] ? 1 : list.address,
    });
    control.setBig("page_size", BigInt(line["pageSize"] as string));
    const flags = SET | MIGRATION_FEATURES.DMA_LOGGING_START;
    const { ret, data } = this.#call(flags, control.bytes, memory);
    differences.same("ret", line["ret"], ret);
    if ("pageSizeOut" in line)
      differences.same("pageSizeOut", line["pageSizeOut"], hexOf(read64(data, LOGGING_CONTROL.fields.page_size)));
    if ("given" in line) {
      const given = this.#bare.logged?.ranges.map(({ first, last }) => [hexOf(first), hexOf(last)]);
      differences.same("given", line["given"], given);
    }
  }

  #report(line: Line, differences: Differences): void {
    const memory = new PlainCallerMemory();
    const [iova, length, unit] = [line["iova"], line["length"], line["pageSize"]].map((text) => BigInt(text as string));
    const bits = unit! > 0n ? Number((length! + unit! - 1n) / unit!) : 0;
    const fill = (line["fill"] as number | undefined) ?? 0;
    const shift = (line["unalignedPointer"] as number | undefined) ?? 0;
    const bitmap = memory.add(Math.ceil(bits / 64) * 8 + 8 + shift, fill);
    const report = new CStructValue(LOGGING_REPORT, { bitmap: line["badPointer"] ? 1 : bitmap.address + shift });
    report.setBig("iova", iova!);
    report.setBig("length", length!);
    report.setBig("page_size", unit!);
    this.#bare.reports.length = 0;
    const { ret } = this.#call(GET | MIGRATION_FEATURES.DMA_LOGGING_REPORT, report.bytes, memory);
    differences.same("ret", line["ret"], ret);
    if ("calls" in line) {
      const calls = this.#bare.reports.map((call) => [hexOf(call.iova), hexOf(call.length)]);
      differences.same("calls", line["calls"], calls);
    }
    if (!("bits" in line)) return;
    const changed: number[] = [];
    bitmap.bytes.subarray(shift).forEach((byte, at) => {
      for (let bit = 0; bit < 8; bit++) if (((byte ^ fill) >> bit) & 1) changed.push(at * 8 + bit);
    });
    differences.same("bits", line["bits"], "fill" in line ? changed : runsOf(changed));
  }

  #call(flags: number, data: Uint8Array, memory = new PlainCallerMemory()): { ret: number; data: Uint8Array } {
    const { address, bytes } = memory.add(FEATURE.bytes + data.length);
    bytes.set(data, FEATURE.bytes);
    const ret = this.#device.feature(memory, address, flags, bytes.length);
    return { ret, data: bytes.subarray(FEATURE.bytes) };
  }
}

const hexOf = (value: bigint): string => `0x${value.toString(16)}`;

/** Ascending numbers as [first, count]. */
function runsOf(numbers: readonly number[]): [number, number][] {
  const runs: [number, number][] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last && last[0] + last[1] === number) last[1]++;
    else runs.push([number, 1]);
  }
  return runs;
}
