/**
 * The controller memory buffer of the simulated NVMe controller: memory of its own, in a BAR, that others may use.
 *
 * Idea: the driver says at which address the controller itself is to recognise it; what the controller then reads or writes there
 * never leaves it.
 * Specified by: NVM Express base specification 2.0, 8.5 and 3.1.3.11 to 3.1.3.13.
 */
import { CMB_CONTROL, CONTROLLER_PAGE, encodeCmb } from "../../../../layouts/nvme/index.ts";
import type { RegionTarget } from "../../memory.ts";

/** The BAR that it is in. */
export const CMB_BAR = 4;

/** What it may be used for; everything unless said. */
export interface CmbUses {
  /** Submission queues may lie in it. */
  readonly submissionQueues?: boolean;
  /** Data that the controller writes to memory (reads) may go there. */
  readonly readData?: boolean;
  /** Data that the controller takes from memory (writes) may come from there. */
  readonly writeData?: boolean;
}

const WORD = 2 ** 32;

export class ControllerMemory {
  readonly bytes: Uint8Array;
  readonly #uses: CmbUses;
  #control = 0;
  #address = 0;

  constructor(length: number, uses: CmbUses = {}) {
    this.bytes = new Uint8Array(length);
    this.#uses = uses;
  }

  /** CMBLOC and CMBSZ: zero until the driver asks for them to be readable. */
  get registers(): readonly [location: number, size: number] {
    if (this.bytes.length === 0 || (this.#control & CMB_CONTROL.readable) === 0) return [0, 0];
    const { submissionQueues = true, readData = true, writeData = true } = this.#uses;
    return encodeCmb({
      bar: CMB_BAR,
      offsetUnits: 0,
      sizeUnits: this.bytes.length / CONTROLLER_PAGE,
      unitBytes: CONTROLLER_PAGE,
      submissionQueues,
      completionQueues: false,
      lists: false,
      readData,
      writeData,
    });
  }

  /** CMBMSC, by halves. */
  get controlLow(): number {
    return (this.#control | (this.#address & 0xffff_f000)) >>> 0;
  }

  set controlLow(value: number) {
    this.#control = value & (CMB_CONTROL.readable | CMB_CONTROL.enabled);
    this.#address = Math.floor(this.#address / WORD) * WORD + ((value & 0xffff_f000) >>> 0);
  }

  get controlHigh(): number {
    return Math.floor(this.#address / WORD);
  }

  set controlHigh(value: number) {
    this.#address = value * WORD + (this.#address % WORD);
  }

  reset(): void {
    this.#control = 0;
    this.#address = 0;
  }

  /** Is [address, + length) in it, as the controller sees it? */
  holds(address: number, length: number): boolean {
    const enabled = (this.#control & CMB_CONTROL.enabled) !== 0;
    return enabled && address >= this.#address && address + length <= this.#address + this.bytes.length;
  }

  /** Does `use` with [address, + length), if that is in it. */
  inside(address: number, length: number, use: (own: Uint8Array) => void): boolean {
    if (!this.holds(address, length)) return false;
    const at = address - this.#address;
    use(this.bytes.subarray(at, at + length));
    return true;
  }

  /** May the data of a read or a write lie at `address`? */
  mayHoldData(address: number, access: "read" | "write"): boolean {
    const { readData = true, writeData = true } = this.#uses;
    return !this.holds(address, 1) || (access === "read" ? readData : writeData);
  }

  /** What answers in the BAR. */
  get target(): RegionTarget {
    const { bytes } = this;
    return {
      read: (offset, into) => into.set(bytes.subarray(offset, offset + into.length)),
      write: (offset, from) => bytes.set(from, offset),
    };
  }
}
