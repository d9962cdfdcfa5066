/**
 * Memory of devices that this process has mapped, as files: iommufd takes it by file (dma-buf), not by address.
 *
 * Idea: who lends memory of a device has the kernel make a dma-buf of it and says here where the memory lies in this process;
 * who maps asks here by address. So mapping calls take addresses throughout, whatever the memory is.
 * Not for: the container (type1), which maps such memory by its address.
 * Specified by: Linux 7.2 uAPI, VFIO_DEVICE_FEATURE_DMA_BUF and IOMMU_IOAS_MAP_FILE.
 */
import type { Fd } from "./syscalls.ts";

interface Lent {
  readonly address: number;
  readonly length: number;
  readonly fd: Fd;
}

export class DeviceMemory {
  readonly #lent: Lent[] = [];

  /** The file is `fd`, from its first byte. The answer takes it back, once. */
  lend(address: number, length: number, fd: Fd): () => void {
    const lent = { address, length, fd };
    this.#lent.push(lent);
    return () => {
      const place = this.#lent.indexOf(lent);
      if (place >= 0) this.#lent.splice(place, 1);
    };
  }

  /** The file that all of the range is of; undefined if it is not a device's. */
  find(address: number, length: number): { fd: Fd; offset: number } | undefined {
    for (const lent of this.#lent)
      if (address >= lent.address && address + length <= lent.address + lent.length)
        return { fd: lent.fd, offset: address - lent.address };
    return undefined;
  }

  /** True where one kind of memory ends and another begins: no call can map both sides. */
  isEdge(address: number): boolean {
    for (const lent of this.#lent) if (address === lent.address || address === lent.address + lent.length) return true;
    return false;
  }
}
