/**
 * How the simulated NVMe controller finds the data of a command: its own reading of PRPs and SGLs, all by DMA.
 *
 * Idea: the description is read and checked completely before any byte of data moves; it becomes a list of addresses and lengths. It
 * shares only the layouts with the driver, so two readings check each other.
 * Promises: every breach of the rules is a status, never an exception; a chain that leads nowhere ends. Work and memory are bounded
 * by the length of the command's data, whatever lists a hostile driver lays down: a page of them is read at a time, and no more
 * than describe the data.
 * Specified by: NVM Express base specification 2.0, 4.1.1 and 4.1.2.
 */
import type { DmaAddr } from "../../../../base/index.ts";
import {
  CONTROLLER_PAGE,
  get64,
  NVME_STATUS,
  PRP_BYTES,
  SGL,
  SGL_BYTES,
  SGL_TYPE,
  viewOf,
} from "../../../../layouts/nvme/index.ts";

/** How a device reads and writes memory: through whatever the machine has in between. False if it was refused. */
export interface DmaPort {
  read(address: DmaAddr, into: Uint8Array): boolean;
  write(address: DmaAddr, from: Uint8Array): boolean;
}

/** An address that discards what is written to it: a bit bucket. */
const BIT_BUCKET = -1;
/** Segments of an SGL that may follow one another. */
const MAX_SGL_SEGMENTS = 1024;
/** Descriptors of a command that may describe nothing, beside those that describe a byte or more. */
const IDLE_DESCRIPTORS = 1024;
/** Descriptors that are read at a time, bytes. */
const SGL_PIECE = 4096;

/** The runs of a command's data. */
export class DataRuns {
  readonly addresses: number[] = [];
  readonly lengths: number[] = [];
  bytes = 0;

  clear(): void {
    this.addresses.length = 0;
    this.lengths.length = 0;
    this.bytes = 0;
  }

  add(address: number, length: number): void {
    const last = this.addresses.length - 1;
    this.bytes += length;
    if (last >= 0 && address >= 0 && this.addresses[last]! + this.lengths[last]! === address)
      this.lengths[last]! += length;
    else {
      this.addresses.push(address);
      this.lengths.push(length);
    }
  }

  /** Fills `into` from memory; what is beyond its end is not read. */
  read(port: DmaPort, into: Uint8Array): boolean {
    return this.#eachPart(into, (address, part) => {
      if (address !== BIT_BUCKET) return port.read(address as DmaAddr, part);
      part.fill(0);
      return true;
    });
  }

  /** Puts `from` into memory. */
  write(port: DmaPort, from: Uint8Array): boolean {
    return this.#eachPart(from, (address, part) => address === BIT_BUCKET || port.write(address as DmaAddr, part));
  }

  #eachPart(bytes: Uint8Array, move: (address: number, part: Uint8Array) => boolean): boolean {
    for (let i = 0, at = 0; at < bytes.length && i < this.addresses.length; i++) {
      const length = Math.min(this.lengths[i]!, bytes.length - at);
      if (!move(this.addresses[i]!, bytes.subarray(at, at + length))) return false;
      at += length;
    }
    return true;
  }
}

/** Reads the two PRPs of a command, and the lists they lead to, for `bytes` bytes. */
export function readPrps(port: DmaPort, prp1: number, prp2: number, bytes: number, runs: DataRuns): number {
  const offset = prp1 % CONTROLLER_PAGE;
  if (offset % 4 !== 0) return NVME_STATUS.prpOffset;
  const first = Math.min(bytes, CONTROLLER_PAGE - offset);
  runs.add(prp1, first);
  let left = bytes - first;
  if (left === 0) return NVME_STATUS.success;
  if (prp2 === 0) return NVME_STATUS.invalidField;
  if (left <= CONTROLLER_PAGE) {
    if (prp2 % CONTROLLER_PAGE !== 0) return NVME_STATUS.prpOffset;
    runs.add(prp2, left);
    return NVME_STATUS.success;
  }
  let list = prp2;
  // A list page with a single slot may hold nothing but the next pointer: a circle of those would never end.
  for (let pages = 2 * Math.ceil(left / CONTROLLER_PAGE); pages > 0; pages--) {
    if (list % PRP_BYTES !== 0) return NVME_STATUS.prpOffset;
    const slots = Math.min((CONTROLLER_PAGE - (list % CONTROLLER_PAGE)) / PRP_BYTES, Math.ceil(left / CONTROLLER_PAGE));
    const page = new Uint8Array(slots * PRP_BYTES);
    if (!port.read(list as DmaAddr, page)) return NVME_STATUS.dataTransferError;
    const view = viewOf(page);
    for (let slot = 0; slot < slots; slot++) {
      const entry = get64(view, slot * PRP_BYTES);
      if (entry === 0) return NVME_STATUS.invalidField;
      if (slot === slots - 1 && left > CONTROLLER_PAGE) {
        list = entry;
        break;
      }
      if (entry % CONTROLLER_PAGE !== 0) return NVME_STATUS.prpOffset;
      const length = Math.min(left, CONTROLLER_PAGE);
      runs.add(entry, length);
      left -= length;
    }
    if (left === 0) return NVME_STATUS.success;
  }
  return NVME_STATUS.invalidField;
}

/**
 * Reads an SGL that begins with the descriptor at `at` of `view`, for `bytes` bytes; too short is `shortStatus`. What lies behind the
 * descriptor that goes beyond the data is not looked at.
 */
export function readSgl(
  port: DmaPort,
  view: DataView,
  at: number,
  bytes: number,
  runs: DataRuns,
  dwordAligned: boolean,
  shortStatus: number = NVME_STATUS.sglDataLength,
): number {
  let identifier = view.getUint8(at + SGL.identifier);
  let address = get64(view, at);
  let length = view.getUint32(at + SGL.length, true);
  let segments = 0;
  let descriptors = 0;
  const piece = new Uint8Array(SGL_PIECE);
  const entries = viewOf(piece);
  for (;;) {
    if (identifier !== SGL_TYPE.segment && identifier !== SGL_TYPE.lastSegment) {
      const status = addBlock(identifier, address, length, runs, dwordAligned);
      if (status !== NVME_STATUS.success) return status;
      break;
    }
    if (length === 0 || length % SGL_BYTES !== 0) return NVME_STATUS.sglInvalidSegment;
    if (++segments > MAX_SGL_SEGMENTS) return NVME_STATUS.sglDescriptorCount;
    const isLast = identifier === SGL_TYPE.lastSegment;
    const segment = address;
    let continues = false;
    for (let entry = 0; entry < length; entry += SGL_BYTES) {
      const inPiece = entry % SGL_PIECE;
      if (inPiece === 0) {
        const part = piece.subarray(0, Math.min(SGL_PIECE, length - entry));
        if (!port.read((segment + entry) as DmaAddr, part)) return NVME_STATUS.dataTransferError;
      }
      if (++descriptors > IDLE_DESCRIPTORS + bytes) return NVME_STATUS.sglDescriptorCount;
      identifier = entries.getUint8(inPiece + SGL.identifier);
      address = get64(entries, inPiece);
      const entryLength = entries.getUint32(inPiece + SGL.length, true);
      if (identifier === SGL_TYPE.segment || identifier === SGL_TYPE.lastSegment) {
        if (isLast) return NVME_STATUS.sglInvalidSegment;
        if (entry !== length - SGL_BYTES) return NVME_STATUS.sglDescriptorCount;
        length = entryLength;
        continues = true;
        break;
      }
      const status = addBlock(identifier, address, entryLength, runs, dwordAligned);
      if (status !== NVME_STATUS.success) return status;
      if (runs.bytes > bytes) return NVME_STATUS.success;
    }
    if (continues) continue;
    if (!isLast) return NVME_STATUS.sglInvalidSegment; // it ends without saying where it goes on
    break;
  }
  return runs.bytes < bytes ? shortStatus : NVME_STATUS.success;
}

function addBlock(identifier: number, address: number, length: number, runs: DataRuns, dwordAligned: boolean): number {
  if (identifier === SGL_TYPE.bitBucket) runs.add(BIT_BUCKET, length);
  else if (identifier !== SGL_TYPE.dataBlock) return NVME_STATUS.sglDescriptorType;
  else if (dwordAligned && (address % 4 !== 0 || length % 4 !== 0)) return NVME_STATUS.sglOffset;
  else if (length > 0) runs.add(address, length);
  return NVME_STATUS.success;
}
