/**
 * Judge of the kinds iommufd and type1: every call of a recording, as bytes through the kernel's own interface.
 *
 * Idea: a table says for each operation which structure is passed and what comes out. Every field that a line has and that the
 * call answers is compared; and after every line the counters of the process, which the file names when they change.
 * What only tells the recorder's own numbers (files, accesses, items) is counted here in the same way.
 */
import { DmaError, ERRNO } from "../../src/base/index.ts";
import {
  type Access,
  type BoundDevice,
  IommufdFile,
  type IommufdFileOptions,
  type IommufdObject,
  NestedHwpt,
  PagingHwpt,
  QueueFile,
} from "../../src/consumers/iommufd/index.ts";
import { IOMMUFD_REQUESTS, type IommufdRequestName } from "../../src/layouts/uapi/index.ts";
import { Failures, failNth } from "./iommufd-failures.ts";
import { JudgedTable, MockDevice, MockNested } from "./iommufd-mock.ts";
import { typedRequest } from "./iommufd-typed.ts";
import { type Person, TestBuffer, World } from "./iommufd-world.ts";
import { Differences, type Judge, judgeLines, type Line, NotJudged } from "./judge.ts";
import { VFIO_OPERATIONS } from "./type1.ts";
import { VfioWorld } from "./type1-devices.ts";

/** Which door is judged: `bytes` unless the environment says `typed`; then calls that have types go by these. */
const door = (): string => process.env["DMALINK_GOLDEN_DOOR"] ?? "bytes";

/** What a call answered: fields of the line. */
export type Answer = Readonly<Record<string, unknown>>;
export type Operation = (stand: Stand, line: Line, person: Person, rule: (name: string) => void) => Answer;

export const hexOf = (value: bigint | number): string => `0x${value.toString(16)}`;
export const bytesOf = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
export const textOf = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Ascending numbers as [first, count]. */
export const runsOf = (numbers: readonly number[]): [number, number][] => {
  const runs: [number, number][] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last && last[0] + last[1] === number) last[1]++;
    else runs.push([number, 1]);
  }
  return runs;
};

/** 0, what it gives, or a negative errno. */
export function answerOf(call: () => number | undefined): number {
  try {
    return call() ?? 0;
  } catch (error) {
    if (error instanceof DmaError) return -ERRNO[error.errno];
    throw error;
  }
}

/** A mock device that a file attached: an object of its iommufd. */
export class Stub implements IommufdObject {
  readonly kind = "other";
  id = 0;
  users = 0;
  readonly mock: MockDevice;
  readonly #end: () => void;
  device!: BoundDevice;

  constructor(mock: MockDevice, end: () => void) {
    this.mock = mock;
    this.#end = end;
  }

  end(): void {
    this.#end();
  }
}

interface Held {
  readonly iova: bigint;
  readonly length: bigint;
}

/** An access of the test module: it lets go of what it is asked for. */
export class JudgedAccess {
  readonly access: Access;
  readonly file: IommufdFile;
  readonly pins: boolean;
  readonly items: Map<number, Held> = new Map();
  next = 0;

  constructor(file: IommufdFile, pins: boolean, failurePoint: IommufdFileOptions["failurePoint"]) {
    this.file = file;
    this.pins = pins;
    this.access = file.iommufd.createAccess({
      pins,
      failurePoint,
      onUnmap: (iova, length) => {
        for (const [item, held] of [...this.items])
          if (held.iova <= iova + length - 1n && held.iova + held.length - 1n >= iova) {
            this.access.unpin(held.iova, held.length);
            this.items.delete(item);
          }
      },
    });
  }
}

/** Everything of one recording. */
export class Stand {
  readonly world: World = new World();
  readonly vfio: VfioWorld;
  readonly accesses: Map<Person, Map<number, JudgedAccess>> = new Map();
  /** Pages that one call pins at most. */
  pinBatchPages = 8192;
  /** Makes steps fail that can. */
  readonly failures: Failures = new Failures();

  constructor(lines: readonly Line[]) {
    this.vfio = new VfioWorld(lines);
  }

  get options(): IommufdFileOptions {
    const stand = this;
    return {
      failurePoint: (step) => this.failures.point(step),
      get pinBatchPages() {
        return stand.pinBatchPages;
      },
    };
  }

  iommufd(line: Line, person: Person): IommufdFile {
    const file = person.file(line["fd"]);
    if (!(file instanceof IommufdFile)) throw new NotJudged(`file ${line["fd"]} is no iommufd`);
    return file;
  }

  access(line: Line, person: Person): JudgedAccess {
    const found = this.accesses.get(person)?.get(line["access"] as number);
    if (!found) throw new NotJudged(`access ${line["access"]} is not there`);
    return found;
  }
}

/** A structure to pass: fields by name. */
export type Values = Readonly<Record<string, number | bigint | undefined>>;

/** One request with the newest structure. The answer, and the structure afterwards. */
export function request(
  file: IommufdFile,
  name: IommufdRequestName,
  person: Person,
  values: Values,
): { readonly ret: number; get(field: string): bigint } {
  const typed = door() === "typed" ? typedRequest(file, name, person, values) : undefined;
  if (typed) return typed;
  const { layout, number } = IOMMUFD_REQUESTS[name];
  const bytes = new Uint8Array(layout.bytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, layout.bytes, true);
  for (const [field, value] of Object.entries(values)) {
    if (value === undefined) continue;
    const at = layout.fields[field];
    if (!at) throw new Error(`${name} has no field ${field}`);
    const raw = BigInt.asUintN(at.bytes * 8, BigInt(value));
    for (let i = 0; i < at.bytes; i++) view.setUint8(at.offset + i, Number((raw >> BigInt(8 * i)) & 0xffn));
  }
  const ret = file.ioctl(number, bytes, person.process);
  return {
    ret,
    get(field) {
      const at = layout.fields[field]!;
      let value = 0n;
      for (let i = at.bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(view.getUint8(at.offset + i));
      return value;
    },
  };
}

const big = (value: unknown): bigint => (value === undefined ? 0n : BigInt(value as string));
const num = (value: unknown): number => (value as number | undefined) ?? 0;
const FIXED = 1;

/** Fields of an answer that are there only when the call succeeded. */
const ifDone = (ret: number, fields: () => Answer): Answer => (ret >= 0 ? { ret, ...fields() } : { ret });

/** Calls the raw bytes of a line; a descriptor goes where the line says. */
function raw(stand: Stand, line: Line, person: Person): Answer {
  const file = stand.iommufd(line, person);
  const given = bytesOf(line["bytes"] as string);
  // Longer than what the line shows, and not said to be zero: it is not.
  const size = given.length < 4 ? 0 : new DataView(given.buffer).getUint32(0, true);
  const padded = num(line["zeroPaddedTo"]);
  const bytes = new Uint8Array(Math.max(given.length, padded, size)).fill(padded > 0 ? 0 : 0xff);
  bytes.set(given);
  const view = new DataView(bytes.buffer);
  const [fdAt, newFdAt] = [line["fdAt"] as number | undefined, line["newFdAt"] as number | undefined];
  const hasRoom = (at: number | undefined): at is number => at !== undefined && at + 4 <= bytes.length;
  let fd = -1;
  if (fdAt !== undefined) fd = stand.world.fdOf(person, line["file"] as string);
  if (hasRoom(fdAt)) view.setInt32(fdAt, fd, true);
  const ret = file.ioctl((0x3b << 8) | num(line["nr"]), bytes, person.process);
  if (fd >= 0) stand.world.closeFd(person, fd);
  if (hasRoom(fdAt)) view.setUint32(fdAt, 0, true);
  if (newFdAt !== undefined) {
    const made = view.getInt32(newFdAt, true);
    const queue = person.process.descriptors.get(made)?.file;
    if (ret === 0 && !(queue instanceof QueueFile)) return { ret, newFdAt: `no queue at ${made}` };
    stand.world.closeFd(person, made);
    view.setUint32(newFdAt, 0, true);
  }
  const after = textOf(bytes.subarray(0, given.length));
  return after === line["bytes"] && !("after" in line) ? { ret } : { ret, after };
}

function getDirty(stand: Stand, line: Line, person: Person): Answer {
  const length = big(line["len"]);
  const pageBytes = big(line["pageSize"]);
  const unit = pageBytes & -pageBytes;
  const bits = pageBytes === 0n ? 64 : Number(length / (line["prefill"] === undefined ? unit : pageBytes)) + 64;
  const bytes = Math.ceil(bits / 64) * 8;
  const address = person.arrays(bytes);
  const { memory } = person.process;
  if (line["prefill"] !== undefined) {
    const used = Number((length / pageBytes + 7n) / 8n);
    memory.write(address as never, new Uint8Array(used).fill(num(line["prefill"])));
  }
  const { ret } = request(stand.iommufd(line, person), "getDirtyBitmap", person, {
    hwpt_id: num(line["hwpt"]),
    flags: num(line["flags"]),
    iova: big(line["iova"]),
    length,
    page_size: pageBytes,
    data: address,
  });
  if (!("dirty" in line)) return { ret };
  const shown = line["prefill"] === undefined ? bits : Number((length + pageBytes - 1n) / pageBytes);
  const set: number[] = [];
  const page = new Uint8Array(4096);
  for (let at = 0; at < bytes; at += 4096) {
    if (stand.world.pageAt(person, address + at) < 0) continue;
    memory.read((address + at) as never, page);
    page.forEach((byte, i) => {
      for (let bit = 0; bit < 8; bit++)
        if ((byte >> bit) & 1 && (at + i) * 8 + bit < shown) set.push((at + i) * 8 + bit);
    });
  }
  return { ret, dirty: runsOf(set) };
}

/** The table of an id, as the test module looks it up. */
function judgedTable(stand: Stand, line: Line, person: Person): JudgedTable | undefined {
  const object = stand.iommufd(line, person).iommufd.objects.get(num(line["hwpt"]));
  return object instanceof PagingHwpt && object.table instanceof JudgedTable ? object.table : undefined;
}

function checkMap(stand: Stand, line: Line, person: Person): Answer {
  const table = judgedTable(stand, line, person);
  if (!table) return { ret: -2 };
  const [iova, length, va] = [Number(line["iova"]), Number(line["len"]), Number(line["va"])];
  for (let at = 0; at < length; at += 2048) {
    const leaf = table.leafAt(Math.floor((iova + at) / table.unitBytes));
    const page = stand.world.pageAt(person, va + at);
    const phys = leaf && leaf.phys * table.unitBytes + ((iova + at) % table.unitBytes);
    if (phys === undefined || page < 0 || phys !== page * 4096 + ((va + at) % 4096)) return { ret: -22 };
  }
  return { ret: 0 };
}

function deviceWrites(stand: Stand, line: Line, person: Person): Answer {
  const table = judgedTable(stand, line, person);
  if (!table) return { ret: -2 };
  const [iova, length, pageBytes] = [Number(line["iova"]), Number(line["len"]), Number(line["pageSize"])];
  if (!pageBytes || !length || iova % pageBytes || length % pageBytes) return { ret: -22 };
  if (!table.tracksDirty || !table.isTracking) return { ret: -22 };
  let marked = 0;
  for (const [first, count] of line["pages"] as [number, number][])
    for (let page = first; page < first + count; page++, marked++)
      table.soil(Math.floor((iova + page * pageBytes) / table.unitBytes));
  return { ret: 0, marked };
}

function mockDevice(stand: Stand, line: Line, person: Person): Answer {
  const { iommufd } = stand.iommufd(line, person);
  const mock = new MockDevice(num(line["devFlags"]));
  let hwpt = 0;
  const stub = new Stub(mock, () => {
    iommufd.unbind(stub.device);
  });
  const ret = answerOf(() => {
    iommufd.objects.reserve(stub);
    stub.device = iommufd.bind(mock);
    try {
      hwpt = iommufd.attach(stub.device, num(line["pt"])).id;
      iommufd.objects.publish(stub);
    } catch (error) {
      iommufd.objects.publish(stub);
      iommufd.objects.remove(stub);
      throw error;
    }
    return 0;
  });
  return ifDone(ret, () => ({ st: stub.id, dev: stub.device.id, hwpt }));
}

/** What a call on a mock device does to it. */
function onStub(stand: Stand, line: Line, person: Person, call: (stub: Stub, file: IommufdFile) => number): number {
  const file = stand.iommufd(line, person);
  const stub = file.iommufd.objects.get(num(line["st"]));
  return stub instanceof Stub ? answerOf(() => call(stub, file)) : -2;
}

function mapOf(name: "map" | "mapFile"): Operation {
  return (stand, line, person) => {
    const isFixed = (num(line["flags"]) & FIXED) !== 0;
    const fd = name === "mapFile" ? stand.world.fdOf(person, line["file"] as string) : undefined;
    const { ret, get } = request(stand.iommufd(line, person), name, person, {
      flags: num(line["flags"]),
      ioas_id: num(line["ioas"]),
      ...(fd === undefined ? { user_va: big(line["va"]) } : { fd, start: big(line["start"]) }),
      length: big(line["len"]),
      iova: big(line["iova"]),
    });
    if (fd !== undefined && fd >= 0) stand.world.closeFd(person, fd);
    return ifDone(ret, () => (isFixed ? {} : { got: hexOf(get("iova")) }));
  };
}

/** The words of a vendor, in arrays of the caller; without bytes the pointer is bad. */
function dataPointer(person: Person, data: string | undefined, badPointer: boolean): number {
  if (badPointer) return 0x10_4000_0000;
  const bytes = bytesOf(data ?? "");
  const address = person.arrays(Math.max(bytes.length, 8192));
  if (bytes.length > 0) person.process.memory.write(address as never, bytes);
  return address;
}

function sumOf(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) sum = (Math.imul(sum, 31) + byte) >>> 0;
  return sum;
}

function accessCopy(stand: Stand, line: Line, person: Person): Answer {
  const { access } = stand.access(line, person);
  const write = num(line["write"]) === 1;
  const length = Number(line["len"]);
  if ((num(line["flags"]) & ~1) !== 0) return { ret: -95 };
  const bytes = new Uint8Array(length);
  const seed = num(line["seed"]);
  if (write) for (let i = 0; i < length; i++) bytes[i] = (seed + 7 * i + 13 * (i >> 8)) & 255;
  const ret = answerOf(() => {
    access.copy(big(line["iova"]), bytes, write);
    return 0;
  });
  return write ? { ret } : ifDone(ret, () => ({ head: textOf(bytes.subarray(0, 16)), sum: sumOf(bytes) }));
}

function accessPin(stand: Stand, line: Line, person: Person): Answer {
  const judged = stand.access(line, person);
  if ((num(line["flags"]) & ~1) !== 0 || !judged.pins) return { ret: -95 };
  const [iova, length] = [big(line["iova"]), big(line["len"])];
  let pages: readonly number[] = [];
  const ret = answerOf(() => {
    pages = judged.access.pin(iova, length, num(line["write"]) === 1);
    return 0;
  });
  if (ret < 0) return { ret };
  if (line["va"] !== undefined) {
    const va = Number(line["va"]);
    const at = pages.findIndex((page, i) => page !== stand.world.pageAt(person, va + i * 4096));
    if (at >= 0) {
      judged.access.unpin(iova, length);
      return { ret: -52 };
    }
  }
  const item = judged.next++;
  judged.items.set(item, { iova, length });
  return { ret, item };
}

/** A queue's file by the recorder's number. */
function queueOf(line: Line, person: Person): QueueFile {
  const file = person.file(line["queue"]);
  if (!(file instanceof QueueFile)) throw new NotJudged(`file ${line["queue"]} is no queue`);
  return file;
}

/** A new queue: its id, and the recorder's number of its file. */
function madeQueue(person: Person, ret: number, id: bigint, fd: bigint): Answer {
  return ifDone(ret, () => {
    const file = person.process.descriptors.get(Number(fd))!.file;
    return { id: Number(id), queue: person.know(file, Number(fd)) };
  });
}

function holdsValue(values: readonly number[] | undefined, line: Line): Answer {
  if (!values) return { ret: -2 };
  const slot = num(line["slot"]);
  return { ret: slot < values.length && values[slot] === Number(line["value"]) ? 0 : -22 };
}

const OPERATIONS: Readonly<Record<string, Operation>> = {
  note: () => ({}),
  mem: ({ world }, line, person) => {
    world.map(person, line);
    return {};
  },
  memfd: ({ world }, line) => {
    world.memfd(line);
    return {};
  },
  cpuFill: (_stand, line, person) => {
    const bytes = new Uint8Array(Number(line["len"]));
    bytes.forEach((_byte, i) => {
      bytes[i] = (num(line["seed"]) + 7 * i + 13 * (i >> 8)) & 255;
    });
    person.process.memory.write(Number(line["va"]) as never, bytes);
    return {};
  },
  memUnmap: (_stand, line, person) => {
    person.process.memory.unmap(Number(line["va"]) as never, Number(line["len"]));
    return {};
  },
  closeFile: () => ({}),
  process: ({ world }, line) => {
    world.fork(line["name"] as string, num(line["uid"]));
    return {};
  },
  exit: ({ world }, line) => {
    world.exit(line["name"] as string);
    return {};
  },
  rlimit: (_stand, line, person) => {
    person.process.memlockBytes = num(line["pages"]) * 4096;
    return { ret: 0 };
  },
  mlock: (_stand, line, person) => {
    person.process.memory.locked.pages += Number(line["len"]) / 4096;
    return { ret: 0 };
  },
  munlock: (_stand, line, person) => {
    const pages = person.locked - num(line["locked"]);
    person.process.memory.locked.pages -= pages;
    return {};
  },
  scratchLimit: (stand, line) => {
    stand.pinBatchPages = Math.floor(num(line["bytes"]) / 8);
    return { ret: 0 };
  },
  failNth,

  open: (stand, _line, person) => ({ fd: person.open(new IommufdFile(stand.options)) }),
  close: (_stand, line, person) => {
    person.close(num(line["fd"]));
    return {};
  },

  ioasAlloc: (stand, line, person) => {
    const { ret, get } = request(stand.iommufd(line, person), "ioasAlloc", person, {});
    return ifDone(ret, () => ({ id: Number(get("out_ioas_id")) }));
  },
  destroy: (stand, line, person) => ({
    ret: request(stand.iommufd(line, person), "destroy", person, { id: num(line["id"]) }).ret,
  }),
  map: mapOf("map"),
  mapFile: mapOf("mapFile"),
  unmap: (stand, line, person) => {
    const { ret, get } = request(stand.iommufd(line, person), "unmap", person, {
      ioas_id: num(line["ioas"]),
      iova: big(line["iova"]),
      length: big(line["len"]),
    });
    return ifDone(ret, () => ({ unmapped: hexOf(get("length")) }));
  },
  copy: (stand, line, person) => {
    const isFixed = (num(line["flags"]) & FIXED) !== 0;
    const { ret, get } = request(stand.iommufd(line, person), "copy", person, {
      flags: num(line["flags"]),
      dst_ioas_id: num(line["dst"]),
      src_ioas_id: num(line["src"]),
      length: big(line["len"]),
      dst_iova: big(line["dstIova"]),
      src_iova: big(line["srcIova"]),
    });
    return ifDone(ret, () => (isFixed ? {} : { got: hexOf(get("dst_iova")) }));
  },
  ranges: (stand, line, person) => {
    const room = num(line["n"]);
    const address = person.arrays(room * 16);
    const { ret, get } = request(stand.iommufd(line, person), "iovaRanges", person, {
      ioas_id: num(line["ioas"]),
      num_iovas: room,
      allowed_iovas: address,
    });
    if (!("num" in line)) return { ret };
    const count = Number(get("num_iovas"));
    const bytes = new Uint8Array(Math.min(count, room) * 16);
    person.process.memory.read(address as never, bytes);
    const view = new DataView(bytes.buffer);
    const ranges = Array.from({ length: bytes.length / 16 }, (_, i) => [
      hexOf(view.getBigUint64(i * 16, true)),
      hexOf(view.getBigUint64(i * 16 + 8, true)),
    ]);
    return { ret, num: count, align: hexOf(get("out_iova_alignment")), ranges };
  },
  rangesBadPointer: (stand, line, person) => ({
    ret: request(stand.iommufd(line, person), "iovaRanges", person, {
      ioas_id: num(line["ioas"]),
      num_iovas: num(line["n"]),
      allowed_iovas: 0x10_4000_0000,
    }).ret,
  }),
  allow: (stand, line, person) => {
    const ranges = line["ranges"] as [string, string][];
    const address = person.arrays(ranges.length * 16);
    const bytes = new Uint8Array(ranges.length * 16);
    const view = new DataView(bytes.buffer);
    ranges.forEach(([first, last], i) => {
      view.setBigUint64(i * 16, BigInt(first), true);
      view.setBigUint64(i * 16 + 8, BigInt(last), true);
    });
    if (bytes.length > 0) person.process.memory.write(address as never, bytes);
    const values = { ioas_id: num(line["ioas"]), num_iovas: ranges.length, allowed_iovas: address };
    return { ret: request(stand.iommufd(line, person), "allowIovas", person, values).ret };
  },
  allowBadPointer: (stand, line, person) => ({
    ret: request(stand.iommufd(line, person), "allowIovas", person, {
      ioas_id: num(line["ioas"]),
      num_iovas: num(line["n"]),
      allowed_iovas: 0x10_4000_0000,
    }).ret,
  }),
  reserve: (stand, line, person) => ({
    ret: answerOf(() => {
      const [start, length] = [big(line["start"]), big(line["len"])];
      if (length === 0n) return -22;
      if (start + length - 1n > 2n ** 64n - 1n) return -75;
      const ioas = stand.iommufd(line, person).iommufd.ioas(num(line["ioas"]));
      ioas.reserve(start, start + length - 1n);
      return 0;
    }),
  }),
  option: (stand, line, person) => {
    const op = { set: 0, get: 1 }[line["do"] as string] ?? 2;
    const { ret, get } = request(stand.iommufd(line, person), "option", person, {
      option_id: num(line["option"]),
      op,
      object_id: num(line["obj"]),
      val64: big(line["val"]),
    });
    return ifDone(ret, () => (op === 1 ? { got: hexOf(get("val64")) } : {}));
  },
  vfioIoas: (stand, line, person) => {
    const op = { get: 0, set: 1, clear: 2 }[line["do"] as string] ?? 3;
    const values = { op, ioas_id: num(line["ioas"]) };
    const { ret, get } = request(stand.iommufd(line, person), "vfioIoas", person, values);
    return ifDone(ret, () => (op === 0 ? { got: Number(get("ioas_id")) } : {}));
  },
  changeProcess: (stand, line, person) => ({
    ret: request(stand.iommufd(line, person), "changeProcess", person, {}).ret,
  }),

  hwptAlloc: (stand, line, person) => {
    const data = line["data"] as string | undefined;
    const length = line["dataLen"] === undefined ? (data ?? "").length / 2 : num(line["dataLen"]);
    const { ret, get } = request(stand.iommufd(line, person), "hwptAlloc", person, {
      flags: num(line["flags"]),
      dev_id: num(line["dev"]),
      pt_id: num(line["pt"]),
      data_type: num(line["type"]),
      data_len: length,
      data_uptr: length === 0 ? 0 : dataPointer(person, data, line["dataLen"] !== undefined),
      fault_id: num(line["fault"]),
    });
    return ifDone(ret, () => ({ id: Number(get("out_hwpt_id")) }));
  },
  hwInfo: (stand, line, person) => {
    const length = num(line["dataLen"]);
    const address = person.arrays(length);
    const { ret, get } = request(stand.iommufd(line, person), "getHwInfo", person, {
      flags: num(line["flags"]),
      dev_id: num(line["dev"]),
      data_len: length,
      data_uptr: address,
      data_type: num(line["type"]),
    });
    return ifDone(ret, () => {
      const bytes = new Uint8Array(length);
      person.process.memory.read(address as never, bytes);
      return {
        gotLen: Number(get("data_len")),
        gotType: Number(get("data_type")),
        pasidLog2: Number(get("out_max_pasid_log2")),
        caps: hexOf(get("out_capabilities")),
        ...(length > 0 && { data: textOf(bytes) }),
      };
    });
  },
  setDirty: (stand, line, person) => ({
    ret: request(stand.iommufd(line, person), "setDirtyTracking", person, {
      hwpt_id: num(line["hwpt"]),
      flags: num(line["flags"]),
    }).ret,
  }),
  getDirty,
  deviceWrites,
  checkMap,
  pins: ({ world }, line, person) => {
    const expected = line["pins"] as [number, number][];
    const found: [number, number][] = [];
    let at = Number(line["va"]);
    for (let pages = expected.reduce((sum, [count]) => sum + count, 0); pages > 0; pages--, at += 4096) {
      const pins = world.pinsAt(person, at);
      const last = found.at(-1);
      if (last?.[1] === pins) last[0]++;
      else found.push([1, pins]);
    }
    return { pins: found };
  },
  invalidate: (stand, line, person) => {
    const { ret, get } = request(stand.iommufd(line, person), "invalidate", person, {
      hwpt_id: num(line["id"]),
      data_uptr:
        line["entries"] === undefined && line["badPointer"] === undefined
          ? 0
          : dataPointer(person, line["entries"] as string | undefined, line["badPointer"] === 1),
      data_type: num(line["type"]),
      entry_len: num(line["entryLen"]),
      entry_num: num(line["n"]),
    });
    return { ret, done: Number(get("entry_num")) };
  },
  checkIotlb: (stand, line, person) => {
    const object = stand.iommufd(line, person).iommufd.objects.get(num(line["hwpt"]));
    const table = object instanceof NestedHwpt ? object.table : undefined;
    return holdsValue(table instanceof MockNested ? table.invalidation.values : undefined, line);
  },
  checkCache: (stand, line, person) => {
    const { objects } = stand.iommufd(line, person).iommufd;
    const device = objects.get(num(line["dev"]));
    const mock = device?.kind === "device" ? (device as BoundDevice).hardware : undefined;
    return holdsValue(mock instanceof MockDevice ? mock.cache.values : undefined, line);
  },

  mockDevice,
  replace: (stand, line, person) => {
    let got = 0;
    const ret = onStub(stand, line, person, (stub, file) => {
      got = file.iommufd.replace(stub.device, num(line["pt"])).id;
      return 0;
    });
    return ifDone(ret, () => ({ got }));
  },
  pasidAttach: (stand, line, person) => {
    let got = 0;
    const ret = onStub(stand, line, person, (stub, file) => {
      got = file.iommufd.attach(stub.device, num(line["pt"]), num(line["pasid"])).id;
      return 0;
    });
    return ifDone(ret, () => ({ got }));
  },
  pasidReplace: (stand, line, person) => {
    let got = 0;
    const ret = onStub(stand, line, person, (stub, file) => {
      got = file.iommufd.replace(stub.device, num(line["pt"]), num(line["pasid"])).id;
      return 0;
    });
    return ifDone(ret, () => ({ got }));
  },
  pasidDetach: (stand, line, person) => ({
    ret: onStub(stand, line, person, (stub, file) => {
      file.iommufd.detach(stub.device, num(line["pasid"]));
      return 0;
    }),
  }),
  pasidCheck: (stand, line, person) => ({
    ret: onStub(stand, line, person, (stub) =>
      (stub.device.hwptOf(num(line["pasid"]))?.id ?? 0) === num(line["hwpt"]) ? 0 : -22,
    ),
  }),

  faultAlloc: (stand, line, person) => {
    const { ret, get } = request(stand.iommufd(line, person), "faultQueueAlloc", person, {});
    return madeQueue(person, ret, get("out_fault_id"), get("out_fault_fd"));
  },
  iopf: (stand, line, person) => ({
    ret: answerOf(() => {
      const { iommufd } = stand.iommufd(line, person);
      iommufd.reportFault(iommufd.device(num(line["dev"])), {
        group: num(line["group"]),
        permissions: num(line["perm"]),
        address: big(line["addr"]),
        isLast: true,
      });
      return 0;
    }),
  }),
  queueRead: (_stand, line, person) => {
    const bytes = new Uint8Array(num(line["size"]));
    const ret = answerOf(() => queueOf(line, person).read(bytes));
    return ret > 0 ? { ret, bytes: textOf(bytes.subarray(0, ret)) } : { ret };
  },
  queueWrite: (_stand, line, person) => ({
    ret: answerOf(() => queueOf(line, person).write(bytesOf(line["bytes"] as string))),
  }),
  queuePoll: (_stand, line, person) => {
    const { in: isIn, out } = queueOf(line, person).poll();
    return { in: isIn ? 1 : 0, out: out ? 1 : 0 };
  },

  viommuAlloc: (stand, line, person) => {
    const length = num(line["dataLen"]);
    const isBad = length > 0 && num(line["ret"]) === -14;
    const address = isBad ? 0x10_4000_0000 : person.arrays(64);
    const { memory } = person.process;
    if (!isBad && "outData" in line) {
      const word = new Uint8Array(4);
      new DataView(word.buffer).setUint32(0, num(line["outData"]), true);
      memory.write(address as never, word);
    }
    const { ret, get } = request(stand.iommufd(line, person), "viommuAlloc", person, {
      type: num(line["type"]),
      dev_id: num(line["dev"]),
      hwpt_id: num(line["hwpt"]),
      data_len: length,
      data_uptr: address,
    });
    return ifDone(ret, () => {
      const id = Number(get("out_viommu_id"));
      if (length === 0) return { id };
      const bytes = new Uint8Array(24);
      memory.read(address as never, bytes);
      const view = new DataView(bytes.buffer);
      return { id, outData: view.getUint32(4, true), mmapLength: hexOf(view.getBigUint64(16, true)) };
    });
  },
  vdeviceAlloc: (stand, line, person) => {
    const { ret, get } = request(stand.iommufd(line, person), "vdeviceAlloc", person, {
      viommu_id: num(line["viommu"]),
      dev_id: num(line["dev"]),
      virt_id: big(line["virtId"]),
    });
    return ifDone(ret, () => ({ id: Number(get("out_vdevice_id")) }));
  },
  veventqAlloc: (stand, line, person) => {
    const { ret, get } = request(stand.iommufd(line, person), "veventqAlloc", person, {
      viommu_id: num(line["viommu"]),
      type: num(line["type"]),
      veventq_depth: num(line["depth"]),
    });
    return madeQueue(person, ret, get("out_veventq_id"), get("out_veventq_fd"));
  },
  vevent: (stand, line, person) => {
    const object = stand.iommufd(line, person).iommufd.objects.get(num(line["dev"]));
    const device = object?.kind === "device" ? (object as BoundDevice) : undefined;
    const mock = device?.hardware;
    if (!device?.vdevice || !(mock instanceof MockDevice) || mock.viommu === undefined) return { ret: -2 };
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, Number(mock.viommu.virtualId), true);
    device.vdevice.viommu.report(0xbeefbeef, data);
    return { ret: 0 };
  },
  hwQueueAlloc: (stand, line, person) => {
    const { ret, get } = request(stand.iommufd(line, person), "hwQueueAlloc", person, {
      viommu_id: num(line["viommu"]),
      type: num(line["type"]),
      index: num(line["index"]),
      nesting_parent_iova: big(line["iova"]),
      length: big(line["len"]),
    });
    return ifDone(ret, () => ({ id: Number(get("out_hw_queue_id")) }));
  },

  accessCreate: (stand, line, person) => {
    const pinType = num(line["pinType"]);
    if ((pinType & ~1) !== 0) return { ret: -95 };
    const file = stand.iommufd(line, person);
    const judged = new JudgedAccess(file, pinType === 1, stand.options.failurePoint);
    const ret = answerOf(() => {
      judged.access.use(file.iommufd.ioas(num(line["ioas"])));
      return 0;
    });
    if (ret < 0) {
      file.iommufd.endAccess(judged.access);
      return { ret };
    }
    const own = stand.accesses.get(person) ?? new Map<number, JudgedAccess>();
    stand.accesses.set(person, own);
    own.set(++person.accesses, judged);
    return { ret, access: person.accesses };
  },
  accessPin,
  accessUnpin: (stand, line, person) => {
    const judged = stand.access(line, person);
    const held = judged.items.get(num(line["item"]));
    if (!held) return { ret: -2 };
    judged.items.delete(num(line["item"]));
    judged.access.unpin(held.iova, held.length);
    return { ret: 0 };
  },
  accessRw: accessCopy,
  accessReplace: (stand, line, person) => {
    const { access, file } = stand.access(line, person);
    return {
      ret: answerOf(() => {
        access.use(file.iommufd.ioas(num(line["ioas"])));
        return 0;
      }),
    };
  },
  accessClose: (stand, line, person) => {
    const { access, file } = stand.access(line, person);
    stand.accesses.get(person)!.delete(num(line["access"]));
    file.iommufd.endAccess(access);
    return {};
  },

  dmabufGet: ({ world }, line) => {
    const length = num(line["len"]);
    if (length === 0 || length > 2 ** 21) return { ret: -22 };
    world.buffer(line["name"] as string, length);
    return { ret: 0 };
  },
  dmabufRevoke: ({ world }, line) => {
    const file = world.file(line["file"] as string);
    if (!(file instanceof TestBuffer)) return { ret: -22 };
    file.setRevoked(num(line["revoked"]) === 1);
    return { ret: 0 };
  },

  raw,
  rawNull: (stand, line, person) => ({
    ret: stand.iommufd(line, person).ioctl((0x3b << 8) | num(line["nr"]), 0n, person.process),
  }),
  rawUnmapped: (stand, line, person) => ({
    ret: stand.iommufd(line, person).ioctl((0x3b << 8) | num(line["nr"]), big(line["ptr"]), person.process),
  }),
  rawNr: (_stand, line, person) => {
    const file = [...person.files.values()].find((open) => open.file instanceof IommufdFile)!.file as IommufdFile;
    const bytes = new Uint8Array(4096);
    new DataView(bytes.buffer).setUint32(0, (line["size"] as number | undefined) ?? 64, true);
    return { ret: file.ioctl(Number(line["cmd"]), bytes, person.process) };
  },
  ...VFIO_OPERATIONS,
};

/** The counters of the process after a line: the file names those that changed. */
function counters(line: Line, person: Person, differences: Differences): void {
  const { memory } = person.process;
  person.pin = (line["pin"] as number | undefined) ?? person.pin;
  person.locked = (line["locked"] as number | undefined) ?? person.locked;
  differences.same("pin", person.pin, memory.pinned.pages);
  differences.same("locked", person.locked, memory.locked.pages);
  person.pin = memory.pinned.pages;
  person.locked = memory.locked.pages;
}

const judge: Judge = (_header, lines) => {
  const stand = new Stand(lines);
  const differences = new Differences();
  return judgeLines(lines, true, (line, _index, tally) => {
    const operation = OPERATIONS[line["op"] as string];
    if (!operation) throw new NotJudged(`operation ${JSON.stringify(line["op"])}`);
    const person = stand.world.person(line);
    const answer = operation(stand, line, person, (name) => tally.rule(name));
    for (const [field, found] of Object.entries(answer)) differences.same(field, line[field], found);
    if (!person.process.hasEnded) counters(line, person, differences);
    return differences.take();
  });
};

export const judges: Readonly<Record<string, Judge>> = { iommufd: judge, type1: judge };
