/** The trusted side of a simulated machine: what hardware and firmware do for confidential guests and their devices. */
export { type Certificate, leafOf, Vendor } from "./certificates.ts";
export {
  DeviceInterface,
  type InterfaceErrorCause,
  type InterfaceEvent,
  type InterfaceHost,
  type InterfaceRange,
  type LockedConfiguration,
} from "./device-interface.ts";
export { sha256 } from "./digest.ts";
export { SimulatedFirmware } from "./firmware.ts";
export { type RefusedAccess, SHARED_BIT, TrustGate } from "./gate.ts";
export { GuestPciDevice } from "./guest-device.ts";
export { GuestInterface } from "./guest-interface.ts";
export { type GuestNumber, GuestPages, type PageState } from "./guest-pages.ts";
export { IdeEnd, type IdeEndOptions, type InsecureCause, type SealedPacket } from "./ide-end.ts";
export { IdealKeys } from "./keys.ts";
export { type Carrier, SimulatedMailbox } from "./mailbox.ts";
export { firmwareDigest, SecureDevice, type SecureDeviceOptions, SecureFunction } from "./secure-device.ts";
export { SpdmRequester } from "./spdm-requester.ts";
export { SpdmResponder } from "./spdm-responder.ts";
export { answerTdisp } from "./tdisp-responder.ts";
export {
  type AssignedFunction,
  type GuestSide,
  type PlugOptions,
  TeeMachine,
  type TeeMachineOptions,
} from "./tee-machine.ts";
export { Tvm, type TvmOptions } from "./tvm.ts";
export { Wire, type WireSight } from "./wire.ts";
