/**
 * The envelope in which TDISP and IDE key messages travel inside an SPDM session.
 *
 * Specified by: PCI Express base specification 6.1, 6.31.3 (SPDM vendor-defined messages of the PCI-SIG).
 */
import { PCI_SIG } from "./data-objects.ts";
import { joined, read16, word16 } from "./messages.ts";

/** The PCI-SIG among the standards bodies. */
const STANDARD = 3;

/** Which protocol a message belongs to. */
export const PROTOCOL = { ideKeys: 0, tdisp: 1 } as const;

/** A message in its envelope. */
export interface VendorDefined {
  /** One of {@link PROTOCOL}. */
  readonly protocol: number;
  readonly message: Uint8Array;
}

const ENVELOPE_BYTES = 7;

/** The envelope, behind an SPDM header. */
export const encodeVendorDefined = ({ protocol, message }: VendorDefined): Uint8Array =>
  joined(word16(STANDARD), [2], word16(PCI_SIG), word16(message.length + 1), [protocol], message);

/** What is in an envelope; undefined if it is not the PCI-SIG's, or shorter than it says. */
export function decodeVendorDefined(bytes: Uint8Array): VendorDefined | undefined {
  const isOurs = read16(bytes, 0) === STANDARD && bytes[2] === 2 && read16(bytes, 3) === PCI_SIG;
  const length = read16(bytes, 5);
  if (!isOurs || length < 1 || bytes.length < ENVELOPE_BYTES + length) return undefined;
  return {
    protocol: bytes[ENVELOPE_BYTES]!,
    message: bytes.slice(ENVELOPE_BYTES + 1, ENVELOPE_BYTES + length),
  };
}
