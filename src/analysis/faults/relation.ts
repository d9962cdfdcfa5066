/**
 * What a fault has to do with the mappings of a recording: the words for it.
 *
 * Idea: the relation is what the recording shows (was the address mapped, then or before, beside it, or never), a cause is what explains it.
 * A fault has one relation and may have several possible causes, of which the best comes first.
 */
import type { Confidence, Relation } from "../findings/finding.ts";
import type { Holder } from "./address-history.ts";

export type Cause =
  /** The mapping does not allow what the device tried. */
  | "wrong-direction"
  /** Two-step: linked, and not promised to the device yet. */
  | "not-synced"
  /** Two-step: inside of the range, where nothing is linked. */
  | "not-linked"
  /** Mapped and allowed: a cache of the IOMMU or the device did not know it yet, or still knew what was there before. */
  | "stale-translation"
  /** Used after its unmap. */
  | "used-after-unmap"
  /** Read or written past the end, or before the beginning. */
  | "past-the-end"
  | "before-the-start"
  /** The device or a bus drives fewer address bits than the mapping has. */
  | "address-cut"
  /** The device was given the memory's own address. */
  | "physical-address"
  /** The device was given another device's address, or asks under another's name. */
  | "other-device"
  /** Address 0: the device was given none. */
  | "no-address"
  /** The device was given the address that means "mapping failed". */
  | "failed-address"
  /** The device has no mapping at all in the recording. */
  | "maps-nothing"
  /** No event of the recording names a device, so whose its mappings are is not known. */
  | "no-device-named"
  /** Mapped before the recording began, for all that is known. */
  | "from-before"
  /** The IOMMU has no tables for the device at all. */
  | "not-attached"
  /** Nothing in the recording explains it. */
  | "unexplained";

export interface Hypothesis {
  readonly relation: Relation;
  readonly cause: Cause;
  readonly confidence: Confidence;
  /** The mapping that it is about. */
  readonly holder: Holder | undefined;
  /** Near: bytes between the mapping and the address. */
  readonly distanceBytes: number | undefined;
  /** Near: on which side of the mapping the address lies. */
  readonly side: "behind" | "before" | undefined;
  /** Cut: address bits that were left. */
  readonly bits: number | undefined;
}
