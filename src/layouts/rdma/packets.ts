/**
 * Packets of the reliable and unreliable connected transports: headers, payload, check sum.
 *
 * A packet is the base header (BTH, 12 bytes), the extended headers that its operation has, the payload with up to three bytes of padding, and
 * a check sum. Numbers are big endian. What carries it (InfiniBand's link, or UDP) is not here; the check sum covers what is.
 * Specified by: InfiniBand Architecture Specification, volume 1, chapter 9 (transport layer).
 */
import { crc32 } from "../../base/index.ts";

/** Operations of packets: the low five bits of the operation code. */
export const OPERATION = {
  sendFirst: 0,
  sendMiddle: 1,
  sendLast: 2,
  sendLastImmediate: 3,
  sendOnly: 4,
  sendOnlyImmediate: 5,
  writeFirst: 6,
  writeMiddle: 7,
  writeLast: 8,
  writeLastImmediate: 9,
  writeOnly: 10,
  writeOnlyImmediate: 11,
  readRequest: 12,
  readFirst: 13,
  readMiddle: 14,
  readLast: 15,
  readOnly: 16,
  acknowledge: 17,
  atomicAcknowledge: 18,
  compareSwap: 19,
  fetchAdd: 20,
} as const;

/** Transports: the high three bits of the operation code. */
export const TRANSPORT = { reliable: 0, unreliable: 1 } as const;

/** What an acknowledgement says: the high bits of its syndrome. */
export const SYNDROME = {
  acknowledge: 0x00,
  /** The receiver is not ready: come again after the time that the low five bits stand for. */
  notReady: 0x20,
  refused: 0x60,
} as const;

/** Why a packet was refused: the low bits of the syndrome. */
export const REFUSAL = { sequence: 0, invalidRequest: 1, remoteAccess: 2, remoteOperation: 3 } as const;

/** Packets are numbered modulo this. */
export const PSN_SPACE: number = 2 ** 24;
/** How far `psn` is ahead of `from`: negative if it is behind. */
export function psnDistance(psn: number, from: number): number {
  const ahead = (psn - from + PSN_SPACE) % PSN_SPACE;
  return ahead < PSN_SPACE / 2 ? ahead : ahead - PSN_SPACE;
}
/** The number `count` packets after `psn`. */
export const psnAfter = (psn: number, count: number): number => (psn + count + PSN_SPACE) % PSN_SPACE;

/** A packet, taken apart. Which of the optional parts are there follows from the operation. */
export interface Packet {
  readonly transport: number;
  readonly operation: number;
  /** The queue pair that it is for. */
  readonly destination: number;
  readonly psn: number;
  /** An acknowledgement is wanted. */
  readonly wantsAnswer: boolean;
  readonly payload: Uint8Array;
  /** Of the first or only packet of a write, and of a read request; of atomics without `length`. */
  readonly remote?: { readonly address: bigint; readonly key: number; readonly length: number };
  readonly atomic?: { readonly swapOrAdd: bigint; readonly compare: bigint };
  readonly acknowledgement?: { readonly syndrome: number; readonly messages: number };
  /** What was there before an atomic operation. */
  readonly original?: bigint;
  readonly immediate?: number;
}

const BASE_BYTES = 12;
const CHECK_BYTES = 4;
const NOTHING = new Uint8Array(0);

/** Which extended headers an operation has. */
function partsOf(operation: number): {
  remote: boolean;
  atomic: boolean;
  acknowledgement: boolean;
  original: boolean;
  immediate: boolean;
} {
  const O = OPERATION;
  const atomic = operation === O.compareSwap || operation === O.fetchAdd;
  return {
    atomic,
    remote:
      operation === O.writeFirst ||
      operation === O.writeOnly ||
      operation === O.writeOnlyImmediate ||
      operation === O.readRequest,
    acknowledgement:
      operation === O.acknowledge ||
      operation === O.atomicAcknowledge ||
      operation === O.readFirst ||
      operation === O.readLast ||
      operation === O.readOnly,
    original: operation === O.atomicAcknowledge,
    immediate:
      operation === O.sendLastImmediate ||
      operation === O.sendOnlyImmediate ||
      operation === O.writeLastImmediate ||
      operation === O.writeOnlyImmediate,
  };
}

function headerBytes(operation: number): number {
  const { remote, atomic, acknowledgement, original, immediate } = partsOf(operation);
  return (
    BASE_BYTES +
    (remote ? 16 : 0) +
    (atomic ? 28 : 0) +
    (acknowledgement ? 4 : 0) +
    (original ? 8 : 0) +
    (immediate ? 4 : 0)
  );
}

/** The bytes of a packet. */
export function writePacket(packet: Packet): Uint8Array {
  const { transport, operation, destination, psn, wantsAnswer, payload } = packet;
  const parts = partsOf(operation);
  const padding = (4 - (payload.length % 4)) % 4;
  const header = headerBytes(operation);
  const bytes = new Uint8Array(header + payload.length + padding + CHECK_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, (transport << 5) | operation);
  view.setUint8(1, padding << 4);
  view.setUint16(2, 0xffff);
  view.setUint32(4, destination);
  view.setUint32(8, (wantsAnswer ? 0x8000_0000 : 0) + psn);
  let at = BASE_BYTES;
  if (parts.remote || parts.atomic) {
    view.setBigUint64(at, packet.remote!.address);
    view.setUint32(at + 8, packet.remote!.key);
    at += 12;
  }
  if (parts.remote) {
    view.setUint32(at, packet.remote!.length);
    at += 4;
  }
  if (parts.atomic) {
    view.setBigUint64(at, packet.atomic!.swapOrAdd);
    view.setBigUint64(at + 8, packet.atomic!.compare);
    at += 16;
  }
  if (parts.acknowledgement) {
    view.setUint32(at, packet.acknowledgement!.syndrome * 2 ** 24 + packet.acknowledgement!.messages);
    at += 4;
  }
  if (parts.original) {
    view.setBigUint64(at, packet.original!);
    at += 8;
  }
  if (parts.immediate) {
    view.setUint32(at, packet.immediate!);
    at += 4;
  }
  bytes.set(payload, at);
  view.setUint32(bytes.length - CHECK_BYTES, crc32(bytes.subarray(0, bytes.length - CHECK_BYTES)));
  return bytes;
}

/** What the bytes of a packet say; undefined for bytes that are none: too short, of an operation that there is not, or damaged. */
export function readPacket(bytes: Uint8Array): Packet | undefined {
  if (bytes.length < BASE_BYTES + CHECK_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const operation = view.getUint8(0) & 0x1f;
  const transport = view.getUint8(0) >> 5;
  if (operation > OPERATION.fetchAdd || transport > TRANSPORT.unreliable) return undefined;
  const header = headerBytes(operation);
  const end = bytes.length - CHECK_BYTES - ((view.getUint8(1) >> 4) & 3);
  if (end < header) return undefined;
  if (view.getUint32(bytes.length - CHECK_BYTES) !== crc32(bytes.subarray(0, bytes.length - CHECK_BYTES)))
    return undefined;
  const parts = partsOf(operation);
  let at = BASE_BYTES;
  const take = (length: number): number => {
    at += length;
    return at - length;
  };
  const word = view.getUint32(8);
  const packet: { -readonly [Part in keyof Packet]: Packet[Part] } = {
    transport,
    operation,
    destination: view.getUint32(4) % PSN_SPACE,
    psn: word % PSN_SPACE,
    wantsAnswer: word >= 0x8000_0000,
    payload: NOTHING,
  };
  if (parts.remote || parts.atomic) {
    const from = take(12);
    const length = parts.remote ? view.getUint32(take(4)) : 8;
    packet.remote = { address: view.getBigUint64(from), key: view.getUint32(from + 8), length };
  }
  if (parts.atomic) {
    const from = take(16);
    packet.atomic = { swapOrAdd: view.getBigUint64(from), compare: view.getBigUint64(from + 8) };
  }
  if (parts.acknowledgement) {
    const answer = view.getUint32(take(4));
    packet.acknowledgement = { syndrome: Math.floor(answer / PSN_SPACE), messages: answer % PSN_SPACE };
  }
  if (parts.original) packet.original = view.getBigUint64(take(8));
  if (parts.immediate) packet.immediate = view.getUint32(take(4));
  packet.payload = bytes.subarray(at, end);
  return packet;
}
