/**
 * Fault reports of a virtio-iommu, as the device writes them into buffers of the event queue.
 *
 * Specified by: Virtual I/O Device (VIRTIO) version 1.3, 5.13.6.9.
 */

/** Why a request of a device was refused. */
export const FAULT_REASON = {
  unknown: 0,
  /** Its endpoint is attached to no domain. */
  domain: 1,
  /** Nothing is mapped there, or not for this access. */
  mapping: 2,
} as const;

/** One refused access. */
export interface VirtioIommuFaultReport {
  readonly reason: number;
  readonly access: "read" | "write";
  readonly endpoint: number;
  /** Bytes. */
  readonly address: number;
}

/** Size of a report. */
export const FAULT_BYTES = 24;
const FLAG = { read: 1, write: 2, address: 0x100 };

/** The bytes of a report. */
export function encodeFault({ reason, access, endpoint, address }: VirtioIommuFaultReport): Uint8Array {
  const bytes = new Uint8Array(FAULT_BYTES);
  const view = new DataView(bytes.buffer);
  bytes[0] = reason;
  view.setUint32(4, FLAG[access] | FLAG.address, true);
  view.setUint32(8, endpoint, true);
  view.setUint32(16, address % 2 ** 32, true);
  view.setUint32(20, Math.floor(address / 2 ** 32), true);
  return bytes;
}

/** The report that bytes are; undefined if they are too few. The address is 0 where the device does not say it. */
export function decodeFault(bytes: Uint8Array): VirtioIommuFaultReport | undefined {
  if (bytes.length < FAULT_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flags = view.getUint32(4, true);
  return {
    reason: bytes[0]!,
    access: (flags & FLAG.write) === 0 ? "read" : "write",
    endpoint: view.getUint32(8, true),
    address: (flags & FLAG.address) === 0 ? 0 : view.getUint32(20, true) * 2 ** 32 + view.getUint32(16, true),
  };
}
