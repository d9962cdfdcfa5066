/**
 * A certificate chain as a device gives it: its length, the digest of the root certificate, then the certificates, root first.
 *
 * What a certificate is stands nowhere here: whoever verifies knows (X.509 on hardware).
 * Specified by: DMTF DSP0274 1.2, table 33.
 */
import { DIGEST_BYTES, joined, read16, word16 } from "./messages.ts";

/** A chain. */
interface CertificateChain {
  readonly rootDigest: Uint8Array;
  /** All certificates, one after the other. */
  readonly certificates: Uint8Array;
}

/** A chain as it is stored and sent. */
export const encodeChain = ({ rootDigest, certificates }: CertificateChain): Uint8Array =>
  joined(word16(4 + rootDigest.length + certificates.length), word16(0), rootDigest, certificates);

/** The parts of a chain; undefined if it is none, whole and nothing more. */
export const decodeChain = (bytes: Uint8Array): CertificateChain | undefined =>
  bytes.length < 4 + DIGEST_BYTES || read16(bytes, 0) !== bytes.length
    ? undefined
    : { rootDigest: bytes.slice(4, 4 + DIGEST_BYTES), certificates: bytes.slice(4 + DIGEST_BYTES) };
