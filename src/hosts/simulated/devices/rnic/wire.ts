/**
 * A wire between adapters: packets come after a while, or late, or twice, or damaged, or never.
 *
 * Promises: the same seed loses the same packets. What is sent is copied, so that nobody changes a packet under way.
 */
import { Random } from "../../../../base/index.ts";
import type { Clock } from "../../../../platform/index.ts";

/** How bad a wire is. Chances are of a thousand packets. */
export interface WireOptions {
  /** The time of the wire, and of all adapters on it. */
  readonly clock: Clock;
  /** 1 unless said. */
  readonly seed?: number;
  /** How long a packet takes, ms. 0.001 unless said. */
  readonly delayMs?: number;
  /** Never comes. */
  readonly lost?: number;
  /** Comes later than those behind it. */
  readonly late?: number;
  /** Comes twice. */
  readonly doubled?: number;
  /** Comes with a bit changed. */
  readonly damaged?: number;
}

/** Connects adapters by their addresses. */
export class Wire {
  /** The time of the wire, and of all adapters on it. */
  readonly clock: Clock;
  /** What was put on it, and what became of that. */
  readonly counts: {
    /** Packets that were put on it. */
    sent: number;
    /** Bytes that were put on it. */
    bytes: number;
    /** Packets that never came. */
    lost: number;
    /** Packets that came later than those behind them. */
    late: number;
    /** Packets that came twice. */
    doubled: number;
    /** Packets that came with a bit changed. */
    damaged: number;
  } = {
    sent: 0,
    bytes: 0,
    lost: 0,
    late: 0,
    doubled: 0,
    damaged: 0,
  };
  readonly #options: WireOptions;
  readonly #random: Random;
  readonly #ends = new Map<number, (from: number, packet: Uint8Array) => void>();

  /** Nobody is on it yet; adapters attach themselves. */
  constructor(options: WireOptions) {
    this.clock = options.clock;
    this.#options = options;
    this.#random = Random.fromSeed(options.seed ?? 1).fork("wire");
  }

  /** From now on `receive` gets what is sent to `address`. The returned function ends that. */
  attach(address: number, receive: (from: number, packet: Uint8Array) => void): () => void {
    this.#ends.set(address, receive);
    return () => void this.#ends.delete(address);
  }

  /** Sends a packet from one address to another; it may be lost, late, doubled or damaged, as the options say. Never throws. */
  send(from: number, to: number, packet: Uint8Array): void {
    const { delayMs = 0.001, lost = 0, late = 0, doubled = 0, damaged = 0 } = this.#options;
    this.counts.sent++;
    this.counts.bytes += packet.length;
    if (this.#happens(lost)) {
      this.counts.lost++;
      return;
    }
    const bytes = packet.slice();
    if (this.#happens(damaged)) {
      this.counts.damaged++;
      bytes[this.#random.below(bytes.length)]! ^= 1 << this.#random.below(8);
    }
    let delay = delayMs;
    if (this.#happens(late)) {
      this.counts.late++;
      delay *= 2 + this.#random.below(16);
    }
    this.#deliver(from, to, bytes, delay);
    if (!this.#happens(doubled)) return;
    this.counts.doubled++;
    this.#deliver(from, to, bytes, delay * 3);
  }

  #deliver(from: number, to: number, bytes: Uint8Array, delayMs: number): void {
    this.clock.after(delayMs, () => this.#ends.get(to)?.(from, bytes));
  }

  #happens(perThousand: number): boolean {
    return perThousand > 0 && this.#random.below(1000) < perThousand;
  }
}
