/**
 * Certificates of simulated devices: a subject, its key, and the issuer's signature over both.
 *
 * Idea: a vendor has a root that signs itself and issues one certificate for each device. What a verifier needs to believe is
 * the digest of the root.
 * Promises: {@link leafOf} answers only for a chain that is whole, and signed all the way down.
 * Not for: names, dates, revocation: X.509 has them, and a policy could ask for them.
 */
import type { Random } from "../../../base/index.ts";
import { decodeChain, encodeChain, joined, read16, word16 } from "../../../layouts/spdm/index.ts";
import { sameBytes, sha256, textBytes } from "./digest.ts";
import type { IdealKeys, KeyPair } from "./keys.ts";

/** A certificate. */
export interface Certificate {
  /** Whom it certifies. */
  readonly subject: string;
  /** That one's key. */
  readonly publicKey: Uint8Array;
}

const KEY_BYTES = 32;
const SIGNATURE_BYTES = 32;

const signedPart = ({ subject, publicKey }: Certificate): Uint8Array =>
  joined(word16(subject.length), textBytes(subject), publicKey);

/** Who makes devices, and says which ones it made. */
export class Vendor {
  /** For subjects and messages. */
  readonly name: string;
  /** The digest of its root: what a policy trusts. */
  readonly rootDigest: Uint8Array;
  readonly #keys: IdealKeys;
  readonly #root: KeyPair;
  readonly #rootCertificate: Uint8Array;

  /** Makes the root's key by chance, and its certificate. */
  constructor(keys: IdealKeys, random: Random, name: string) {
    this.#keys = keys;
    this.name = name;
    this.#root = keys.pair(random);
    this.#rootCertificate = this.#certificate({ subject: name, publicKey: this.#root.publicKey });
    this.rootDigest = sha256(this.#rootCertificate);
  }

  /** The chain for a device that this vendor made. */
  chainFor(device: Certificate): Uint8Array {
    const certificates = [this.#rootCertificate, this.#certificate(device)];
    return encodeChain({
      rootDigest: this.rootDigest,
      certificates: joined(...certificates.flatMap((each) => [word16(each.length), each])),
    });
  }

  #certificate(certificate: Certificate): Uint8Array {
    const signed = signedPart(certificate);
    return joined(signed, this.#keys.sign(this.#root, signed));
  }
}

/** The device that a chain certifies; undefined unless every signature in it is good and the root is the one it says. */
export function leafOf(keys: IdealKeys, chain: Uint8Array): Certificate | undefined {
  const parts = decodeChain(chain);
  if (!parts) return undefined;
  let issuer: Certificate | undefined;
  let at = 0;
  while (at < parts.certificates.length) {
    const length = read16(parts.certificates, at);
    const bytes = parts.certificates.subarray(at + 2, at + 2 + length);
    const certificate = bytes.length === length ? decode(bytes) : undefined;
    if (!certificate) return undefined;
    if (issuer === undefined && !sameBytes(sha256(bytes), parts.rootDigest)) return undefined;
    const signature = bytes.subarray(bytes.length - SIGNATURE_BYTES);
    const by = (issuer ?? certificate).publicKey;
    if (!keys.verify(by, signedPart(certificate), signature)) return undefined;
    issuer = certificate;
    at += 2 + length;
  }
  return issuer;
}

function decode(bytes: Uint8Array): Certificate | undefined {
  const keyAt = 2 + read16(bytes, 0);
  if (bytes.length !== keyAt + KEY_BYTES + SIGNATURE_BYTES) return undefined;
  const subject = new TextDecoder().decode(bytes.subarray(2, keyAt));
  return { subject, publicKey: bytes.slice(keyAt, keyAt + KEY_BYTES) };
}
