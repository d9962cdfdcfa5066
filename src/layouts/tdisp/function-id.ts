/**
 * Function id: which function of a device a TDISP message is about.
 *
 * Specified by: TDISP (PCI Express base specification 6.1, 11.3); numbers as in DMTF's public definitions (libspdm, BSD).
 */

const SEGMENT_VALID = 0x0100_0000;

/**
 * The function id of a requester (`segment * 65536 + bus:device.function`): requester 15:0, segment 23:16, and bit 24 if
 * the segment counts, which it does unless it is 0.
 */
export const functionId = (requester: number): number => {
  const segment = Math.floor(requester / 65_536) & 0xff;
  return (requester & 0xffff) | (segment << 16) | (segment === 0 ? 0 : SEGMENT_VALID);
};

/** The requester that a function id names. Without the valid bit the segment is 0, whatever its bits say. */
export const requesterOf = (id: number): number => {
  const segment = (id & SEGMENT_VALID) === 0 ? 0 : (id >>> 16) & 0xff;
  return segment * 65_536 + (id & 0xffff);
};
