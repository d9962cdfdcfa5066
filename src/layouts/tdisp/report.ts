/**
 * The interface report: what a locked device says of itself, so that a guest can compare it with what the host shows it.
 *
 * Promises: `decodeReport(encodeReport(x))` gives back `x`; bytes that are no report give undefined, never an exception.
 * Specified by: TDISP, DEVICE_INTERFACE_REPORT. The first page of a range is a byte address here, as in DMTF's definitions;
 * some kernels take it for a page number, so whoever meets a device compares once.
 */
import { get64, put64, viewOf } from "../nvme/index.ts";
import { bytesOf } from "./messages.ts";

/** Bits of `interfaceInfo`. */
export const INTERFACE_INFO = {
  /** No firmware update is taken while the interface is locked. */
  noFirmwareUpdate: 0x01,
  dmaWithoutPasid: 0x02,
  dmaWithPasid: 0x04,
  /** Address translation services are there and on. */
  ats: 0x08,
  pageRequests: 0x10,
} as const;

/** Bits of a range's attributes. */
export const RANGE_ATTRIBUTE = {
  msixTable: 0x01,
  msixPba: 0x02,
  /** Not part of the trusted interface: reached without the T bit. */
  nonTee: 0x04,
  /** Its `nonTee` may be changed while the interface runs. */
  updatable: 0x08,
} as const;

/** A run of pages of device memory. */
export interface MmioRange {
  /** Byte address of the first page, with the reporting offset of LOCK added. */
  readonly firstPage: number;
  /** Pages of 4 KiB. */
  readonly pages: number;
  /** Bits: 1 MSI-X table, 2 pending bits, 4 not part of the trusted interface, 8 the guest may change that (`RANGE_ATTRIBUTE`). */
  readonly attributes: number;
  /** The BAR. */
  readonly id: number;
}

/** What a device says of a locked interface. */
export interface InterfaceReport {
  /** Bits of {@link INTERFACE_INFO}. */
  readonly interfaceInfo: number;
  readonly msixControl: number;
  readonly lnrControl: number;
  readonly tphControl: number;
  readonly ranges: readonly MmioRange[];
  /** What only the device's own driver understands. */
  readonly deviceInfo: Uint8Array;
}

const FIXED_BYTES = 16;
/** Bytes of a range, in a report and in SET_MMIO_ATTRIBUTE. */
export const RANGE_BYTES = 16;

/** Writes a range at `at`. */
export function putRange(view: DataView, at: number, range: MmioRange): void {
  put64(view, at, range.firstPage);
  view.setUint32(at + 8, range.pages, true);
  view.setUint16(at + 12, range.attributes, true);
  view.setUint16(at + 14, range.id, true);
}

/** The range at `at`. */
export const getRange = (view: DataView, at: number): MmioRange => ({
  firstPage: get64(view, at),
  pages: view.getUint32(at + 8, true),
  attributes: view.getUint16(at + 12, true),
  id: view.getUint16(at + 14, true),
});

/** A report as it is sent. */
export function encodeReport(report: InterfaceReport): Uint8Array {
  const { ranges, deviceInfo } = report;
  const infoAt = FIXED_BYTES + ranges.length * RANGE_BYTES;
  const view = viewOf(new Uint8Array(infoAt + 4 + deviceInfo.length));
  view.setUint16(0, report.interfaceInfo, true);
  view.setUint16(4, report.msixControl, true);
  view.setUint16(6, report.lnrControl, true);
  view.setUint32(8, report.tphControl, true);
  view.setUint32(12, ranges.length, true);
  ranges.forEach((range, i) => {
    putRange(view, FIXED_BYTES + i * RANGE_BYTES, range);
  });
  view.setUint32(infoAt, deviceInfo.length, true);
  const bytes = bytesOf(view);
  bytes.set(deviceInfo, infoAt + 4);
  return bytes;
}

/** What a report says; undefined if the bytes are not one, whole and nothing more. */
export function decodeReport(bytes: Uint8Array): InterfaceReport | undefined {
  if (bytes.length < FIXED_BYTES + 4) return undefined;
  const view = viewOf(bytes);
  const count = view.getUint32(12, true);
  const infoAt = FIXED_BYTES + count * RANGE_BYTES;
  if (infoAt + 4 > bytes.length) return undefined;
  const infoBytes = view.getUint32(infoAt, true);
  if (infoAt + 4 + infoBytes !== bytes.length) return undefined;
  return {
    interfaceInfo: view.getUint16(0, true),
    msixControl: view.getUint16(4, true),
    lnrControl: view.getUint16(6, true),
    tphControl: view.getUint32(8, true),
    ranges: Array.from({ length: count }, (_, i) => getRange(view, FIXED_BYTES + i * RANGE_BYTES)),
    deviceInfo: bytes.slice(infoAt + 4),
  };
}
