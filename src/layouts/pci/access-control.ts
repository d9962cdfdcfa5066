/**
 * Access control services of a PCI port.
 *
 * Specified by: PCI Express base specification, 6.12 and 7.7.8.
 */

/** Bits of the ACS control register. */
export const ACS = {
  /** Requests must bear the name of a bus below the port. */
  sourceValidation: 0x01,
  /** Requests that say they are translated are blocked. */
  translationBlocking: 0x02,
  /** Peer requests go up to the root complex instead of straight across. */
  requestRedirect: 0x04,
  /** Completions for peers go up as well. */
  completionRedirect: 0x08,
  /** What comes from above and belongs above the port again is sent back up. */
  upstreamForwarding: 0x10,
  /** A vector of ports says which peers may be reached. */
  egressControl: 0x20,
  /** Translated peer requests go straight across in spite of `requestRedirect`. */
  directTranslated: 0x40,
} as const;
