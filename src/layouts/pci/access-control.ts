/**
 * Access control services of a PCI port.
 *
 * Specified by: PCI Express base specification, 6.12 and 7.7.8.
 */

/** Bits of the ACS control register. */
export const ACS = {
  sourceValidation: 0x01,
  translationBlocking: 0x02,
  requestRedirect: 0x04,
  completionRedirect: 0x08,
  upstreamForwarding: 0x10,
  egressControl: 0x20,
  directTranslated: 0x40,
} as const;
