/**
 * Keys of simulated devices and managers: who can sign, and who agrees on a secret with whom.
 *
 * Idea: an *ideal* of cryptography. A signature can be made only by the holder of the key pair; who has the public key can
 * check it. The book of secrets behind it stands for the mathematics that a simulation does not need: nobody on a bus or in a
 * host has it. Real digests underneath (digest.ts), so that everything is a function of the seed.
 * Not for: keys of anybody.
 */
import type { Random } from "../../../base/index.ts";
import { keyed, sameBytes, sha256, textBytes } from "./digest.ts";

/** Whoever holds this value signs and agrees with it. */
export interface KeyPair {
  readonly publicKey: Uint8Array;
}

const SIGNATURE = textBytes("signature");
const AGREEMENT = textBytes("agreement");

/** Bytes by chance. */
export function randomBytes(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = random.below(256);
  return bytes;
}

const nameOf = (bytes: Uint8Array): string => bytes.join();

/** The mathematics of one machine. */
export class IdealKeys {
  readonly #secrets = new Map<string, Uint8Array>();

  /** A new pair, by chance. */
  pair(random: Random): KeyPair {
    const secret = randomBytes(random, 32);
    const publicKey = sha256(textBytes("public"), secret);
    this.#secrets.set(nameOf(publicKey), secret);
    return { publicKey };
  }

  /** 32 bytes that only the holder of the pair can make for these. */
  sign(pair: KeyPair, message: Uint8Array): Uint8Array {
    return keyed(this.#secretOf(pair.publicKey)!, SIGNATURE, message);
  }

  /** Did the holder of this key sign this? */
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    const secret = this.#secretOf(publicKey);
    return secret !== undefined && sameBytes(keyed(secret, SIGNATURE, message), signature);
  }

  /** A secret that two holders have in common, and nobody else; undefined if the other key is none. */
  agree(pair: KeyPair, other: Uint8Array): Uint8Array | undefined {
    const [own, its] = [this.#secretOf(pair.publicKey), this.#secretOf(other)];
    if (own === undefined || its === undefined) return undefined;
    // The same on both sides.
    return nameOf(own) < nameOf(its) ? keyed(own, AGREEMENT, its) : keyed(its, AGREEMENT, own);
  }

  #secretOf(publicKey: Uint8Array): Uint8Array | undefined {
    return this.#secrets.get(nameOf(publicKey));
  }
}
