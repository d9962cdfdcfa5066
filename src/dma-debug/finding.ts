/**
 * Findings: each way to misuse DMA mapping that checked mode knows, with a name that stays.
 *
 * Numbers 1 to 23 are the errors of Linux's DMA debugging, in its order; 24 to 30 are misuse that Linux does not see. A
 * finding carries the numbers of both sides (what was mapped, what was asked) and the call sites of both.
 * Specified by: behaviour of Linux 7.2 DMA debugging; docs/dma-debugging.md shows how to read one.
 */
import type { CallSite } from "./call-site.ts";

/** Every finding, and its number. */
export const FINDING_NUMBERS = {
  /** The facility has no room for another mapping and stops. */
  "store-full": 0,
  "free-invalid": 1,
  "free-unknown": 2,
  "different-size": 3,
  "wrong-function": 4,
  "different-cpu-address": 5,
  "different-entry-count": 6,
  "different-direction": 7,
  "map-error-unchecked": 8,
  "different-attributes": 9,
  "overlapping-cache-line": 10,
  "too-many-overlaps": 11,
  "maps-stack": 12,
  "maps-text": 13,
  "maps-invalid": 14,
  "mmio-of-ram": 15,
  "sync-unknown": 16,
  "sync-outside": 17,
  "sync-different-direction": 18,
  "sync-read-only-for-cpu": 19,
  "sync-write-only-for-device": 20,
  "segment-too-long": 21,
  "segment-across-boundary": 22,
  "unbound-with-live": 23,
  "link-outside-state": 24,
  "unlink-hole": 25,
  "destroy-wrong-length": 26,
  "access-before-sync": 27,
  "access-after-unmap": 28,
  "bus-address-translated": 29,
  "private-to-untrusted": 30,
} as const;

/** Kinds of misuse; {@link FINDING_NUMBERS} has the numbers of docs/dma-debugging.md. */
export type FindingCode = keyof typeof FINDING_NUMBERS;

/** One side of a finding: what happened there, and where. */
export type FindingSite = readonly [what: string, site: CallSite | undefined];

/**
 * One misuse: what was done, with which numbers, and the lines of the program that did it. `String(finding)` is the
 * text.
 */
export class DebugFinding {
  readonly code: FindingCode;
  readonly number: number;
  /** Name of the device. */
  readonly device: string;
  /** What was done, what is true, and the numbers. */
  readonly message: string;
  /** The numbers of the message, for programs. */
  readonly details: Readonly<Record<string, number | string>>;
  /** Which call it was, counted over all calls that were checked. */
  readonly call: number;
  readonly #sites: readonly FindingSite[];

  constructor(
    code: FindingCode,
    device: string,
    message: string,
    details: Readonly<Record<string, number | string>>,
    sites: readonly FindingSite[],
    call: number,
  ) {
    this.code = code;
    this.number = FINDING_NUMBERS[code];
    this.device = device;
    this.message = message;
    this.details = details;
    this.call = call;
    this.#sites = sites;
  }

  /** What happened where, oldest first; empty if call sites are not taken. */
  get sites(): readonly { readonly what: string; readonly where: string }[] {
    return this.#sites.flatMap(([what, site]) => (site ? [{ what, where: String(site) }] : []));
  }

  /** As people read it: the message, then one line a site. */
  toString(): string {
    const lines = this.sites.map(({ what, where }) => `\n    ${what.padEnd(18)} ${where}`);
    return `${this.code} (${this.number}) ${this.device}: ${this.message}${lines.join("")}`;
  }

  /**
   * What `JSON.stringify` writes: code, number, device, message, details, call sites and call, without the stack of the
   * error.
   */
  toJSON(): object {
    const { code, number, device, message, details, sites, call } = this;
    return { code, number, device, message, details, sites, call };
  }
}
