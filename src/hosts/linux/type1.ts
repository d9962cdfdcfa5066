/**
 * The older back end: a VFIO container with the type1 v2 IOMMU driver, and the device by way of its group.
 *
 * Idea: open /dev/vfio/vfio and the group, put the group into the container, choose the IOMMU driver, ask the group for
 * the device. In that order: any other gives EINVAL.
 * Specified by: Linux 7.2 uAPI, vfio.h.
 */
import { hex, PAGE_SIZE } from "../../base/index.ts";
import { READ, WRITE } from "../../layouts/pagetable/index.ts";
import {
  CAPABILITY,
  CONSTANTS,
  CStructValue,
  GROUP_STATUS,
  REQUESTS,
  type RequestName,
  TYPE1_INFO,
  TYPE1_MAP,
  TYPE1_UNMAP,
} from "../../layouts/uapi/index.ts";
import { groupNotViable, noType1v2, wrongVersion } from "./errors.ts";
import { type AddressRange, type IoAddressSpace, usableRanges } from "./ioas.ts";
import { readRanges } from "./iommufd.ts";
import type { Fd, Syscalls } from "./syscalls.ts";

export const CONTAINER_NODE = "/dev/vfio/vfio";

/** Older kernels do not say which ranges: everything below 48 bits but the window of interrupts. */
const USUAL_RANGES: readonly { start: number; last: number }[] = [
  { start: 0, last: 0xfedf_ffff },
  { start: 0xfef0_0000, last: 2 ** 48 - 1 },
];

export class Type1Space implements IoAddressSpace {
  readonly kind = "type1";
  readonly granule: number;
  readonly ranges: readonly AddressRange[];
  readonly entryBudget: number | undefined;
  readonly device: Fd;
  /** Every device that is in the space. */
  readonly #devices = new Set<Fd>();
  readonly #sys: Syscalls;
  readonly #container: Fd;
  readonly #groupName: string;
  readonly #group: Fd;
  readonly #map: CStructValue<keyof typeof TYPE1_MAP.fields>;
  readonly #unmap: CStructValue<keyof typeof TYPE1_UNMAP.fields>;
  #open = true;

  /**
   * @param group its number
   * @param others devices of the group that a driver of the kernel has: what to say if the group is refused
   * @throws DmaError ERR_DMA_SYSCALL, ERR_DMA_LINUX_GROUP, ERR_DMA_LINUX_TYPE1, ERR_DMA_LINUX_VERSION; everything opened
   * is closed again
   */
  constructor(sys: Syscalls, group: string, name: string, others: readonly string[]) {
    this.#sys = sys;
    this.#groupName = group;
    this.#container = sys.open(CONTAINER_NODE, `open ${CONTAINER_NODE}`);
    let groupFd: Fd | undefined;
    try {
      const container = this.#container;
      const version = this.#call(container, "VFIO_GET_API_VERSION", 0, "ask for the interface version");
      if (version !== CONSTANTS.VFIO_API_VERSION) throw wrongVersion(version);
      const { VFIO_TYPE1v2_IOMMU } = CONSTANTS;
      if (this.#call(container, "VFIO_CHECK_EXTENSION", VFIO_TYPE1v2_IOMMU, "ask for type1 v2") === 0)
        throw noType1v2();
      groupFd = sys.open(`/dev/vfio/${group}`, `open /dev/vfio/${group}, the IOMMU group of ${name}`);
      const status = new CStructValue(GROUP_STATUS, { argsz: GROUP_STATUS.bytes });
      this.#call(groupFd, "VFIO_GROUP_GET_STATUS", status.bytes, `ask whether group ${group} can be used`);
      if (!(status.get("flags") & CONSTANTS.VFIO_GROUP_FLAGS_VIABLE)) throw groupNotViable(group, others);
      const fd = new Uint8Array(new Int32Array([container]).buffer);
      this.#call(groupFd, "VFIO_GROUP_SET_CONTAINER", fd, `put group ${group} into a container`);
      this.#call(container, "VFIO_SET_IOMMU", VFIO_TYPE1v2_IOMMU, "choose the type1 v2 IOMMU driver");
      this.#group = groupFd;
      this.device = this.attach(name);
      const { granule, ranges, entries } = this.#readInfo();
      this.granule = granule;
      this.ranges = ranges;
      this.entryBudget = entries;
    } catch (error) {
      for (const device of this.#devices) sys.close(device);
      if (groupFd !== undefined) sys.close(groupFd);
      sys.close(this.#container);
      throw error;
    }
    this.#map = new CStructValue(TYPE1_MAP, { argsz: TYPE1_MAP.bytes });
    this.#unmap = new CStructValue(TYPE1_UNMAP, { argsz: TYPE1_UNMAP.bytes });
  }

  attach(name: string): Fd {
    const path = new TextEncoder().encode(`${name}\0`);
    const purpose = `open ${name} in group ${this.#groupName}`;
    const device = this.#call(this.#group, "VFIO_GROUP_GET_DEVICE_FD", path, purpose);
    this.#devices.add(device);
    return device;
  }

  detach(device: Fd): void {
    if (this.#devices.delete(device)) this.#sys.close(device);
  }

  joins(): boolean {
    return true;
  }

  map(iova: number, address: number, length: number, prot: number): void {
    const map = this.#map;
    map.set(
      "flags",
      (prot & READ ? CONSTANTS.VFIO_DMA_MAP_FLAG_READ : 0) | (prot & WRITE ? CONSTANTS.VFIO_DMA_MAP_FLAG_WRITE : 0),
    );
    map.set("vaddr", address);
    map.set("iova", iova);
    map.set("size", length);
    this.#sys.ioctl(
      this.#container,
      REQUESTS.VFIO_IOMMU_MAP_DMA,
      map.bytes,
      "VFIO_IOMMU_MAP_DMA",
      () => `map ${length} bytes at ${hex(address)} of this process to IOVA ${hex(iova)}`,
    );
  }

  unmap(iova: number, length: number): number {
    const unmap = this.#unmap;
    unmap.set("iova", iova);
    unmap.set("size", length);
    this.#sys.ioctl(
      this.#container,
      REQUESTS.VFIO_IOMMU_UNMAP_DMA,
      unmap.bytes,
      "VFIO_IOMMU_UNMAP_DMA",
      () => `unmap ${length} bytes at IOVA ${hex(iova)}`,
    );
    return unmap.get("size");
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    // With the last file of the container everything in it is unmapped and unpinned.
    for (const fd of [...this.#devices, this.#group, this.#container])
      try {
        this.#sys.close(fd);
      } catch {
        // gone already
      }
  }

  #readInfo(): { granule: number; ranges: AddressRange[]; entries: number | undefined } {
    const ask = "ask what the IOMMU can translate";
    const first = new CStructValue(TYPE1_INFO, { argsz: TYPE1_INFO.bytes });
    this.#call(this.#container, "VFIO_IOMMU_GET_INFO", first.bytes, ask);
    const length = Math.max(first.get("argsz"), TYPE1_INFO.bytes);
    const info = new CStructValue(TYPE1_INFO, { argsz: length }, length - TYPE1_INFO.bytes);
    this.#call(this.#container, "VFIO_IOMMU_GET_INFO", info.bytes, ask);
    const sizes = info.get("iova_pgsizes");
    const smallest = sizes === 0 ? PAGE_SIZE : 2 ** trailingZeros(sizes);
    const granule = Math.max(smallest, PAGE_SIZE);
    let ranges = USUAL_RANGES;
    let entries: number | undefined;
    const view = new DataView(info.bytes.buffer);
    let at = info.get("flags") & CONSTANTS.VFIO_IOMMU_INFO_CAPS ? info.get("cap_offset") : 0;
    while (at !== 0 && at + CAPABILITY.bytes + 8 <= info.bytes.length) {
      const id = view.getUint16(at, true);
      const body = at + CAPABILITY.bytes;
      if (id === CONSTANTS.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
        ranges = readRanges(info.bytes, body + 8, view.getUint32(body, true));
      else if (id === CONSTANTS.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) entries = view.getUint32(body, true);
      at = view.getUint32(at + CAPABILITY.fields.next.offset, true);
    }
    return { granule, ranges: usableRanges(ranges, granule), entries };
  }

  #call(fd: Fd, request: RequestName, argument: Uint8Array | number, purpose: string): number {
    return this.#sys.ioctl(fd, REQUESTS[request], argument, request, purpose);
  }
}

/** Of a positive safe integer. */
function trailingZeros(value: number): number {
  let zeros = 0;
  for (let rest = value; rest % 2 === 0; rest /= 2) zeros++;
  return zeros;
}
