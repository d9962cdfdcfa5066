/**
 * The mailbox between a manager and a simulated device. The host carries what is in it.
 *
 * Idea: objects take time, and a *carrier* can look at each, change it, hold it back, or say something else: that is a host
 * that attacks. Promises: an object that is lost is a time-out, never an endless wait.
 */
import type { Clock, Mailbox } from "../../../platform/index.ts";
import { mailboxGone, mailboxSilent } from "./errors.ts";

/** What a host does with an object on its way: hands it on, changes it, or loses it (undefined). */
export type Carrier = (object: Uint8Array, way: "to-device" | "from-device") => Uint8Array | undefined;

interface SimulatedMailboxOptions {
  readonly name: string;
  readonly clock: Clock;
  /** The device's answer; undefined if it has none. */
  readonly answer: (object: Uint8Array) => Uint8Array | undefined;
  readonly isGone: () => boolean;
  /** One way, milliseconds. Default 0.05. */
  readonly latencyMs?: number;
  /** How long an answer is waited for, milliseconds. Default 1000. */
  readonly timeoutMs?: number;
}

/** The mailbox of a device's function 0. */
export class SimulatedMailbox implements Mailbox {
  /** A host in the middle. */
  carrier: Carrier | undefined;
  /** Objects that were sent. */
  sent = 0;
  readonly #options: SimulatedMailboxOptions;

  /** Empty. Made with its device. */
  constructor(options: SimulatedMailboxOptions) {
    this.#options = options;
  }

  exchange(object: Uint8Array): Promise<Uint8Array> {
    const { name, clock, isGone, latencyMs = 0.05, timeoutMs = 1000 } = this.#options;
    this.sent++;
    return new Promise((resolve, reject) => {
      const lost = (): void => void clock.after(timeoutMs, () => reject(mailboxSilent(name, timeoutMs)));
      clock.after(latencyMs, () => {
        if (isGone()) return reject(mailboxGone(name));
        const arrived = this.#carry(object, "to-device");
        const answer = arrived && this.#options.answer(arrived);
        const back = answer && this.#carry(answer, "from-device");
        if (!back) return lost();
        clock.after(latencyMs, () => (isGone() ? reject(mailboxGone(name)) : resolve(back)));
      });
    });
  }

  #carry(object: Uint8Array, way: "to-device" | "from-device"): Uint8Array | undefined {
    return this.carrier ? this.carrier(object.slice(), way) : object;
  }
}
