/**
 * Private and shared memory of a simulated confidential guest.
 *
 * Idea: all RAM is private until it is converted, and all device memory is shared until the guest accepts it. Inside the trust boundary memory is plain; a device outside that touches
 * a private page is refused, or, where the machine only encrypts, sees ciphertext: bytes that the key has changed, so that
 * what it writes reads as garbage inside. Never plaintext.
 * Promises: a converted page is zeroed, so that neither side sees what the other had there; every touch of a private page
 * from outside is kept. Not for: cryptography; the cipher only keeps plaintext from being read.
 */
import { PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import type { MemoryEncryption } from "../../platform/index.ts";

/** What memory there is, and what outsiders see of private pages. */
export interface SimulatedEncryptionOptions {
  /** Is there RAM at this page, and not the memory of a device? */
  readonly isRam: (page: PhysPage) => boolean;
  /** Zeroes pages in memory, and takes them out of all caches. */
  readonly scrub: (first: PhysPage, pages: number) => void;
  /** What a device outside the trust boundary meets on a private page. `refused` unless said. */
  readonly outside?: "refused" | "ciphertext";
  /** The key of the cipher: any whole number. */
  readonly key?: number;
}

/** A device outside the trust boundary touched private memory. */
export interface PrivateTouch {
  /** Which device: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** The page that it touched. */
  readonly page: PhysPage;
  /** What it tried. */
  readonly access: "read" | "write";
}

/** Private and shared pages of a confidential guest, and what devices outside the trust boundary meet there. */
export class SimulatedEncryption implements MemoryEncryption {
  /** What a device outside meets at a private page: a refusal, or ciphertext. */
  readonly outside: "refused" | "ciphertext";
  /** Oldest first. */
  readonly touches: PrivateTouch[] = [];
  /** Conversions that fail from here on: for those who test what comes then. */
  failures = 0;
  readonly #options: SimulatedEncryptionOptions;
  readonly #key: number;
  /** Pages that are not as they were at the start: RAM that is shared, device memory that is private. */
  readonly #converted = new Set<PhysPage>();
  #privateDevicePages = 0;
  /** Pages whose conversion failed: their state is unknown, and they must not be used. */
  readonly #unusable = new Set<PhysPage>();

  /** All RAM is private at first. Made by {@link SimulatedMachine}. */
  constructor(options: SimulatedEncryptionOptions) {
    this.#options = options;
    this.outside = options.outside ?? "refused";
    this.#key = (options.key ?? 0) | 0;
  }

  /** Pages of RAM that are shared. */
  get sharedPages(): number {
    return this.#converted.size - this.#privateDevicePages;
  }

  /** Pages of device memory that are private. */
  get privateDevicePages(): number {
    return this.#privateDevicePages;
  }

  /** Pages whose conversion failed: nobody may use them any more. */
  get unusablePages(): number {
    return this.#unusable.size;
  }

  isPrivate(page: PhysPage): boolean {
    return this.#options.isRam(page) !== this.#converted.has(page);
  }

  convert(page: PhysPage, pages: number, to: "shared" | "private"): boolean {
    if (this.failures > 0) {
      this.failures--;
      for (let i = 0; i < pages; i++) this.#unusable.add((page + i) as PhysPage);
      return false;
    }
    this.#options.scrub(page, pages);
    for (let at = page; at < page + pages; at++)
      if (this.isPrivate(at as PhysPage) !== (to === "private")) this.#convert(at as PhysPage);
    return true;
  }

  /** A device outside touches a private page. Can the transfer go on, with ciphertext? */
  touched(requester: number, page: PhysPage, access: "read" | "write"): boolean {
    this.touches.push({ requester, page, access });
    return this.outside === "ciphertext";
  }

  /** Turns plaintext at `address` into ciphertext, and back. In place. */
  cipher(address: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i]! ^= this.#keystream(address + i);
  }

  #convert(page: PhysPage): void {
    const back = this.#converted.delete(page);
    if (!back) this.#converted.add(page);
    if (!this.#options.isRam(page)) this.#privateDevicePages += back ? -1 : 1;
  }

  /** A byte that depends on the key and all of the address, and is never 0: no byte is left as it was. */
  #keystream(address: number): number {
    const page = Math.floor(address / PAGE_SIZE);
    let mixed = Math.imul(page ^ this.#key, 0x9e3779b1) ^ Math.imul(Math.floor(page / 2 ** 32) + 1, 0x85ebca6b);
    mixed = Math.imul(mixed ^ (address % PAGE_SIZE), 0xc2b2ae35);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x21f0aaad);
    return 1 + ((mixed >>> 8) % 255);
  }
}
