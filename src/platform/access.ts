/** What the machine saw on its bus: for whoever checks what devices do. */

/** One access of a device, at most a page, as the machine saw it. */
export interface DeviceAccess {
  /** What the device puts on the bus as its own name. */
  readonly requester: number;
  readonly address: number;
  readonly length: number;
  readonly access: "read" | "write";
  /** It reached memory; else it was refused on the way. */
  readonly wentThrough: boolean;
}
