/**
 * Who had this address at this time: the one question that a fault asks of a recording, as an interface.
 *
 * Idea: one question gets one answer with everything that may bear on it: who had the address then, who had it before, who lies beside
 * it, whose address it would be if bits were lost on the way, whose memory it is. Which of these explains the fault is not decided here
 * (judge.ts), nor where the answers come from (recorded-addresses.ts).
 */
import type { Place } from "../lifetimes/history.ts";

/** A mapping as far as it is known: a copy, that stays. */
export interface Holder {
  /** Index of the device. */
  readonly device: number;
  /** An index into KINDS. */
  readonly kind: number;
  /** DMA address, bytes. */
  readonly iova: number;
  /** Bytes that the driver mapped; of a two-step range, reserved. */
  readonly length: number;
  /** The kernel's number: 0 both, 1 to device, 2 from device; 255: no event says. */
  readonly direction: number;
  /** First byte of memory; -1: unknown. */
  readonly phys: number;
  /** Nanoseconds since the trace's time base; -1: before the recording. */
  readonly startNs: number;
  /** -1: live. */
  readonly endNs: number;
  /** The event it began with; `undefined`: before the recording. */
  readonly began: Place | undefined;
  /** The event that ended it; `undefined`: live, or no event names the end. */
  readonly ended: Place | undefined;
  /** Two-step: bytes that are linked and not yet promised to the device; end of the linked prefix, bytes from the beginning. */
  readonly unsynced: number;
  readonly linkedEnd: number;
}

/** What is asked. */
export interface Question {
  /** Index of the device; `undefined`: the fault names none, and every device's mappings are looked at. */
  readonly device: number | undefined;
  /** Page of the address: the address / 4096, exact for all 64 bits. */
  readonly page: number;
  /** The address in bytes; rounded above 2^53. */
  readonly address: number;
  /** When; `undefined`: the fault's clock cannot be compared with the recording's, and any time counts. */
  readonly timeNs: number | undefined;
  /** The time may be wrong by this much, either way. */
  readonly toleranceNs: number;
}

/** A mapping beside the address. */
export interface Neighbour {
  readonly holder: Holder;
  /** Bytes between the mapping and the address; behind: 0 is the first byte that is not the mapping's. */
  readonly distanceBytes: number;
}

/** What is known of an address at a time. */
export interface Survey {
  /** Mappings that held its page then, or may have: the newest first, at most {@link MOST_HOLDERS}. */
  readonly live: readonly Holder[];
  /** The mapping of its page that ended last before then. */
  readonly ended: Holder | undefined;
  /** A mapping of its page that began only later. */
  readonly later: Holder | undefined;
  /** The nearest mapping that ends before the address, and the nearest that begins after it; live ones are preferred. */
  readonly behind: Neighbour | undefined;
  readonly before: Neighbour | undefined;
  /** A mapping that the address would lie in if bits above `bits` had been lost. */
  readonly cut: { readonly holder: Holder; readonly bits: number } | undefined;
  /** A mapping of whose memory it is the physical address. */
  readonly physical: Holder | undefined;
  /** Another device's mapping of its page. */
  readonly other: Holder | undefined;
  /** Mappings of the device that were ever seen. */
  readonly mappings: number;
}

/** Holders that a survey lists. */
export const MOST_HOLDERS = 4;

export interface AddressHistory {
  /** Cost: linear in what is remembered; ask it once for each stretch of faults, not for each event. */
  survey(question: Question): Survey;
}
