/**
 * A kernel made up for tests: iommufd, VFIO's container and one device, as far as the Linux host asks for them, with the rules of
 * the specification of both interfaces (docs/real-hardware.md) and no more.
 *
 * It remembers what is open, mapped and pinned, so that a test can ask what is left; and it can be told to fail any one call.
 */
import { DmaError, ERRNO, type Errno, PAGE_SIZE } from "../../src/base/index.ts";
import { callFailed } from "../../src/hosts/linux/errors.ts";
import type { Fd, MapOptions, Purpose, Syscalls } from "../../src/hosts/linux/index.ts";
import { CONSTANTS, REQUESTS, type RequestName } from "../../src/layouts/uapi/vfio-iommufd.ts";

interface Area {
  readonly iova: number;
  /** Of the process; of a file, where it is mapped. */
  readonly address: number;
  readonly length: number;
}

export interface FakeKernelOptions {
  /** Mappings of a container. */
  readonly entryBudget?: number;
  /** Bytes that may be pinned. */
  readonly lockedBytes?: number;
  readonly msixVectors?: number;
  /** Bytes of BAR 2, which can be mapped; it has none unless said. */
  readonly barBytes?: number;
  /** It makes files (dma-buf) of BARs. */
  readonly dmaBuf?: boolean;
}

const NAMES = new Map(Object.entries(REQUESTS).map(([name, number]) => [number, name as RequestName]));
/** Usable, inclusive: all but the window of interrupts, 39 bits. */
export const USABLE: readonly (readonly [number, number])[] = [
  [0, 0xfedf_ffff],
  [0xfef0_0000, 2 ** 39 - 1],
];

/** Of IOMMU_IOAS_MAP and of VFIO_IOMMU_MAP_DMA: the device may write. */
const WRITABLE = 2;

export class FakeKernel implements Syscalls {
  readonly workerLibrary: string | undefined = undefined; // no interrupts here: they are tested with real eventfds
  /** Open files by descriptor. */
  readonly files: Map<Fd, string> = new Map();
  readonly areas: Area[] = [];
  /** Where areas start that devices must not write. */
  readonly readOnly: Set<number> = new Set();
  readonly calls: string[] = [];
  /** Which call fails, counted from 1, and how. */
  failAt: { call: number; errno: Errno } | undefined;
  /** Bytes that the next unmap forgets to count. */
  shortBy = 0;
  config: Uint8Array = new Uint8Array(4096);
  readonly #options: FakeKernelOptions;
  readonly #memory = new Map<number, ArrayBuffer>();
  /** Where BARs are mapped: no memory of the process, and iommufd takes none of it by address. */
  readonly #bars = new Set<number>();
  /** Descriptors of BARs that are files. */
  readonly #dmaBufs = new Set<Fd>();
  readonly #pointers = new Map<number, Uint8Array>();
  #nextFd = 3;
  #nextAddress = 0x7f00_0000_0000;
  #attached = false;

  constructor(options: FakeKernelOptions = {}) {
    this.#options = options;
  }

  get pinnedBytes(): number {
    return this.areas.reduce((sum, { length }) => sum + length, 0);
  }

  open(path: string, purpose: Purpose): Fd {
    this.#count("open", purpose);
    return this.#add(path);
  }

  close(fd: Fd): void {
    if (!this.files.delete(fd)) throw new Error(`descriptor ${fd} is not open`);
    if (![...this.files.values()].some((path) => path === "/dev/iommu" || path === "/dev/vfio/vfio"))
      this.areas.length = 0;
  }

  ioctl(fd: Fd, request: number, argument: Uint8Array | number, name: string, purpose: Purpose): number {
    this.#count(name, purpose);
    if (!this.files.has(fd)) throw callFailed(name, ERRNO.EBADF, purpose);
    const answer = this.#answer(NAMES.get(request)!, argument);
    if (typeof answer === "string") throw callFailed(name, ERRNO[answer], purpose);
    return answer;
  }

  mmap(length: number, { fd }: MapOptions, purpose: Purpose): number {
    this.#count("mmap", purpose);
    const address = this.#nextAddress;
    const isBar = fd !== undefined && this.files.get(fd) !== "dmalink";
    const gap = isBar ? 0 : PAGE_SIZE; // what comes after a BAR adjoins it, all else stands apart
    this.#nextAddress += Math.ceil(length / PAGE_SIZE) * PAGE_SIZE + gap;
    if (isBar) this.#bars.add(address);
    this.#memory.set(address, new ArrayBuffer(length));
    return address;
  }

  munmap(address: number): void {
    this.#memory.delete(address);
    this.#bars.delete(address);
  }

  discard(address: number): void {
    new Uint8Array(this.#memory.get(address)!).fill(0);
  }

  mlock(_address: number, _length: number, purpose: Purpose): void {
    this.#count("mlock", purpose);
  }

  memfd(name: string, _length: number, _hugePage: unknown, purpose: Purpose): Fd {
    this.#count("memfd_create", purpose);
    return this.#add(name);
  }

  eventfd(): Fd {
    return this.#add("eventfd");
  }

  signal(): void {}

  /** The bytes that a device reaches at `iova`, to read or to write; undefined if it is refused. */
  reached(iova: number, write: boolean): { bytes: Uint8Array; at: number } | undefined {
    const area = this.areas.find((each) => iova >= each.iova && iova < each.iova + each.length);
    if (area === undefined || (write && this.readOnly.has(area.iova))) return undefined;
    const address = area.address + iova - area.iova;
    for (const [start, buffer] of this.#memory)
      if (address >= start && address < start + buffer.byteLength)
        return { bytes: new Uint8Array(buffer), at: address - start };
    return undefined;
  }

  pread(_fd: Fd, into: Uint8Array, offset: number, purpose: Purpose): number {
    this.#count("pread", purpose);
    into.set(this.config.subarray(offset, offset + into.length));
    return into.length;
  }

  pwrite(_fd: Fd, from: Uint8Array, offset: number): number {
    this.config.set(from, offset);
    return from.length;
  }

  view(address: number): ArrayBuffer {
    return this.#memory.get(address)!;
  }

  addressOf(bytes: Uint8Array): number {
    const pointer = 0x1000 * (this.#pointers.size + 1);
    this.#pointers.set(pointer, bytes);
    return pointer;
  }

  #add(path: string): Fd {
    this.files.set(this.#nextFd, path);
    return this.#nextFd++;
  }

  #count(name: string, purpose: Purpose): void {
    this.calls.push(name);
    if (this.failAt?.call === this.calls.length) throw callFailed(name, ERRNO[this.failAt.errno], purpose);
  }

  #answer(request: RequestName, argument: Uint8Array | number): number | Errno {
    const view = typeof argument === "number" ? new DataView(new ArrayBuffer(64)) : new DataView(argument.buffer);
    const u64 = (offset: number): number => Number(view.getBigUint64(offset, true));
    switch (request) {
      case "VFIO_GET_API_VERSION":
        return 0;
      case "VFIO_CHECK_EXTENSION":
        return argument === CONSTANTS.VFIO_TYPE1v2_IOMMU ? 1 : 0;
      case "VFIO_GROUP_GET_STATUS":
        view.setUint32(4, 1, true);
        return 0;
      case "VFIO_GROUP_SET_CONTAINER":
        this.#attached = true;
        return 0;
      case "VFIO_SET_IOMMU":
        return this.#attached ? 0 : "ENODEV";
      case "VFIO_GROUP_GET_DEVICE_FD":
        return this.#add("device");
      case "VFIO_DEVICE_GET_REGION_INFO":
        return this.#regionInfo(view);
      case "VFIO_DEVICE_GET_IRQ_INFO":
        view.setUint32(12, view.getUint32(8, true) === 2 ? (this.#options.msixVectors ?? 0) : 0, true);
        return 0;
      case "VFIO_IOMMU_GET_INFO":
        return this.#type1Info(view);
      case "IOMMU_IOAS_ALLOC":
        view.setUint32(8, 1, true);
        return 0;
      case "IOMMU_IOAS_IOVA_RANGES":
        return this.#ranges(view);
      case "VFIO_DEVICE_FEATURE":
        return this.#dmaBuf(view);
      case "IOMMU_IOAS_MAP_FILE":
        return this.#mapFile(view.getInt32(12, true), u64(16), u64(24), u64(32), view.getUint32(4, true));
      case "IOMMU_IOAS_MAP":
        if (this.#inBar(u64(16), u64(24))) return "EFAULT";
        return this.#map(u64(32), u64(16), u64(24), view.getUint32(4, true));
      case "VFIO_IOMMU_MAP_DMA":
        return this.#map(u64(16), u64(8), u64(24), view.getUint32(4, true));
      case "IOMMU_IOAS_UNMAP":
        return this.#unmap(view, u64(8), view.getBigUint64(16, true), 16, "ENOENT");
      case "VFIO_IOMMU_UNMAP_DMA":
        return this.#unmap(view, u64(8), view.getBigUint64(16, true), 16, "EINVAL");
      default:
        return 0;
    }
  }

  #regionInfo(view: DataView): number {
    const index = view.getUint32(8, true);
    const sizes: Record<number, number> = { 2: this.#options.barBytes ?? 0, 7: 4096 };
    view.setUint32(4, index === 2 ? CONSTANTS.VFIO_REGION_INFO_FLAG_MMAP : 0, true);
    view.setBigUint64(16, BigInt(sizes[index] ?? 0), true);
    return 0;
  }

  #type1Info(view: DataView): number {
    const needed = 24 + 16 + USABLE.length * 16 + 12;
    const has = view.getUint32(0, true);
    view.setUint32(0, needed, true);
    view.setBigUint64(8, 0xffff_f000n, true);
    if (has < needed) return 0;
    view.setUint32(4, 3, true);
    view.setUint32(16, 24, true);
    view.setUint16(24, 1, true);
    view.setUint32(28, needed - 12, true);
    view.setUint32(32, USABLE.length, true);
    USABLE.forEach(([start, last], i) => {
      view.setBigUint64(40 + i * 16, BigInt(start), true);
      view.setBigUint64(48 + i * 16, BigInt(last), true);
    });
    view.setUint16(needed - 12, 3, true);
    view.setUint32(needed - 4, this.#options.entryBudget ?? 65_535, true);
    return 0;
  }

  #ranges(view: DataView): number {
    const into = new DataView(this.#pointers.get(Number(view.getBigUint64(16, true)))!.buffer);
    USABLE.forEach(([start, last], i) => {
      into.setBigUint64(i * 16, BigInt(start), true);
      into.setBigUint64(i * 16 + 8, BigInt(last), true);
    });
    view.setUint32(8, USABLE.length, true);
    view.setBigUint64(24, BigInt(PAGE_SIZE), true);
    return 0;
  }

  #dmaBuf(view: DataView): number | Errno {
    if (!this.#options.dmaBuf || view.getUint16(4, true) !== CONSTANTS.VFIO_DEVICE_FEATURE_DMA_BUF) return "ENOTTY";
    const wanted = [view.getUint32(8, true), view.getUint32(20, true), Number(view.getBigUint64(32, true))];
    if (wanted.join() !== [2, 1, this.#options.barBytes].join()) return "EINVAL";
    const fd = this.#add("dma-buf");
    this.#dmaBufs.add(fd);
    return fd;
  }

  #mapFile(fd: Fd, start: number, length: number, iova: number, flags: number): number | Errno {
    if (!this.#dmaBufs.has(fd) || !this.files.has(fd)) return "EBADF";
    const [bar] = this.#bars;
    if (bar === undefined || !this.#inBar(bar + start, length)) return "EINVAL";
    return this.#map(iova, bar + start, length, flags);
  }

  #inBar(address: number, length: number): boolean {
    for (const at of this.#bars)
      if (address < at + this.#memory.get(at)!.byteLength && address + length > at) return true;
    return false;
  }

  #map(iova: number, address: number, length: number, flags: number): number | Errno {
    if (length === 0 || (iova | length) % PAGE_SIZE !== 0 || address % PAGE_SIZE !== 0) return "EINVAL";
    if (!USABLE.some(([start, last]) => iova >= start && iova + length - 1 <= last)) return "EINVAL";
    if (this.areas.some((area) => area.iova < iova + length && iova < area.iova + area.length)) return "EEXIST";
    if (this.areas.length >= (this.#options.entryBudget ?? 65_535)) return "ENOSPC";
    if (this.pinnedBytes + length > (this.#options.lockedBytes ?? Number.POSITIVE_INFINITY)) return "ENOMEM";
    const within = [...this.#memory].some(
      ([at, { byteLength }]) => address >= at && address + length <= at + byteLength,
    );
    if (!within) return "EFAULT";
    this.areas.push({ iova, address, length });
    if (flags & WRITABLE) this.readOnly.delete(iova);
    else this.readOnly.add(iova);
    return 0;
  }

  /** Whole areas only; what is written back is what went. */
  #unmap(view: DataView, iova: number, length: bigint, out: number, refused: Errno): number | Errno {
    const end = length === 2n ** 64n - 1n ? Number.POSITIVE_INFINITY : iova + Number(length);
    const inside = this.areas.filter((area) => area.iova < end && iova < area.iova + area.length);
    if (inside.some((area) => area.iova < iova || area.iova + area.length > end)) return refused;
    if (inside.length === 0 && refused === "ENOENT" && Number.isFinite(end)) return "ENOENT";
    for (const area of inside) this.areas.splice(this.areas.indexOf(area), 1);
    const bytes = inside.reduce((sum, area) => sum + area.length, 0) - this.shortBy;
    view.setBigUint64(out, BigInt(bytes), true);
    return 0;
  }
}

/** The error of `call`; a test that gets none fails on the undefined. */
export function refusal(call: () => unknown): DmaError | undefined {
  try {
    call();
  } catch (error) {
    if (error instanceof DmaError) return error;
    throw error;
  }
  return undefined;
}
