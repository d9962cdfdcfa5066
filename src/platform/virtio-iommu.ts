/**
 * A virtio-iommu, as the stack drives it: what its configuration says, a queue for requests and one for faults.
 *
 * Idea: unlike other units it reads no tables: it is told of each mapping, and keeps them itself. Requests are bytes
 * (`layouts/virtio-iommu`), so that a simulated device and a real one are driven alike.
 * Promises: nothing throws; what is wrong with a request is said in its status.
 * Specified by: Virtual I/O Device (VIRTIO) version 1.3, 5.13.
 */

/** What the configuration space of the device says. */
export interface VirtioIommuConfig {
  /** Bytes, a bitmap: the smallest page is what mappings must be multiples of. */
  readonly pageSizes: bigint;
  /** Addresses that it translates: the last one, in pages of 4 KiB. */
  readonly lastPage: number;
  /** Numbers that domains may have, inclusive. */
  readonly domains: { readonly first: number; readonly last: number };
  /** Mappings may say that they are of a device's registers (feature MMIO). */
  readonly mmio: boolean;
}

/** The two queues of one device. */
export interface VirtioIommuQueues {
  readonly config: VirtioIommuConfig;
  /** Puts requests into the queue, in this order, and tells the device; it has answered all of them when this returns. */
  submit(requests: readonly Uint8Array[]): void;
  /** Fault reports since the last time, oldest first. */
  takeFaults(): Uint8Array[];
  /** Reports that the device had no buffer for, ever. */
  readonly faultsLost: number;
}
