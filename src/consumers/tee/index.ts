/** Devices inside a confidential guest's trust: securing links on the host, and taking a device over in the guest. */
export * from "./guest/index.ts";
export * from "./ide/index.ts";
export * from "./link/index.ts";
