/** What the machine saw on its bus: for whoever checks what devices do. */

/** One access of a device, at most a page, as the machine saw it. */
export interface DeviceAccess {
  /** What the device puts on the bus as its own name. */
  readonly requester: number;
  /** What the device put on the bus, bytes: an IOVA, a physical or a bus address, as its way has it. */
  readonly address: number;
  /** Bytes; they lie in one page. */
  readonly length: number;
  /** Seen from the device: `read` takes bytes out of memory. */
  readonly access: "read" | "write";
  /** It reached memory; else it was refused on the way. */
  readonly wentThrough: boolean;
}
