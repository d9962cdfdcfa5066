/** A buffer as one device sees it. */
import type { Direction } from "../../base/index.ts";
import type { DmaVec } from "../../dma/index.ts";
import type { RouteKind } from "./routes.ts";

/** What a map gives: addresses for the device, and nothing of where the memory is. */
export interface BufferMapping {
  /** Who may write, as it was mapped. */
  readonly direction: Direction;
  /** In order of the buffer's bytes; each shorter than 4 GiB. May change where the storage moves in place. */
  readonly ranges: readonly DmaVec[];
  /** Bytes by the way they are reached; none are counted of what the importer maps itself. */
  readonly bytesBy: Readonly<Record<RouteKind, number>>;
  /** Entries of the list of pages behind it: 0, for there is none, unless the classic form was asked for. */
  readonly tableEntries: number;
  /** What the device wrote is the CPU's to read. */
  syncForCpu(direction: Direction): void;
  /** What the CPU wrote is the device's again. */
  syncForDevice(direction: Direction): void;
  /** Takes the storage from the device; `atOnce` in lazy mode too. Cannot fail; a second time does nothing. */
  release(atOnce: boolean): void;
}

/** No bytes yet, of any kind. */
export const noBytes = (): Record<RouteKind, number> => ({ memory: 0, "host-bridge": 0, bus: 0 });

/** Bytes of the longest range in a list: the length field has 32 bits, and a range ends on a page. */
export const LONGEST_RANGE: number = 2 ** 32 - 4096;

/** Appends [address, + length) in ranges that are not too long. */
export function appendRange(into: DmaVec[], address: number, length: number, bus: boolean): void {
  for (let at = 0; at < length; at += LONGEST_RANGE) {
    const piece = Math.min(LONGEST_RANGE, length - at);
    into.push({ address: (address + at) as DmaVec["address"], length: piece, ...(bus && { bus }) });
  }
}
