/** Encrypted streams between a root port and a device: pools, order, registers. */
export { IdePort } from "./ide-port.ts";
export { BRIDGE_STREAMS, IdeBridge, IdeStream, type StreamSetup, type StreamStep } from "./ide-streams.ts";
