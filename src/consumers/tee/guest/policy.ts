/**
 * An attestation policy: what a guest demands of a device before it lets it in, as a value.
 *
 * Idea: nothing but data, so that it can be written down, compared, signed and sent; {@link judgeEvidence} (judge.ts) reads it.
 * What it does not name is refused: a policy that says nothing lets nobody in.
 */

/** What a guest demands. Digests are lower-case hex. */
export interface AttestationPolicy {
  /** Digests of root certificates whose devices are believed. */
  readonly roots: readonly string[];
  /** For each measurement, by its index: the values that are good. All that are named must be there. */
  readonly measurements: Readonly<Record<number, readonly string[]>>;
  /** Measurements that the policy does not name may be anything. Default false: they are refused. */
  readonly allowOtherMeasurements?: boolean;
  /** The device must not take new firmware while it is locked. Default true. */
  readonly noFirmwareUpdate?: boolean;
  /**
   * Device memory that may lie outside the trust: none; the MSI-X table and its pending bits, which say who is interrupted
   * and nothing else; or any. Default `msix`.
   */
  readonly outsideMemory?: "none" | "msix" | "any";
}

/** `bytes` as a policy writes them. */
export const policyHex = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
