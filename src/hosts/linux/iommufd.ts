/**
 * The newer back end: an I/O address space (IOAS) of iommufd, with the device opened by its own node.
 *
 * Idea: open /dev/iommu, make a space, open the device's node, bind it to that iommufd, attach it to the space.
 * Specified by: Linux 7.2 uAPI, iommufd.h; docs/real-hardware.md has the errors that people meet.
 */
import { hex, PAGE_SIZE } from "../../base/index.ts";
import { READ, WRITE } from "../../layouts/pagetable/index.ts";
import {
  ATTACH,
  BIND,
  CONSTANTS,
  CStructValue,
  DESTROY,
  DETACH,
  IOAS_ALLOC,
  IOAS_MAP,
  IOAS_MAP_FILE,
  IOAS_RANGES,
  IOAS_UNMAP,
  IOVA_RANGE,
  REQUESTS,
  type RequestName,
} from "../../layouts/uapi/index.ts";
import type { DeviceMemory } from "./device-memory.ts";
import { type AddressRange, type IoAddressSpace, usableRanges } from "./ioas.ts";
import type { Fd, Syscalls } from "./syscalls.ts";

export const IOMMU_NODE = "/dev/iommu";

/** More ranges than any machine has: holes are made by interrupts and by firmware, one each. */
const RANGES = 256;

export class IommufdSpace implements IoAddressSpace {
  readonly kind = "iommufd";
  readonly granule: number;
  readonly ranges: readonly AddressRange[];
  readonly entryBudget = undefined;
  readonly device: Fd;
  /** Every device that is in the space. */
  readonly #devices = new Set<Fd>();
  readonly #sys: Syscalls;
  readonly #iommu: Fd;
  readonly #ioas: number;
  readonly #deviceMemory: DeviceMemory;
  readonly #map: CStructValue<keyof typeof IOAS_MAP.fields>;
  readonly #unmap: CStructValue<keyof typeof IOAS_UNMAP.fields>;
  #open = true;

  /**
   * @param node the device's own, such as /dev/vfio/devices/vfio0
   * @throws DmaError ERR_DMA_SYSCALL; everything opened is closed again
   */
  constructor(sys: Syscalls, node: string, name: string, deviceMemory: DeviceMemory) {
    this.#sys = sys;
    this.#deviceMemory = deviceMemory;
    this.#iommu = sys.open(IOMMU_NODE, `open ${IOMMU_NODE}`);
    try {
      const ioas = new CStructValue(IOAS_ALLOC, { size: IOAS_ALLOC.bytes });
      this.#call(this.#iommu, "IOMMU_IOAS_ALLOC", ioas.bytes, "make an I/O address space");
      this.#ioas = ioas.get("out_ioas_id");
      this.device = this.attach(name, node);
      const { granule, ranges } = this.#readRanges();
      this.granule = granule;
      this.ranges = ranges;
    } catch (error) {
      for (const device of this.#devices) sys.close(device);
      sys.close(this.#iommu);
      throw error;
    }
    this.#map = new CStructValue(IOAS_MAP, { size: IOAS_MAP.bytes, ioas_id: this.#ioas });
    this.#unmap = new CStructValue(IOAS_UNMAP, { size: IOAS_UNMAP.bytes, ioas_id: this.#ioas });
  }

  attach(name: string, node: string): Fd {
    const device = this.#sys.open(node, `open ${node}, the node of ${name}`);
    try {
      const bind = new CStructValue(BIND, { argsz: BIND.bytes, iommufd: this.#iommu });
      this.#call(device, "VFIO_DEVICE_BIND_IOMMUFD", bind.bytes, `bind ${name} to iommufd`);
      const attach = new CStructValue(ATTACH, { argsz: ATTACH.bytes, pt_id: this.#ioas });
      this.#call(device, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", attach.bytes, `attach ${name} to its address space`);
    } catch (error) {
      this.#sys.close(device);
      throw error;
    }
    this.#devices.add(device);
    return device;
  }

  detach(device: Fd): void {
    if (!this.#devices.delete(device)) return;
    const detach = new CStructValue(DETACH, { argsz: DETACH.bytes });
    try {
      this.#call(device, "VFIO_DEVICE_DETACH_IOMMUFD_PT", detach.bytes, "detach the device");
    } catch {
      // closing its file does that, too
    }
    this.#sys.close(device);
  }

  joins(address: number): boolean {
    return !this.#deviceMemory.isEdge(address);
  }

  map(iova: number, address: number, length: number, prot: number): void {
    const flags =
      CONSTANTS.IOMMU_IOAS_MAP_FIXED_IOVA |
      (prot & READ ? CONSTANTS.IOMMU_IOAS_MAP_READABLE : 0) |
      (prot & WRITE ? CONSTANTS.IOMMU_IOAS_MAP_WRITEABLE : 0);
    const file = this.#deviceMemory.find(address, length);
    if (file !== undefined) {
      const { fd, offset } = file;
      const values = { size: IOAS_MAP_FILE.bytes, flags, ioas_id: this.#ioas, fd, start: offset, length, iova };
      const { bytes } = new CStructValue(IOAS_MAP_FILE, values);
      const purpose = `map ${length} bytes of a device's memory, from byte ${offset} on, to IOVA ${hex(iova)}`;
      this.#call(this.#iommu, "IOMMU_IOAS_MAP_FILE", bytes, purpose);
      return;
    }
    const map = this.#map;
    map.set("flags", flags);
    map.set("user_va", address);
    map.set("length", length);
    map.set("iova", iova);
    this.#sys.ioctl(
      this.#iommu,
      REQUESTS.IOMMU_IOAS_MAP,
      map.bytes,
      "IOMMU_IOAS_MAP",
      () => `map ${length} bytes at ${hex(address)} of this process to IOVA ${hex(iova)}`,
    );
  }

  unmap(iova: number, length: number): number {
    const unmap = this.#unmap;
    unmap.set("iova", iova);
    unmap.set("length", length);
    this.#sys.ioctl(
      this.#iommu,
      REQUESTS.IOMMU_IOAS_UNMAP,
      unmap.bytes,
      "IOMMU_IOAS_UNMAP",
      () => `unmap ${length} bytes at IOVA ${hex(iova)}`,
    );
    return unmap.get("length");
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    // Each step is tried whatever became of the one before: closing the files ends everything anyway.
    const everything = new CStructValue(IOAS_UNMAP, { size: IOAS_UNMAP.bytes, ioas_id: this.#ioas });
    everything.setBig("length", 2n ** 64n - 1n);
    const destroy = new CStructValue(DESTROY, { size: DESTROY.bytes, id: this.#ioas });
    for (const step of [
      () => this.#call(this.#iommu, "IOMMU_IOAS_UNMAP", everything.bytes, "unmap everything"),
      () => {
        for (const device of this.#devices) this.detach(device);
      },
      () => this.#call(this.#iommu, "IOMMU_DESTROY", destroy.bytes, "end the address space"),
      () => this.#sys.close(this.#iommu),
    ])
      try {
        step();
      } catch {
        // gone already
      }
  }

  #readRanges(): { granule: number; ranges: AddressRange[] } {
    const entries = new Uint8Array(RANGES * IOVA_RANGE.bytes);
    const ask = new CStructValue(IOAS_RANGES, {
      size: IOAS_RANGES.bytes,
      ioas_id: this.#ioas,
      num_iovas: RANGES,
      allowed_iovas: this.#sys.addressOf(entries),
    });
    this.#call(this.#iommu, "IOMMU_IOAS_IOVA_RANGES", ask.bytes, "ask which addresses the device can use");
    const granule = Math.max(ask.get("out_iova_alignment"), PAGE_SIZE);
    return { granule, ranges: usableRanges(readRanges(entries, 0, ask.get("num_iovas")), granule) };
  }

  #call(fd: Fd, request: RequestName, argument: Uint8Array, purpose: string): void {
    this.#sys.ioctl(fd, REQUESTS[request], argument, request, purpose);
  }
}

/** `count` ranges of two 64-bit fields from `offset` on. */
export function readRanges(bytes: Uint8Array, offset: number, count: number): { start: number; last: number }[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return Array.from({ length: count }, (_, i) => ({
    start: Number(view.getBigUint64(offset + i * IOVA_RANGE.bytes, true)),
    last: Number(view.getBigUint64(offset + i * IOVA_RANGE.bytes + 8, true)),
  }));
}
