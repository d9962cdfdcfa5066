/**
 * Who uses the pool of bounce buffers: slots that each device holds, and what did not fit.
 *
 * Idea: a `swiotlb_bounced` event says that a piece is about to be copied; the mapping that begins next on that CPU for that device
 * holds it until it ends. If that mapping fails instead, the piece found no slots. Mappings that never end hold theirs for ever.
 * Promises: counts are lower bounds: a device that wants its memory at an offset takes up to two slots more, and what was mapped before
 * the recording is not seen. Not for: the pool's size, which no event tells.
 * Specified by: the kernel's bounce buffer: slots of 2 KiB, at most 128 of them in one piece.
 */
import { BOUNCE_PIECE_BYTES, BOUNCE_SLOT_BYTES } from "../../trace/index.ts";
import type { Place } from "./history.ts";
import type { Watcher } from "./watcher.ts";

/** Pieces of one CPU that wait for their mapping; a list has as many as it has entries. */
const MOST_WAITING = 1 << 14;

/** A piece that no mapping has taken yet. */
interface Piece {
  readonly device: number;
  readonly bytes: number;
}

/** What one device has in the pool. */
export interface BounceOfDevice {
  /** Mappings that were bounced, or a part of them. */
  mappings: number;
  ended: number;
  /** Slots held now, and the most at once. */
  slots: number;
  peakSlots: number;
  /** The largest piece, bytes. */
  largest: number;
  /** Mappings that failed right after a bounce was tried. */
  failed: number;
  /** The largest piece of those, bytes. */
  largestFailed: number;
  /** Pieces larger than any pool takes. */
  tooLarge: number;
}

export class BounceUse implements Watcher {
  /** By index of the device. */
  readonly devices: Map<number, BounceOfDevice> = new Map();
  /** Slots held by all devices now. */
  slots = 0;
  /** If the event at hand is a call that failed: the piece that was to be bounced for it, bytes; `undefined`: none was. */
  failedPiece: number | undefined;
  readonly #now: Place;
  readonly #waiting = new Map<number, Piece[]>();
  /** Pieces that wait on any CPU: on most machines none ever does. */
  #pieces = 0;
  /** Slots by row of the table. */
  readonly #held = new Map<number, number>();
  readonly #deviceOf: (row: number) => number;

  constructor(now: Place, deviceOf: (row: number) => number) {
    this.#now = now;
    this.#deviceOf = deviceOf;
  }

  bounced(device: number, _mask: number, _address: number, length: number): void {
    const own = this.#of(device);
    if (length > own.largest) own.largest = length;
    if (length > BOUNCE_PIECE_BYTES) own.tooLarge++;
    let waiting = this.#waiting.get(this.#now.cpu);
    if (!waiting) {
      waiting = [];
      this.#waiting.set(this.#now.cpu, waiting);
    }
    if (waiting.length >= MOST_WAITING) return;
    waiting.push({ device, bytes: length });
    this.#pieces++;
  }

  opened(row: number): void {
    if (this.#pieces === 0) return;
    const pieces = this.#take(this.#deviceOf(row));
    if (pieces.length === 0) return;
    const slots = pieces.reduce((sum, { bytes }) => sum + Math.ceil(bytes / BOUNCE_SLOT_BYTES), 0);
    const own = this.#of(pieces[0]!.device);
    own.mappings++;
    own.slots += slots;
    own.peakSlots = Math.max(own.peakSlots, own.slots);
    this.slots += slots;
    this.#held.set(row, slots);
  }

  closed(row: number): void {
    if (this.#held.size === 0) return;
    const slots = this.#held.get(row);
    if (slots === undefined) return;
    this.#held.delete(row);
    const own = this.#of(this.#deviceOf(row));
    own.ended++;
    own.slots -= slots;
    this.slots -= slots;
  }

  dropped(row: number): void {
    this.closed(row);
  }

  failed(device: number, _length: number, _error: number, isAllocation: boolean): void {
    const pieces = isAllocation ? [] : this.#take(device); // memory that is allocated is not bounced
    // Of a list, the one that did not fit was the last that was tried.
    this.failedPiece = pieces.at(-1)?.bytes;
    if (this.failedPiece === undefined) return;
    const own = this.#of(device);
    own.failed++;
    own.largestFailed = Math.max(own.largestFailed, this.failedPiece);
  }

  /** The pieces of `device` that wait on this CPU; an interrupt's mappings of other devices leave them. */
  #take(device: number): readonly Piece[] {
    const waiting = this.#waiting.get(this.#now.cpu);
    if (waiting === undefined || waiting.length === 0) return [];
    const own = waiting.filter((piece) => piece.device === device);
    const others = own.length === waiting.length ? [] : waiting.filter((piece) => piece.device !== device);
    this.#waiting.set(this.#now.cpu, others);
    this.#pieces -= own.length;
    return own;
  }

  #of(device: number): BounceOfDevice {
    let own = this.devices.get(device);
    if (!own) {
      own = { mappings: 0, ended: 0, slots: 0, peakSlots: 0, largest: 0, failed: 0, largestFailed: 0, tooLarge: 0 };
      this.devices.set(device, own);
    }
    return own;
  }
}
