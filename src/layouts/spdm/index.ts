/** SPDM and the mailbox that carries it: how a device says who it is, and how a session with it begins. */
export * from "./certificate-chain.ts";
export * from "./data-objects.ts";
export * from "./measurements.ts";
export * from "./messages.ts";
export * from "./requests.ts";
export * from "./responses.ts";
export * from "./secured.ts";
export * from "./vendor-defined.ts";
