/** Operations of VFIO in the files of iommufd and type1: containers, groups, device files. */

import {
  ContainerFile,
  DeviceFile,
  type DeviceInterrupts,
  type DeviceRegion,
  GroupFile,
  VfioDevice,
  VfioGroup,
} from "../../src/consumers/vfio/index.ts";
import { REQUESTS } from "../../src/layouts/uapi/index.ts";
import type { OpenFile } from "../../src/platform/index.ts";
import { type Answer, answerOf, type Operation, runsOf, type Stand } from "./iommufd.ts";
import { VtdDevice } from "./iommufd-mock.ts";
import type { Person } from "./iommufd-world.ts";
import { type Line, NotJudged } from "./judge.ts";

/** Files that take requests. */
type Callable = OpenFile & { ioctl(number: number, argument: Uint8Array | bigint, caller: Person["process"]): number };

const isCallable = (file: OpenFile): file is Callable => "ioctl" in file;

const CONFIG_REGION: DeviceRegion = { bytes: 0x100, flags: 3 };
const NO_REGION: DeviceRegion = { bytes: 0, flags: 0 };
const SET = 0x2_0000;
const GET = 0x1_0000;
/** Low power, three ways; DMA buffers. */
const FEATURES: ReadonlyMap<number, number> = new Map([
  [3, SET],
  [4, SET],
  [5, SET],
  [11, GET],
]);

interface Described {
  readonly flags: number;
  readonly bar: DeviceRegion;
  readonly interrupts: readonly (DeviceInterrupts | undefined)[];
  readonly resets: boolean;
}

/** The devices that the recorder had, as the machine describes them. */
const DEVICES: Readonly<Record<string, Described>> = {
  edu: {
    flags: 2,
    bar: { bytes: 0x10_0000, flags: 7 },
    interrupts: [
      { count: 1, flags: 7 },
      { count: 1, flags: 9 },
      { count: 0, flags: 9 },
      undefined,
      { count: 1, flags: 9 },
    ],
    resets: false,
  },
  nvme: {
    flags: 3,
    bar: { bytes: 0x4000, flags: 15, capability: Uint8Array.of(3, 0, 1, 0, 0, 0, 0, 0) },
    interrupts: [
      { count: 1, flags: 7 },
      { count: 0, flags: 9 },
      { count: 65, flags: 1 },
      { count: 1, flags: 9 },
      { count: 1, flags: 9 },
    ],
    resets: true,
  },
};

/** Devices of VFIO, each in a group of its own. */
export class VfioWorld {
  entryLimit = 65_535;
  readonly #devices = new Map<string, { readonly hardware: VtdDevice; readonly device: VfioDevice }>();

  find(name: string): { readonly hardware: VtdDevice; readonly device: VfioDevice } {
    const known = this.#devices.get(name);
    if (known) return known;
    const described = Object.hasOwn(DEVICES, name) ? DEVICES[name] : undefined;
    if (!described) throw new NotJudged(`device ${name}`);
    const hardware = new VtdDevice(name);
    const { flags, bar, interrupts, resets } = described;
    const regions = [bar, ...Array.from({ length: 6 }, () => NO_REGION), CONFIG_REGION, undefined];
    const reset = resets ? { reset: () => {} } : {};
    const model = { name, hardware, flags, regions, interrupts, features: FEATURES, ...reset };
    const made = { hardware, device: new VfioDevice(model, new VfioGroup()) };
    this.#devices.set(name, made);
    return made;
  }
}

const hexOf = (value: bigint | number): string => `0x${value.toString(16)}`;
const big = (value: unknown): bigint => (value === undefined ? 0n : BigInt(value as string));
const num = (value: unknown): number => (value as number | undefined) ?? 0;
const textOf = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** One call on a file of VFIO, or on an iommufd that stands for a container. */
function call(person: Person, line: Line, number: number, argument: Uint8Array | bigint): number {
  const file = person.file(line["fd"]);
  if (!isCallable(file)) throw new NotJudged(`file ${line["fd"]} takes no requests`);
  return file.ioctl(number, argument, person.process);
}

/** A structure: words of 32 and 64 bits, one after the other. */
function struct(length: number, words: readonly (number | bigint)[]): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const word of words) {
    if (typeof word === "bigint") view.setBigUint64(at, word, true);
    else view.setUint32(at, word >>> 0, true);
    at += typeof word === "bigint" ? 8 : 4;
  }
  return bytes;
}

const argszOf = (line: Line, usual: number): number => (line["argsz"] as number | undefined) ?? usual;

const mapBytes = (line: Line): Uint8Array =>
  struct(32, [argszOf(line, 32), num(line["flags"]), big(line["va"]), big(line["iova"]), big(line["size"])]);

const unmapBytes = (line: Line, usual = 24): Uint8Array =>
  struct(48, [argszOf(line, usual), num(line["flags"]), big(line["iova"]), big(line["size"])]);

const sizeAfter = (bytes: Uint8Array): string => hexOf(new DataView(bytes.buffer).getBigUint64(16, true));

function unmap(_stand: Stand, line: Line, person: Person): Answer {
  const bytes = unmapBytes(line);
  const ret = call(person, line, REQUESTS.VFIO_IOMMU_UNMAP_DMA, bytes);
  return { ret, out: sizeAfter(bytes) };
}

/** Set bits of a bitmap in arrays of the caller. */
function bitsAt(person: Person, address: number, length: number): [number, number][] {
  const bytes = new Uint8Array(Math.min(length, 2 ** 20));
  person.process.memory.read(address as never, bytes);
  const set: number[] = [];
  bytes.forEach((byte, at) => {
    for (let bit = 0; bit < 8; bit++) if ((byte >> bit) & 1) set.push(at * 8 + bit);
  });
  return runsOf(set);
}

function info(person: Person, line: Line, argsz: number): { ret: number; bytes: Uint8Array } {
  const bytes = new Uint8Array(8192).fill(0xcc);
  new DataView(bytes.buffer).setUint32(0, argsz, true);
  return { ret: call(person, line, REQUESTS.VFIO_IOMMU_GET_INFO, bytes), bytes };
}

/** Entries left, by the capability that says so. */
function available(person: Person, line: Line): number {
  const { bytes } = info(person, line, 8192);
  const view = new DataView(bytes.buffer);
  for (let at = view.getUint32(16, true); at !== 0; at = view.getUint32(at + 4, true))
    if (view.getUint16(at, true) === 3) return view.getUint32(at + 8, true);
  return -1;
}

/** The real number of a file, by the recorder's. */
const realFd = (person: Person, number: unknown): number => person.files.get(number as number)?.fd ?? -1;

function opened(person: Person, open: () => OpenFile): Answer {
  let fd = 0;
  const ret = answerOf(() => {
    fd = person.open(open());
    return 0;
  });
  return ret < 0 ? { ret } : { ret, fd };
}

/**
 * Bits that Linux finds behind the end of a mapping are left over from where it was shifted to before: they belong to no page, and
 * ours has none. What lies in mappings must be equal.
 */
const BITS_OF_NOTHING = "type1 reports no dirty bits behind the end of a mapping, that belong to nothing";

/** Where a container has mappings now. */
function rangesOf(person: Person, line: Line): { readonly first: bigint; readonly last: bigint }[] {
  const file = person.file(line["fd"]);
  return file instanceof ContainerFile ? [...(file.type1?.mappings ?? [])] : [];
}

function dirtyBits(
  person: Person,
  line: Line,
  address: number,
  ranges: ReturnType<typeof rangesOf>,
  rule: (name: string) => void,
): unknown {
  const found = bitsAt(person, address, Number(line["bytes"]));
  const expected = line["dirty"] as [number, number][];
  if (JSON.stringify(found) === JSON.stringify(expected)) return found;
  const isMapped = (bit: number): boolean => {
    const at = big(line["iova"]) + BigInt(bit) * big(line["pageSize"]);
    return ranges.some(({ first, last }) => first <= at && at <= last);
  };
  const mapped: number[] = [];
  for (const [first, count] of expected)
    for (let bit = first; bit < first + count; bit++) if (isMapped(bit)) mapped.push(bit);
  if (JSON.stringify(runsOf(mapped)) !== JSON.stringify(found)) return found;
  rule(BITS_OF_NOTHING);
  return expected;
}

export const VFIO_OPERATIONS: Readonly<Record<string, Operation>> = {
  vfioApiVersion: (_stand, line, person) => ({ ret: call(person, line, REQUESTS.VFIO_GET_API_VERSION, 0n) }),
  vfioExtension: (_stand, line, person) => ({
    ret: call(person, line, REQUESTS.VFIO_CHECK_EXTENSION, BigInt(num(line["ext"]))),
  }),
  vfioSetIommu: (_stand, line, person) => ({
    ret: call(person, line, REQUESTS.VFIO_SET_IOMMU, BigInt(num(line["type"]))),
  }),
  vfioInfo: (_stand, line, person) => {
    const { ret, bytes } = info(person, line, num(line["argsz"]));
    if (ret < 0) return { ret };
    let end = bytes.length;
    while (end > 0 && bytes[end - 1] === 0xcc) end--;
    return { ret, bytes: textOf(bytes.subarray(0, end)) };
  },
  vfioAvail: (_stand, line, person) => ({ avail: available(person, line) }),
  vfioMap: (_stand, line, person) => ({ ret: call(person, line, REQUESTS.VFIO_IOMMU_MAP_DMA, mapBytes(line)) }),
  vfioMapMany: (_stand, line, person) => {
    const step = big(line["step"]);
    for (let mapped = 0; ; mapped++) {
      const bytes = struct(32, [32, 3, big(line["va"]), big(line["iova"]) + BigInt(mapped) * step, step]);
      const ret = call(person, line, REQUESTS.VFIO_IOMMU_MAP_DMA, bytes);
      if (ret < 0) return { ret, mapped };
    }
  },
  vfioUnmap: unmap,
  left: (stand, line, person) => {
    const { ret, out } = unmap(stand, line, person);
    return { ret: ret === 0 ? undefined : ret, size: out };
  },
  vfioUnmapBitmap: (_stand, line, person, rule) => {
    const ranges = rangesOf(person, line);
    const length = num(line["bytes"]);
    const address = person.arrays(length + 8);
    const bytes = unmapBytes(line, 48);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(24, big(line["pageSize"]), true);
    view.setBigUint64(32, BigInt(length), true);
    view.setBigUint64(40, BigInt(address), true);
    const ret = call(person, line, REQUESTS.VFIO_IOMMU_UNMAP_DMA, bytes);
    return {
      ret,
      out: sizeAfter(bytes),
      ...("dirty" in line && { dirty: dirtyBits(person, line, address, ranges, rule) }),
    };
  },
  vfioDirty: (_stand, line, person) => ({
    ret: call(person, line, REQUESTS.VFIO_DEVICE_FEATURE, struct(48, [num(line["argsz"]), num(line["flags"])])),
  }),
  vfioDirtyGet: (_stand, line, person, rule) => {
    const length = Number(line["bytes"]);
    const address = person.arrays(Math.min(length, 2 ** 20) + 8);
    const words = [48, num(line["flags"]), big(line["iova"]), big(line["size"]), big(line["pageSize"])];
    const bytes = struct(48, [...words, BigInt(length), BigInt(address)]);
    const ret = call(person, line, REQUESTS.VFIO_DEVICE_FEATURE, bytes);
    return { ret, ...("dirty" in line && { dirty: dirtyBits(person, line, address, rangesOf(person, line), rule) }) };
  },
  entryLimit: ({ vfio }, line) => {
    vfio.entryLimit = num(line["limit"]);
    return {};
  },

  containerOpen: ({ vfio }, _line, person) => ({
    fd: person.open(new ContainerFile({ entryLimit: vfio.entryLimit })),
  }),
  groupOpen: ({ vfio }, line, person) =>
    opened(person, () => new GroupFile(vfio.find(line["dev"] as string).device.group)),
  emulatedGroupOpen: (_stand, _line, person) => opened(person, () => new GroupFile(new VfioGroup())),
  groupStatus: (_stand, line, person) => {
    const bytes = struct(8, [8, 0]);
    const ret = call(person, line, REQUESTS.VFIO_GROUP_GET_STATUS, bytes);
    return { ret, flags: new DataView(bytes.buffer).getUint32(4, true) };
  },
  groupSetContainer: (_stand, line, person) => {
    const number = num(line["container"]);
    const fd = number === 0 ? -1 : realFd(person, number);
    return { ret: call(person, line, REQUESTS.VFIO_GROUP_SET_CONTAINER, struct(4, [fd])) };
  },
  groupUnsetContainer: (_stand, line, person) => ({
    ret: call(person, line, REQUESTS.VFIO_GROUP_UNSET_CONTAINER, 0n),
  }),
  groupGetDevice: (_stand, line, person) => {
    const name = new TextEncoder().encode(`${line["dev"]}\0`);
    const fd = call(person, line, REQUESTS.VFIO_GROUP_GET_DEVICE_FD, name);
    if (fd < 0) return { ret: fd };
    return { ret: 0, newFd: person.know(person.process.descriptors.get(fd)!.file, fd) };
  },

  cdevOpen: ({ vfio }, line, person) => opened(person, () => new DeviceFile(vfio.find(line["dev"] as string).device)),
  deviceBind: (_stand, line, person) => {
    const fd = line["rawFd"] === undefined ? realFd(person, line["iommufd"]) : num(line["rawFd"]);
    const bytes = struct(24, [num(line["argsz"]), num(line["flags"]), fd]);
    const ret = call(person, line, REQUESTS.VFIO_DEVICE_BIND_IOMMUFD, bytes);
    return ret < 0 ? { ret } : { ret, devid: new DataView(bytes.buffer).getUint32(12, true) };
  },
  deviceAttach: (_stand, line, person) => {
    const bytes = struct(16, [num(line["argsz"]), num(line["flags"]), num(line["pt"]), num(line["pasid"])]);
    const ret = call(person, line, REQUESTS.VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes);
    return ret < 0 ? { ret } : { ret, got: new DataView(bytes.buffer).getUint32(8, true) };
  },
  deviceDetach: (_stand, line, person) => {
    const bytes = struct(16, [num(line["argsz"]), num(line["flags"]), num(line["pasid"])]);
    return { ret: call(person, line, REQUESTS.VFIO_DEVICE_DETACH_IOMMUFD_PT, bytes) };
  },
  deviceInfo: (_stand, line, person) => {
    const bytes = new Uint8Array(64).fill(0xcc);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, num(line["argsz"]), true);
    const ret = call(person, line, REQUESTS.VFIO_DEVICE_GET_INFO, bytes);
    if (ret < 0) return { ret };
    const [argszOut, flags, regions, irqs, capOffset] = [0, 4, 8, 12, 16].map((at) => view.getUint32(at, true));
    return { ret, argszOut, flags, regions, irqs, ...(num(line["argsz"]) >= 20 && { capOffset }) };
  },
  regionInfo: (_stand, line, person) => {
    const argsz = num(line["argsz"]);
    const bytes = new Uint8Array(Math.max(argsz, 64));
    const view = new DataView(bytes.buffer);
    view.setUint32(0, argsz, true);
    view.setUint32(8, num(line["index"]), true);
    const ret = call(person, line, REQUESTS.VFIO_DEVICE_GET_REGION_INFO, bytes);
    if (ret < 0) return { ret };
    return {
      ret,
      argszOut: view.getUint32(0, true),
      flags: view.getUint32(4, true),
      capOffset: view.getUint32(12, true),
      size: hexOf(view.getBigUint64(16, true)),
      offset: hexOf(view.getBigUint64(24, true)),
      ...("caps" in line && { caps: textOf(bytes.subarray(32, argsz)) }),
    };
  },
  irqInfo: (_stand, line, person) => {
    const bytes = struct(20, [num(line["argsz"]), 0, num(line["index"])]);
    const ret = call(person, line, REQUESTS.VFIO_DEVICE_GET_IRQ_INFO, bytes);
    const view = new DataView(bytes.buffer);
    return ret < 0 ? { ret } : { ret, flags: view.getUint32(4, true), count: view.getUint32(12, true) };
  },
  deviceFeature: (_stand, line, person) => ({
    ret: call(person, line, REQUESTS.VFIO_DEVICE_FEATURE, struct(64, [num(line["argsz"]), Number(line["flags"])])),
  }),
  deviceCall: (_stand, line, person) => ({
    ret: call(person, line, (0x3b << 8) | num(line["nr"]), struct(64, [64])),
  }),
  leaves: ({ vfio }, line) => ({ leaves: vfio.find(line["dev"] as string).hardware.leaves() }),
};
