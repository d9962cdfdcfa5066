/** The host's half: security managers, the devices they secure, and what is shown of them. */
export { LinkCore, type LinkCoreOptions, REQUEST_SCOPE } from "./link-core.ts";
export { type LinkFile, LinkFiles } from "./link-files.ts";
export type { SecurityFunction } from "./security-function.ts";
export type {
  BoundInterface,
  DeviceSecurityOperations,
  FunctionContext,
  GuestAnswer,
  GuestRequest,
  LinkOperations,
  ManagerOperations,
  SecurityManager,
} from "./security-manager.ts";
