/**
 * A confidential guest's devices: those outside its trust, and those that it took in.
 *
 * Idea: what the guest has once (memory, bounce pool, book of pages, the unit that translates requests inside the trust) is
 * here; each device that was assigned to it is a {@link TeeDevice}. Also the place where devices that are inside find each
 * other.
 */
import type { PhysAddr } from "../../../base/index.ts";
import type { TeeGuestOptions } from "./guest-options.ts";
import { type OwningGuest, TeeDevice, type TeeDeviceOptions } from "./tee-device.ts";

/** The guest's half of all its devices. */
export class TeeGuest implements OwningGuest {
  /** What the guest has once, for all of its devices. */
  readonly options: TeeGuestOptions;
  readonly #devices: TeeDevice[] = [];
  #domains = 0;

  /** A guest without devices. */
  constructor(options: TeeGuestOptions) {
    this.options = options;
  }

  /** Those that were added and not removed, in that order. */
  get devices(): readonly TeeDevice[] {
    return this.#devices;
  }

  /** A device was assigned to the guest: outside its trust at first. */
  addDevice(options: TeeDeviceOptions): TeeDevice {
    const device = new TeeDevice(this, options);
    this.#devices.push(device);
    return device;
  }

  /** A device is the guest's no more: nothing more is mapped for it. It must be outside the trust. */
  removeDevice(device: TeeDevice): void {
    device.retire();
    const at = this.#devices.indexOf(device);
    if (at >= 0) this.#devices.splice(at, 1);
  }

  /** The device inside the trust whose memory this is. */
  ownerOf(phys: PhysAddr): TeeDevice | undefined {
    return this.#devices.find(({ bars }) => bars.some((bar) => phys >= bar.phys && phys < bar.phys + bar.length));
  }

  /** A number for a domain, each once. For {@link TeeDevice}. */
  nextDomain(): number {
    return ++this.#domains;
  }
}
