/**
 * Private and shared memory of a simulated confidential guest.
 *
 * Idea: all RAM is private until it is converted. Inside the trust boundary memory is plain; a device outside that touches
 * a private page is refused, or, where the machine only encrypts, sees ciphertext: bytes that the key has changed, so that
 * what it writes reads as garbage inside. Never plaintext.
 * Promises: a converted page is zeroed, so that neither side sees what the other had there; every touch of a private page
 * from outside is kept. Not for: cryptography; the cipher only makes sure that nobody reads plaintext by luck.
 */
import { PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import type { MemoryEncryption } from "../../platform/index.ts";

export interface SimulatedEncryptionOptions {
  /** Is there RAM at this page? Only RAM can be private. */
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
  readonly requester: number;
  readonly page: PhysPage;
  readonly access: "read" | "write";
}

export class SimulatedEncryption implements MemoryEncryption {
  readonly outside: "refused" | "ciphertext";
  /** Oldest first. */
  readonly touches: PrivateTouch[] = [];
  /** Conversions that fail from here on: for those who test what comes then. */
  failures = 0;
  readonly #options: SimulatedEncryptionOptions;
  readonly #key: number;
  readonly #shared = new Set<PhysPage>();
  /** Pages whose conversion failed: their state is unknown, and they must not be used. */
  readonly #unusable = new Set<PhysPage>();

  constructor(options: SimulatedEncryptionOptions) {
    this.#options = options;
    this.outside = options.outside ?? "refused";
    this.#key = (options.key ?? 0) | 0;
  }

  get sharedPages(): number {
    return this.#shared.size;
  }

  get unusablePages(): number {
    return this.#unusable.size;
  }

  isPrivate(page: PhysPage): boolean {
    return !this.#shared.has(page) && this.#options.isRam(page);
  }

  convert(page: PhysPage, pages: number, to: "shared" | "private"): boolean {
    if (this.failures > 0) {
      this.failures--;
      for (let i = 0; i < pages; i++) this.#unusable.add((page + i) as PhysPage);
      return false;
    }
    this.#options.scrub(page, pages);
    for (let i = 0; i < pages; i++)
      if (to === "shared") this.#shared.add((page + i) as PhysPage);
      else this.#shared.delete((page + i) as PhysPage);
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

  /** A byte that depends on the key and all of the address, and is never 0: no byte is left as it was. */
  #keystream(address: number): number {
    const page = Math.floor(address / PAGE_SIZE);
    let mixed = Math.imul(page ^ this.#key, 0x9e3779b1) ^ Math.imul(Math.floor(page / 2 ** 32) + 1, 0x85ebca6b);
    mixed = Math.imul(mixed ^ (address % PAGE_SIZE), 0xc2b2ae35);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x21f0aaad);
    return 1 + ((mixed >>> 8) % 255);
  }
}
