/** Peer-to-peer: may these two devices reach each other, and by which address. */
export { chunksOf, eachPart, type PhysRange } from "./chunks.ts";
export * from "./errors.ts";
export { type AllowedBridge, type P2pMapType, routeBetween } from "./route.ts";
export { P2pProvider, P2pRouter, type P2pRouterOptions, type P2pState, type PeerRange } from "./router.ts";
