/** TDISP: how a security manager and a device agree on an interface inside a guest's trust, message by message. */
export * from "./function-id.ts";
export * from "./messages.ts";
export * from "./report.ts";
export * from "./requests.ts";
export * from "./responses.ts";
