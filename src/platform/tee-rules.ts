/**
 * What must never happen around trusted devices, by number: errors and logs of refused accesses name the rule.
 *
 * Specified by: the rules of this model for devices in confidential guests (docs/trusted-devices.md).
 */

/** A rule, by its number. */
export const TEE_RULES: Readonly<Record<TeeRule, string>> = {
  1: "START without LOCK, or with a nonce that is wrong or used",
  2: "LOCK while transfers are outstanding, or with BARs that overlap",
  3: "a request with the T bit from an interface that does not run",
  4: "access without the T bit to private memory, or to memory of a trusted interface",
  5: "private memory mapped for an untrusted device without a bounce",
  6: "a bounce of private memory for a trusted device",
  7: "memory said to be shared that is private, or the other way round",
  8: "a change of what is locked that does not end the trust",
  9: "an interface bound to a second guest",
  10: "a guest's request to debug",
  11: "device memory in the report that is not where the guest sees it",
  12: "requests between a private and a shared device",
  13: "conversion of memory that is mapped",
  14: "a stream id that is used twice",
};

/** A number of a rule. */
export type TeeRule = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14;
