/** The guest's half: what a device must prove, what it may be given, and the way into the trust and out. */
export { Contract, type ContractAnswer, contractAnswer, type MemoryTerms } from "./contract.ts";
export type { LiveMappings } from "./device-book.ts";
export type { TeeGuestOptions } from "./guest-options.ts";
export {
  type InterfaceMemory,
  type JudgedDevice,
  type Judgement,
  judgeEvidence,
  type Reason,
  type ReasonCode,
  type VisibleBar,
} from "./judge.ts";
export { type AttestationPolicy, policyHex } from "./policy.ts";
export { type DoorOptions, TeeDevice, type TeeDeviceOptions, type Trust, type TrustCounters } from "./tee-device.ts";
export { TeeGuest } from "./tee-guest.ts";
