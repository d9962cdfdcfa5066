/**
 * Chunks: cuts a list of physical ranges where the way to the memory changes.
 *
 * Idea: a chunk is consecutive bytes of the list that are all RAM, or all of one provider. The way is worked out once per chunk, never
 * per page. A range may cross from one BAR into the next, so a chunk begins and ends anywhere.
 * Promises: the chunks in order are the list, byte for byte, and two neighbours differ.
 */
import type { PhysAddr } from "../base/index.ts";
import type { PciNode } from "../platform/index.ts";
import type { P2pMapType } from "./route.ts";
import type { P2pProvider, P2pRouter } from "./router.ts";

/** A physical range. */
export interface PhysRange {
  readonly phys: PhysAddr;
  readonly length: number;
}

/** A run of bytes of a list that go one way. */
interface P2pChunk {
  readonly type: P2pMapType;
  /** undefined: RAM. */
  readonly provider: P2pProvider | undefined;
  /** Range of the list in which it begins, and the offset there. */
  readonly firstRange: number;
  readonly firstOffset: number;
  /** Bytes. */
  readonly length: number;
}

/** The chunks of `ranges` for a client; `undefined` stands for one that is no PCI device. Empty ranges are left out. */
export function chunksOf(ranges: readonly PhysRange[], router: P2pRouter, client: PciNode | undefined): P2pChunk[] {
  const chunks: P2pChunk[] = [];
  let index = 0;
  let offset = 0;
  while (index < ranges.length) {
    const first = ranges[index]!;
    if (first.length === offset) {
      index++;
      offset = 0;
      continue;
    }
    let peers = router.rangeOf((first.phys + offset) as PhysAddr);
    const { provider } = peers;
    const [firstRange, firstOffset] = [index, offset];
    let length = 0;
    while (index < ranges.length) {
      const range = ranges[index]!;
      const phys = range.phys + offset;
      let piece = range.length - offset;
      // Nearly always all of it lies in the stretch that was looked up last.
      if (piece > 0 && (phys < peers.low || phys + piece > peers.high)) {
        if (phys < peers.low || phys >= peers.high) {
          const next = router.rangeOf(phys as PhysAddr);
          if (next.provider !== provider) break; // two stretches of RAM, though apart, go one way
          peers = next;
        }
        piece = Math.min(piece, peers.high - phys);
      }
      length += piece;
      offset += piece;
      if (offset === range.length) {
        index++;
        offset = 0;
      }
    }
    const type = provider === undefined ? "none" : router.mapType(provider, client);
    chunks.push({ type, provider, firstRange, firstOffset, length });
  }
  return chunks;
}

/** Visits the parts of the list that a chunk is made of, in order. */
export function eachPart(
  ranges: readonly PhysRange[],
  chunk: P2pChunk,
  visit: (phys: PhysAddr, length: number) => void,
): void {
  let offset = chunk.firstOffset;
  let left = chunk.length;
  for (let i = chunk.firstRange; left > 0; i++) {
    const range = ranges[i]!;
    const piece = Math.min(range.length - offset, left);
    if (piece > 0) visit((range.phys + offset) as PhysAddr, piece);
    left -= piece;
    offset = 0;
  }
}
