/**
 * SGL lists read back: memory whose only record is the descriptors that the device was given.
 *
 * Not for controllers that are not trusted: what they may have overwritten is kept in host memory instead (segment-records.ts).
 */
import type { Direction, DmaAddr } from "../../base/index.ts";
import { get64, SGL, SGL_BYTES } from "../../layouts/nvme/index.ts";
import { attributesOfRoute, type DmaOps, type MappedRequest } from "../block/index.ts";

/** Takes the memory of descriptors [first, end) of a list away from the device, which must be done with it. */
export function unmapDescriptors(
  ops: DmaOps,
  list: DataView,
  first: number,
  end: number,
  direction: Direction,
  { peer }: MappedRequest,
): void {
  const attributes = attributesOfRoute(peer);
  for (let at = first * SGL_BYTES; at < end * SGL_BYTES; at += SGL_BYTES)
    ops.unmapPhys(get64(list, at) as DmaAddr, list.getUint32(at + SGL.length, true), direction, attributes);
}
