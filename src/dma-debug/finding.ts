/**
 * Findings: each way to misuse DMA mapping that checked mode knows, with a name that stays.
 *
 * A finding carries the numbers of both sides (what was mapped, what was asked) and the call sites of both.
 * Specified by: behaviour of Linux 7.2 DMA debugging; docs/dma-debugging.md shows how to read one.
 */
import { MISUSE_NUMBERS, type MisuseCode } from "../base/index.ts";
import type { CallSite } from "./call-site.ts";

/** One side of a finding: what happened there, and where. */
export type FindingSite = readonly [what: string, site: CallSite | undefined];

/**
 * One misuse: what was done, with which numbers, and the lines of the program that did it. `String(finding)` is the
 * text.
 */
export class DebugFinding {
  /** Which misuse it is; the name stays from version to version. */
  readonly code: MisuseCode;
  /** Its number: 1 to 23 as Linux's DMA debugging counts them, 24 to 30 beyond it, 0 for a full store. */
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
    code: MisuseCode,
    device: string,
    message: string,
    details: Readonly<Record<string, number | string>>,
    sites: readonly FindingSite[],
    call: number,
  ) {
    this.code = code;
    this.number = MISUSE_NUMBERS[code];
    this.device = device;
    this.message = message;
    this.details = details;
    this.call = call;
    this.#sites = sites;
  }

  /** What happened where, oldest first; empty if call sites are not taken. */
  get sites(): readonly {
    /** What the line did, in a few words: `mapped at`. */
    readonly what: string;
    /** File, line and column, as the engine's stack trace has it. */
    readonly where: string;
  }[] {
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
