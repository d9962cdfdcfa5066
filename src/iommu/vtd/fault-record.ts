/**
 * Fault records: the 16 bytes that a VT-d unit leaves about a request it refused, decoded to a value.
 *
 * Specified by: VT-d specification, 11.4.14 and 7.1.3 (reasons).
 */
import type { IovaPage } from "../../base/index.ts";

/** A request that was refused, and why. */
export interface TranslationFault {
  /** The device that asked: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** Undefined for requests without PASID. */
  readonly pasid: number | undefined;
  /** The page that it asked for. */
  readonly page: IovaPage;
  /** What it wanted to do there. */
  readonly access: "read" | "write";
  /** The unit's code (VT-d specification, 7.1.3). */
  readonly reason: number;
  /** What that code says, in a sentence. */
  readonly meaning: string;
}

const MEANINGS: Readonly<Record<number, string>> = {
  0: "made by software",
  1: "the root entry of the bus is not present",
  2: "the context entry of the device is not present",
  3: "the context entry is invalid",
  4: "the address is beyond what the tables can hold",
  5: "not mapped for writing",
  6: "not mapped for reading",
  7: "a pointer to a next table is bad",
  8: "the address of the root table is bad",
  9: "the address of a context table is bad",
  10: "reserved bits are set in a root entry",
  11: "reserved bits are set in a context entry",
  12: "reserved bits are set in a page-table entry",
  13: "translation requests of the device are blocked",
  32: "reserved bits are set in an interrupt request",
  33: "the interrupt index is beyond the table",
  34: "the interrupt entry is not present",
  35: "the interrupt table cannot be accessed",
  36: "reserved bits are set in an interrupt entry",
  37: "compatibility-format interrupts are blocked",
  38: "the interrupt entry belongs to another device",
  48: "the address of the scalable-mode root table is bad",
  49: "a request with PASID, but the unit is in legacy mode",
  50: "a page-group response, but the unit is in legacy mode",
  56: "a root entry cannot be accessed",
  57: "the root entry of the bus is not present",
  58: "reserved bits are set in a root entry",
  64: "a context entry cannot be accessed",
  65: "the context entry of the device is not present",
  66: "reserved bits are set in a context entry",
  67: "the context entry is invalid",
  68: "the device's own TLB is not enabled",
  69: "requests with PASID are not enabled for the device",
  70: "the PASID is larger than the device's directory",
  71: "page requests are not enabled for the device",
  72: "the PASID for requests without PASID is larger than the directory",
  80: "a PASID directory entry cannot be accessed",
  81: "the PASID directory entry is not present",
  82: "reserved bits are set in a PASID directory entry",
  88: "a PASID entry cannot be accessed",
  89: "the PASID entry is not present",
  90: "reserved bits are set in a PASID entry",
  91: "the PASID entry is invalid",
  92: "execute requests are not enabled for the PASID",
  93: "supervisor requests are not enabled for the PASID",
  112: "a first-stage entry cannot be accessed",
  113: "not mapped in the first stage",
  114: "reserved bits are set in a first-stage entry",
  115: "the top first-stage table cannot be accessed",
  116: "nested: the first-stage address is beyond the guest's width",
  117: "nested: the top first-stage table is not mapped for reading",
  118: "nested: not mapped for reading in the second stage",
  119: "nested: not mapped for writing in the second stage",
  120: "a second-stage entry cannot be accessed",
  121: "not mapped, or not allowed, in the second stage",
  122: "reserved bits are set in a second-stage entry",
  123: "a pointer to a next second-stage table is bad",
  124: "accessed and dirty bits of the second stage need a snooping walk",
  128: "the address is not canonical",
  129: "a user request, but the page is for supervisors",
  130: "an execute request, but the page forbids it",
  131: "the address is beyond what the hardware has",
  132: "the address is beyond the second stage's width",
  133: "not mapped for writing",
  134: "not mapped for reading",
  135: "an interrupt address is bad",
  144: "accessed and dirty bits of the first stage need a snooping walk",
};

/** Is the F bit of dword 3 set? The record then has a fault. */
export const isFault = (dword3: number): boolean => dword3 < 0 || dword3 >= 2 ** 31;

/** What the four dwords say. Any value can be decoded; a reason that is reserved says so. */
export function decodeFaultRecord(dword0: number, dword1: number, dword2: number, dword3: number): TranslationFault {
  const reason = dword3 & 0xff;
  return {
    requester: dword2 & 0xffff,
    pasid: (dword2 & 0x8000_0000) === 0 ? undefined : (dword3 >>> 8) & 0xfffff,
    page: ((dword1 >>> 0) * 2 ** 20 + (dword0 >>> 12)) as IovaPage,
    access: (dword3 & 0x4000_0000) === 0 ? "write" : "read",
    reason,
    meaning: MEANINGS[reason] ?? "a reason that the specification reserves",
  };
}
