/**
 * A device that was assigned to a guest, as the guest's driver sees it.
 *
 * Idea: registers are reached by the guest's CPU: inside the trust where the guest has accepted the page, outside elsewhere; what
 * is refused reads as all ones. Configuration space is the host's: the guest is shown a command register of its own, so that a
 * driver that switches bus mastering off when it closes does not end the trust.
 * Not for: mapping memory; that is the contract's (consumers/tee).
 */
import type { HostMemory, PciDevice, Registers } from "../../../platform/index.ts";
import type { TrustGate } from "./gate.ts";
import type { GuestNumber } from "./guest-pages.ts";
import type { SecureFunction } from "./secure-device.ts";

const COMMAND = 0x04;
const COMMAND_BITS = 0x06;

/** A device as the driver in a guest gets it: registers inside the trust where the guest accepted the page. */
export class GuestPciDevice implements PciDevice {
  readonly name: string;
  readonly requester: number;
  /** The guest's own memory, as buffers. */
  readonly memory: HostMemory;
  readonly vectors: number;
  readonly #fn: SecureFunction;
  readonly #gate: TrustGate;
  readonly #guest: GuestNumber;
  #command: number;

  /** Made by {@link TeeMachine.assigned}. */
  constructor(
    fn: SecureFunction,
    gate: TrustGate,
    guest: { readonly number: GuestNumber; readonly memory: HostMemory },
  ) {
    this.#fn = fn;
    this.#gate = gate;
    this.#guest = guest.number;
    this.name = fn.name;
    this.requester = fn.requester;
    this.memory = guest.memory;
    this.vectors = fn.pci.vectors;
    this.#command = fn.pci.readConfig(COMMAND, 2);
  }

  get removed(): boolean {
    return this.#fn.pci.removed;
  }

  bar(index: number): Registers | undefined {
    const model = this.#fn.pci.model.bars.find((bar) => bar.index === index);
    if (!model) return undefined;
    const word = new Uint8Array(4);
    const view = new DataView(word.buffer);
    const inside = (offset: number): boolean => offset >= 0 && offset + 4 <= model.length;
    return {
      length: model.length,
      read32: (offset) => {
        if (!inside(offset)) return 0xffff_ffff;
        this.#gate.access(this.#guest, this.#fn, index, offset, "read", word);
        return view.getUint32(0, true);
      },
      write32: (offset, value) => {
        if (!inside(offset)) return;
        view.setUint32(0, value, true);
        this.#gate.access(this.#guest, this.#fn, index, offset, "write", word);
      },
    };
  }

  readConfig(offset: number, bytes: 1 | 2 | 4): number {
    if (offset === COMMAND && bytes === 2 && !this.removed) return this.#command;
    return this.#fn.pci.readConfig(offset, bytes);
  }

  /** Only the guest's own command register; the host's bits stay. */
  writeConfig(offset: number, bytes: 1 | 2 | 4, value: number): void {
    if (offset === COMMAND && bytes !== 1) this.#command = value & COMMAND_BITS;
  }

  setBusMaster(on: boolean): void {
    this.#command = on ? this.#command | 4 : this.#command & ~4;
  }

  onInterrupt(vector: number, callback: () => void): () => void {
    return this.#fn.pci.onInterrupt(vector, callback);
  }

  /** By the host: it ends the trust of an interface that runs. */
  reset(): Promise<void> {
    return this.#fn.pci.reset();
  }

  onRemoved(callback: () => void): () => void {
    return this.#fn.pci.onRemoved(callback);
  }
}
