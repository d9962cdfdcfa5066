/**
 * The register block of a selective IDE stream: which requests are on it, and whether it is secure.
 *
 * Specified by: PCI Express base specification 6.1, 7.9.26.5. Addresses are in units of 1 MiB.
 */
import { MiB } from "../../base/index.ts";
import { IDE_REGISTER, LINK_BLOCK_BYTES } from "./capability.ts";

/** Byte offsets in a block; blocks for address ranges follow. */
export const SELECTIVE_REGISTER = {
  capability: 0x0,
  control: 0x4,
  status: 0x8,
  requesters1: 0xc,
  requesters2: 0x10,
  addresses: 0x14,
} as const;

/** Bytes of one block for an address range: base and limit, upper limit, upper base. */
export const ADDRESS_BLOCK_BYTES = 12;

/** Stream ids are 0 to 254; this one stands in streams that are not used. */
export const PLACEHOLDER_STREAM = 255;

/** What the status register says of a stream. */
export const STREAM_STATE = { insecure: 0, secure: 2 } as const;

/** Offset in the capability of the block of stream `index`, on a port whose streams have `associations` address ranges each. */
export const selectiveBlockAt = (linkClasses: number, index: number, associations: number): number =>
  IDE_REGISTER.blocks +
  LINK_BLOCK_BYTES * linkClasses +
  index * (SELECTIVE_REGISTER.addresses + ADDRESS_BLOCK_BYTES * associations);

/** Bits 3:0 of a block's capability: address ranges that it has. */
export const associationsOf = (capability: number): number => capability & 0xf;

/** The control register of a stream. */
export interface SelectiveControl {
  readonly enabled: boolean;
  /** Configuration requests are on it, too. */
  readonly configurationRequests: boolean;
  readonly trafficClass: number;
  /** Requests that no address range claims go on this stream. */
  readonly isDefault: boolean;
  /** Only requests with the T bit are on it. */
  readonly teeLimited: boolean;
  readonly id: number;
}

/** The control register that says this. */
export const encodeSelectiveControl = (control: SelectiveControl): number =>
  ((control.enabled ? 0x1 : 0) |
    (control.configurationRequests ? 0x200 : 0) |
    ((control.trafficClass & 7) << 19) |
    (control.isDefault ? 0x40_0000 : 0) |
    (control.teeLimited ? 0x80_0000 : 0) |
    ((control.id & 0xff) << 24)) >>>
  0;

/** What the control register says. */
export const decodeSelectiveControl = (register: number): SelectiveControl => ({
  enabled: (register & 0x1) !== 0,
  configurationRequests: (register & 0x200) !== 0,
  trafficClass: (register >>> 19) & 7,
  isDefault: (register & 0x40_0000) !== 0,
  teeLimited: (register & 0x80_0000) !== 0,
  id: register >>> 24,
});

/** The status register: state 3:0; bit 31: a check failed since it was cleared. */
export const encodeSelectiveStatus = (state: number, failed: boolean): number =>
  ((state & 0xf) | (failed ? 0x8000_0000 : 0)) >>> 0;
export const decodeSelectiveStatus = (register: number): { readonly state: number; readonly failed: boolean } => ({
  state: register & 0xf,
  failed: (register & 0x8000_0000) !== 0,
});

/** Whose requests are on a stream: requesters of one segment, first and last. */
export interface RequesterRange {
  readonly base: number;
  readonly limit: number;
  readonly segment: number;
}

/** The two requester registers: limit 23:8; valid 0, base 23:8, segment 31:24. Without a range: not valid. */
export const encodeRequesters = (range: RequesterRange | undefined): readonly [number, number] =>
  range === undefined
    ? [0, 0]
    : [(range.limit & 0xffff) << 8, (1 | ((range.base & 0xffff) << 8) | ((range.segment & 0xff) << 24)) >>> 0];
export const decodeRequesters = (first: number, second: number): RequesterRange | undefined =>
  (second & 1) === 0
    ? undefined
    : { base: (second >>> 8) & 0xffff, limit: (first >>> 8) & 0xffff, segment: second >>> 24 };

/** Addresses that are on a stream: [start, end), both multiples of 1 MiB. */
export interface AddressRange {
  readonly start: number;
  readonly end: number;
}

/** The smallest range of whole MiB that holds [start, end). */
export const wholeMebibytes = ({ start, end }: AddressRange): AddressRange => ({
  start: Math.floor(start / MiB) * MiB,
  end: Math.ceil(end / MiB) * MiB,
});

/** The three registers: valid 0, base bits 31:20 in 19:8, limit bits 31:20 in 31:20; limit 63:32; base 63:32. The limit is inclusive. */
export function encodeAddresses(range: AddressRange | undefined): readonly [number, number, number] {
  if (range === undefined) return [0, 0, 0];
  const base = range.start / MiB;
  const limit = range.end / MiB - 1;
  const low = (1 | ((base & 0xfff) << 8) | ((limit & 0xfff) << 20)) >>> 0;
  return [low, Math.floor(limit / 4096), Math.floor(base / 4096)];
}

/** What the three registers say; undefined if they are not valid. */
export function decodeAddresses(low: number, limitHigh: number, baseHigh: number): AddressRange | undefined {
  if ((low & 1) === 0) return undefined;
  const base = baseHigh * 4096 + ((low >>> 8) & 0xfff);
  const limit = limitHigh * 4096 + (low >>> 20);
  return { start: base * MiB, end: (limit + 1) * MiB };
}
