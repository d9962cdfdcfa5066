/** Operations of VFIO in the files of iommufd and type1: containers, groups, device files. */
import { REQUESTS } from "../../src/layouts/uapi/index.ts";
import { IommufdFile } from "../../src/consumers/iommufd/index.ts";
import type { Person } from "./iommufd-world.ts";
import { type Line, NotJudged } from "./judge.ts";
import type { Answer, Operation, Stand } from "./iommufd.ts";

/** Devices and files of VFIO. */
export class VfioWorld {}

const hexOf = (value: bigint | number): string => `0x${value.toString(16)}`;
const big = (value: unknown): bigint => (value === undefined ? 0n : BigInt(value as string));
const num = (value: unknown): number => (value as number | undefined) ?? 0;
const textOf = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** One call on a container, or on an iommufd that stands for one. */
function call(person: Person, line: Line, number: number, argument: Uint8Array | bigint): number {
  const file = person.file(line["fd"]);
  if (!(file instanceof IommufdFile)) throw new NotJudged("containers");
  return file.ioctl(number, argument, person.process);
}

function mapBytes(line: Line): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, (line["argsz"] as number | undefined) ?? 32, true);
  view.setUint32(4, num(line["flags"]), true);
  view.setBigUint64(8, big(line["va"]), true);
  view.setBigUint64(16, big(line["iova"]), true);
  view.setBigUint64(24, big(line["size"]), true);
  return bytes;
}

function unmapBytes(line: Line): Uint8Array {
  const bytes = new Uint8Array(48);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, (line["argsz"] as number | undefined) ?? 24, true);
  view.setUint32(4, num(line["flags"]), true);
  view.setBigUint64(8, big(line["iova"]), true);
  view.setBigUint64(16, big(line["size"]), true);
  return bytes;
}

function unmap(_stand: Stand, line: Line, person: Person): Answer {
  const bytes = unmapBytes(line);
  const ret = call(person, line, REQUESTS.VFIO_IOMMU_UNMAP_DMA, bytes);
  return { ret, out: hexOf(new DataView(bytes.buffer).getBigUint64(16, true)) };
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
    const bytes = new Uint8Array(8192).fill(0xcc);
    new DataView(bytes.buffer).setUint32(0, num(line["argsz"]), true);
    const ret = call(person, line, REQUESTS.VFIO_IOMMU_GET_INFO, bytes);
    if (ret < 0) return { ret };
    let end = bytes.length;
    while (end > 0 && bytes[end - 1] === 0xcc) end--;
    return { ret, bytes: textOf(bytes.subarray(0, end)) };
  },
  vfioMap: (_stand, line, person) => ({ ret: call(person, line, REQUESTS.VFIO_IOMMU_MAP_DMA, mapBytes(line)) }),
  vfioUnmap: unmap,
  left: (stand, line, person) => {
    const { ret, out } = unmap(stand, line, person);
    return { ret: ret === 0 ? undefined : ret, size: out };
  },
  vfioUnmapBitmap: (_stand, line, person) => {
    const bytes = unmapBytes({ ...line, argsz: 48 });
    const length = num(line["bytes"]);
    const address = person.arrays(length + 8);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(24, big(line["pageSize"]), true);
    view.setBigUint64(32, BigInt(length), true);
    view.setBigUint64(40, BigInt(address), true);
    const ret = call(person, line, REQUESTS.VFIO_IOMMU_UNMAP_DMA, bytes);
    return { ret, out: hexOf(view.getBigUint64(16, true)) };
  },
  vfioDirty: (_stand, line, person) => {
    const bytes = new Uint8Array(48);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, num(line["argsz"]), true);
    view.setUint32(4, num(line["flags"]), true);
    return { ret: call(person, line, REQUESTS.VFIO_DEVICE_FEATURE, bytes) };
  },
  vfioDirtyGet: (_stand, line, person) => {
    const bytes = new Uint8Array(48);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, 48, true);
    view.setUint32(4, num(line["flags"]), true);
    return { ret: call(person, line, REQUESTS.VFIO_DEVICE_FEATURE, bytes) };
  },
};
