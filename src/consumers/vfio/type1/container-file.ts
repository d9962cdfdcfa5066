/**
 * /dev/vfio/vfio as programs see it: a container, its type, and the calls on its mappings as bytes.
 *
 * Promises: answers, errnos and what is left in the caller's memory equal Linux's; no argument makes it throw.
 * Specified by: include/uapi/linux/vfio.h; behaviour of Linux 7.2; judged by test/golden/type1.
 */
import { DmaError, ERRNO } from "../../../base/index.ts";
import { REQUESTS } from "../../../layouts/uapi/index.ts";
import type { OpenFile, UserProcess } from "../../../platform/index.ts";
import { type Argument, ArgumentBytes, LAST_IOVA, setUserBits } from "../../iommufd/index.ts";
import { type ContainerGroup, Type1Container, type Type1Options } from "./container.ts";
import { badCall, badMap, badState, unknownCall } from "./errors.ts";
import { type DirtyFields, type UnmapFields, writeInfo } from "./structures.ts";

const EXTENSION = { type1: 1, type1v2: 3, coherent: 4, unmapAll: 9, updateVaddr: 10 } as const;
const MAP = { read: 1, write: 2, vaddr: 4 } as const;
const UNMAP = { bitmap: 1, all: 2, vaddr: 4 } as const;
const DIRTY = { start: 1, stop: 2, get: 4 } as const;
const MOST_BITMAP_BYTES = 2n ** 28n;

/** An open container. */
export class ContainerFile implements OpenFile {
  readonly kind = "vfio-container";
  readonly #options: Omit<Type1Options, "v2">;
  readonly #groups = new Set<ContainerGroup>();
  #type1: Type1Container | undefined;

  /** As open() does it: without a group, and without a type. */
  constructor(options: Omit<Type1Options, "v2"> = {}) {
    this.#options = options;
  }

  /** The engine behind it; undefined before its type is set. */
  get type1(): Type1Container | undefined {
    return this.#type1;
  }

  /** A group joins. @throws DmaError as {@link Type1Container.attach} */
  join(group: ContainerGroup): void {
    this.#type1?.attach(group);
    this.#groups.add(group);
  }

  /** A group leaves; with the last one mappings and type are gone. */
  leave(group: ContainerGroup): void {
    this.#type1?.detach(group);
    this.#groups.delete(group);
    if (this.#groups.size === 0) this.#type1 = undefined;
  }

  /** One request: 0 or what it says; a negative errno. */
  ioctl(number: number, argument: Argument, caller: UserProcess): number {
    try {
      return this.#call(number >>> 0, argument, caller);
    } catch (error) {
      if (error instanceof DmaError) return -ERRNO[error.errno];
      throw error;
    }
  }

  #call(number: number, argument: Argument, caller: UserProcess): number {
    if (number === REQUESTS.VFIO_GET_API_VERSION) return 0;
    if (number === REQUESTS.VFIO_CHECK_EXTENSION) return this.#extension(Number(argument));
    if (number === REQUESTS.VFIO_SET_IOMMU) {
      this.#setType(Number(argument));
      return 0;
    }
    const type1 = this.#type1;
    if (!type1) throw badState("EINVAL", "the container has no type yet");
    const at = new ArgumentBytes(argument, caller);
    if (number === REQUESTS.VFIO_IOMMU_GET_INFO) writeInfo(type1, at);
    else if (number === REQUESTS.VFIO_IOMMU_MAP_DMA) mapDma(type1, at);
    else if (number === REQUESTS.VFIO_IOMMU_UNMAP_DMA) unmapDma(type1, at);
    else if (number === REQUESTS.VFIO_DEVICE_FEATURE) dirtyPages(type1, at);
    else throw unknownCall(number);
    return 0;
  }

  #extension(extension: number): number {
    switch (extension) {
      case EXTENSION.type1:
      case EXTENSION.type1v2:
      case EXTENSION.unmapAll:
        return 1;
      case EXTENSION.coherent:
        return this.#type1?.isCoherent ? 1 : 0;
      case EXTENSION.updateVaddr:
        return this.#type1 && !this.#type1.hasEmulated ? 1 : 0;
      default:
        return 0;
    }
  }

  #setType(type: number): void {
    if (this.#groups.size === 0 || this.#type1) throw badState("EINVAL", "no group yet, or it has a type already");
    if (this.#extension(type) === 0) throw badState("ENODEV", `type ${type} is not known`);
    if (type !== EXTENSION.type1 && type !== EXTENSION.type1v2) throw badState("EINVAL", `${type} is no type`);
    const type1 = new Type1Container({ ...this.#options, v2: type === EXTENSION.type1v2 });
    const done: ContainerGroup[] = [];
    try {
      for (const group of this.#groups) {
        type1.attach(group);
        done.push(group);
      }
    } catch (error) {
      for (const group of done) type1.detach(group);
      throw error;
    }
    this.#type1 = type1;
  }

  acquire(): void {}

  /** Mappings stay as long as a group is in it. */
  release(): void {}
}

function mapDma(type1: Type1Container, at: ArgumentBytes): void {
  const view = new DataView(at.read(32).buffer);
  const flags = view.getUint32(4, true);
  if (view.getUint32(0, true) < 32 || (flags & ~7) !== 0) throw badCall(`flags ${flags}, or too short`);
  const [vaddr, iova, size] = [8, 16, 24].map((offset) => view.getBigUint64(offset, true)) as [bigint, bigint, bigint];
  const access = { read: (flags & MAP.read) !== 0, write: (flags & MAP.write) !== 0, mmio: false };
  if ((flags & MAP.vaddr) !== 0) type1.setVaddr(at.process, vaddr, iova, size, access.read || access.write);
  else type1.map(at.process, vaddr, iova, size, access);
}

/** @throws DmaError EINVAL unless a bitmap of `bytes` holds all pages, and is not absurd */
function checkBitmap(size: bigint, pageBytes: bigint, bytes: bigint): void {
  const pages = pageBytes === 0n ? size : size / (pageBytes & -pageBytes);
  if (pages === 0n || bytes === 0n || bytes > MOST_BITMAP_BYTES || bytes < ((pages + 63n) / 64n) * 8n)
    throw badCall(`a bitmap of ${bytes} bytes for ${pages} pages`);
}

/** The size is written back only when the call succeeded. */
function unmapDma(type1: Type1Container, at: ArgumentBytes): void {
  const bytes = at.read(24);
  const view = new DataView(bytes.buffer);
  const { argsz, flags, iova, size }: UnmapFields = {
    argsz: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    iova: view.getBigUint64(8, true),
    size: view.getBigUint64(16, true),
  };
  const has = (flag: number): boolean => (flags & flag) !== 0;
  if (argsz < 24 || (flags & ~7) !== 0) throw badCall(`flags ${flags}, or too short`);
  if (has(UNMAP.bitmap) && (has(UNMAP.all) || has(UNMAP.vaddr))) throw badCall("a bitmap of that cannot be had");
  const bitmap = has(UNMAP.bitmap) ? readBitmap(at, argsz, size) : undefined;
  if (has(UNMAP.vaddr) && type1.hasEmulated) throw badState("EBUSY", "emulated devices use the addresses");
  if (iova % type1.pageBytes !== 0n) throw badMap("EINVAL", iova, size, "not at a page");
  if (has(UNMAP.all) && (iova !== 0n || size !== 0n)) throw badCall("all is to be unmapped, and a range given");
  const last = has(UNMAP.all) ? LAST_IOVA : type1.checkRange(iova, size);
  if (bitmap && (!type1.isTracking || bitmap.pageBytes !== type1.pageBytes))
    throw badCall("tracking is off, or other pages");
  let unmapped: bigint;
  if (has(UNMAP.vaddr)) unmapped = type1.invalidateVaddr(iova, last, has(UNMAP.all));
  else if (has(UNMAP.all)) unmapped = type1.unmapAll();
  else
    unmapped = type1.unmap(iova, size, (mapping) => {
      if (bitmap)
        setUserBits(
          at.process,
          bitmap.data,
          (mapping.first - iova) / bitmap.pageBytes,
          mapping.size / bitmap.pageBytes,
        );
    });
  view.setBigUint64(16, unmapped, true);
  at.write(bytes);
}

function readBitmap(at: ArgumentBytes, argsz: number, size: bigint): { pageBytes: bigint; data: bigint } {
  if (argsz < 48) throw badCall(`${argsz} bytes: a bitmap needs 48`);
  const view = new DataView(at.read(24, 24).buffer);
  const pageBytes = view.getBigUint64(0, true);
  checkBitmap(size, pageBytes, view.getBigUint64(8, true));
  return { pageBytes, data: view.getBigUint64(16, true) };
}

function dirtyPages(type1: Type1Container, at: ArgumentBytes): void {
  if (!type1.v2) throw badState("EACCES", "type 1 tracks nothing: type 3 is needed");
  const head = new DataView(at.read(8).buffer);
  const [argsz, flags] = [head.getUint32(0, true), head.getUint32(4, true)];
  if (argsz < 8 || (flags & ~7) !== 0) throw badCall(`flags ${flags}, or too short`);
  if (flags === DIRTY.start) type1.isTracking = true;
  else if (flags === DIRTY.stop) type1.isTracking = false;
  else if (flags === DIRTY.get) getDirty(type1, at, argsz);
  else throw badCall("one of start, stop and get is needed");
}

function getDirty(type1: Type1Container, at: ArgumentBytes, argsz: number): void {
  if (argsz < 48) throw badCall(`${argsz} bytes: 48 are needed`);
  const view = new DataView(at.read(40, 8).buffer);
  const { iova, size, pageBytes, bytes, data }: DirtyFields = {
    iova: view.getBigUint64(0, true),
    size: view.getBigUint64(8, true),
    pageBytes: view.getBigUint64(16, true),
    bytes: view.getBigUint64(24, true),
    data: view.getBigUint64(32, true),
  };
  if (size > 0n && iova + size - 1n > LAST_IOVA) throw badMap("EOVERFLOW", iova, size, "it leaves the address space");
  checkBitmap(size, pageBytes, bytes);
  const page = type1.pageBytes;
  if (size === 0n || size % page !== 0n || iova % page !== 0n || pageBytes !== page)
    throw badMap("EINVAL", iova, size, `not of whole pages of ${page}`);
  type1.readDirty(iova, size, (first, pages) => setUserBits(at.process, data, first, pages));
}
