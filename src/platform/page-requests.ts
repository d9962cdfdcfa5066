/**
 * Requests for pages that a device cannot reach yet, and their answers (PCIe page request interface), as a unit hands them
 * over.
 *
 * Requests come in groups; each group goes to the handler of its device and PASID, which answers once, now or later.
 * Specified by: PCI Express base specification 6.0, 10.4.
 */
import type { IovaPage } from "../base/index.ts";

/** One request, as it was read. `pasid` is undefined for requests without. */
export interface PageRequest {
  /** The device that asks: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** Which of the device's address spaces, 20 bits; undefined: the one of requests without a PASID. */
  readonly pasid: number | undefined;
  /** The page that it needs. */
  readonly page: IovaPage;
  /** It wants to read there. */
  readonly read: boolean;
  /** It wants to write there. */
  readonly write: boolean;
  /** It wants to fetch instructions there. */
  readonly execute: boolean;
  /** It asks as a supervisor, not as a user. */
  readonly privileged: boolean;
}

/** `success`: the pages are there now, ask again. `invalid`: they never will be. `failure`: the device must not ask again. */
export type PageResponseCode = "success" | "invalid" | "failure";

/** Requests that the device wants answered together. */
export interface PageRequestGroup {
  /** The device that asks: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** Which of the device's address spaces, 20 bits; undefined: the one of requests without a PASID. */
  readonly pasid: number | undefined;
  /** The device's number for the group, 0 to 511. */
  readonly index: number;
  /** In the order of arrival. */
  readonly requests: readonly PageRequest[];
  /** Answers the device. Only the first answer counts; when the device was detached none does. */
  respond(code: PageResponseCode): void;
}

/** Makes the pages reachable, or not, and answers; may take its time. */
export type PageRequestHandler = (group: PageRequestGroup) => void;

/** What a unit has received. */
export interface PageRequests {
  /** From now on `handler` gets the groups of this device and PASID; undefined: nobody does, and they are answered `invalid`. */
  setHandler(requester: number, pasid: number | undefined, handler: PageRequestHandler | undefined): void;
  /** Hands over every request that has arrived: how many. For the unit's page-request interrupt, or at any time. */
  process(): number;
}
