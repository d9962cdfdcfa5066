/**
 * Identify data: what a controller and a namespace say about themselves, 4096 bytes each.
 *
 * Promises: `decode(encode(x))` gives back `x` for every value the fields hold.
 * Specified by: NVM Express base specification 2.0, figure 275 (identify controller); NVM command set specification 1.0, figure
 * 97 (identify namespace).
 */
import { get64, put64, viewOf } from "./le-words.ts";

export const IDENTIFY_BYTES = 4096;

export interface ControllerIdentity {
  readonly vendorId: number;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly firmware: string;
  /** Longest transfer: 2^n controller pages; 0 is no limit. */
  readonly maxTransferShift: number;
  readonly controllerId: number;
  readonly version: number;
  /** Outstanding aborts and asynchronous event requests, both less one. */
  readonly abortLimit0: number;
  readonly asyncEventLimit0: number;
  readonly namespaces: number;
  /** Bits of ONCS, below. */
  readonly optionalCommands: number;
  readonly volatileWriteCache: boolean;
  /** Bits of SGLS, below. */
  readonly sgls: number;
  readonly subsystem: string;
}

export const OPTIONAL_COMMAND = { compare: 1, datasetManagement: 4, writeZeroes: 8 } as const;
/** SGLS: bits 1:0 say whether and with which alignment, bit 19 that the metadata pointer may point at a descriptor. */
export const SGL_SUPPORT = { byteAligned: 1, dwordAligned: 2, mask: 3, metadata: 0x8_0000 } as const;

interface BlockFormat {
  /** Bytes of metadata for each block. */
  readonly metadataBytes: number;
  /** Bytes of data of a block, a power of two. */
  readonly blockBytes: number;
}

export interface NamespaceIdentity {
  readonly blocks: number;
  readonly capacity: number;
  readonly used: number;
  /** Which of `formats` it has. */
  readonly format: number;
  /** Metadata lies behind each block instead of in a buffer of its own. */
  readonly extendedBlocks: boolean;
  readonly formats: readonly BlockFormat[];
}

const putText = (bytes: Uint8Array, at: number, length: number, text: string, pad: number): void => {
  bytes.fill(pad, at, at + length);
  for (let i = 0; i < Math.min(text.length, length); i++) bytes[at + i] = text.charCodeAt(i) & 0x7f;
};
const getText = (bytes: Uint8Array, at: number, length: number): string => {
  let text = "";
  for (let i = 0; i < length && bytes[at + i] !== 0; i++) text += String.fromCharCode(bytes[at + i]!);
  return text.trimEnd();
};

export function encodeController(identity: ControllerIdentity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = viewOf(bytes);
  view.setUint16(0, identity.vendorId, true);
  view.setUint16(2, identity.vendorId, true);
  putText(bytes, 4, 20, identity.serialNumber, 0x20);
  putText(bytes, 24, 40, identity.modelNumber, 0x20);
  putText(bytes, 64, 8, identity.firmware, 0x20);
  view.setUint8(77, identity.maxTransferShift);
  view.setUint16(78, identity.controllerId, true);
  view.setUint32(80, identity.version, true);
  view.setUint8(258, identity.abortLimit0);
  view.setUint8(259, identity.asyncEventLimit0);
  view.setUint8(512, 0x66);
  view.setUint8(513, 0x44);
  view.setUint32(516, identity.namespaces, true);
  view.setUint16(520, identity.optionalCommands, true);
  view.setUint8(525, identity.volatileWriteCache ? 1 : 0);
  view.setUint32(536, identity.sgls, true);
  putText(bytes, 768, 256, identity.subsystem, 0);
  return bytes;
}

export function decodeController(bytes: Uint8Array): ControllerIdentity {
  const view = viewOf(bytes);
  return {
    vendorId: view.getUint16(0, true),
    serialNumber: getText(bytes, 4, 20),
    modelNumber: getText(bytes, 24, 40),
    firmware: getText(bytes, 64, 8),
    maxTransferShift: view.getUint8(77),
    controllerId: view.getUint16(78, true),
    version: view.getUint32(80, true),
    abortLimit0: view.getUint8(258),
    asyncEventLimit0: view.getUint8(259),
    namespaces: view.getUint32(516, true),
    optionalCommands: view.getUint16(520, true),
    volatileWriteCache: (view.getUint8(525) & 1) === 1,
    sgls: view.getUint32(536, true),
    subsystem: getText(bytes, 768, 256),
  };
}

export function encodeNamespace(identity: NamespaceIdentity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = viewOf(bytes);
  put64(view, 0, identity.blocks);
  put64(view, 8, identity.capacity);
  put64(view, 16, identity.used);
  view.setUint8(25, identity.formats.length - 1);
  view.setUint8(26, identity.format | (identity.extendedBlocks ? 1 << 4 : 0));
  view.setUint8(27, identity.extendedBlocks ? 1 : 2);
  identity.formats.forEach(({ metadataBytes, blockBytes }, i) => {
    view.setUint16(128 + 4 * i, metadataBytes, true);
    view.setUint8(130 + 4 * i, Math.log2(blockBytes));
  });
  return bytes;
}

export function decodeNamespace(bytes: Uint8Array): NamespaceIdentity {
  const view = viewOf(bytes);
  return {
    blocks: get64(view, 0),
    capacity: get64(view, 8),
    used: get64(view, 16),
    format: view.getUint8(26) & 0xf,
    extendedBlocks: (view.getUint8(26) & 0x10) !== 0,
    formats: Array.from({ length: view.getUint8(25) + 1 }, (_, i) => ({
      metadataBytes: view.getUint16(128 + 4 * i, true),
      blockBytes: 2 ** view.getUint8(130 + 4 * i),
    })),
  };
}

/** Active namespace ids, ascending; the list ends with a 0 or after 1024. */
export function encodeNamespaceList(ids: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const view = viewOf(bytes);
  ids.slice(0, IDENTIFY_BYTES / 4).forEach((id, i) => void view.setUint32(4 * i, id, true));
  return bytes;
}

export function decodeNamespaceList(bytes: Uint8Array): number[] {
  const view = viewOf(bytes);
  const ids: number[] = [];
  for (let at = 0; at < IDENTIFY_BYTES && view.getUint32(at, true) !== 0; at += 4) ids.push(view.getUint32(at, true));
  return ids;
}
