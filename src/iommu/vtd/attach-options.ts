/** What is known of a device when it is attached to a VT-d unit. */
import type { Requester } from "../../platform/index.ts";

/** A device that keeps translations of its own (PCIe address translation services). */
export interface AtsTraits {
  /** Invalidations that it takes at once, 1 to 32; 0 means 32. */
  readonly queueDepth: number;
  /** Smallest translation unit, as a power of two of pages; must be 0. */
  readonly stu: number;
  /** Its physical function, if it is a virtual one. */
  readonly physicalFunction?: Requester;
  /** It forgets reliably only when told twice. */
  readonly twice?: boolean;
}

export interface AttachOptions {
  /** 0 unless said: requests without PASID. */
  readonly pasid?: number;
  /** Of the device; taken from its first attachment. */
  readonly ats?: AtsTraits;
  /** An untrusted device gets no device TLB. */
  readonly trusted?: boolean;
  /** Bits of the PASIDs that the device can send; those of the unit unless said. */
  readonly pasidBits?: number;
  /** The device may ask for pages (see `VtdUnit.pageRequests`); it needs a TLB for that, and the unit scalable mode. */
  readonly pageRequests?: boolean;
}
