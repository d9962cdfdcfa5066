/** A whole machine on the move: from here, to there, and the stream between. */
export { FRAME, FRAME_HEADER_BYTES, FRAME_MOST_BYTES, type Frame, FrameReader, FrameWriter } from "./frames.ts";
export type { ByteLink } from "./link.ts";
export type { GuestProcessors, GuestRam, MovableDevice, MovableMachine } from "./movable-machine.ts";
export { type MoveCounts, type MoveOptions, type MoveOutcome, MoveSource } from "./move-source.ts";
export { type ArrivalOutcome, MoveTarget } from "./move-target.ts";
export { PeerStopCheck, type PeerStopFinding, runAll, stopAll } from "./stop-order.ts";
