/** Pieces of work requests: bytes of a message that lie in several places. */
import type { WorkPiece } from "../../../../layouts/rdma/index.ts";
import type { Outcome, RnicRegions } from "./regions.ts";

/** Bytes of all pieces. */
export const piecesLength = (pieces: readonly WorkPiece[]): number =>
  pieces.reduce((sum, { length }) => sum + length, 0);

/** Pieces to access, and as whom. */
interface PiecesAccess {
  readonly regions: RnicRegions;
  readonly pieces: readonly WorkPiece[];
  /** Of the queue pair. */
  readonly domain: number;
  /** Access bits that each piece's region must have. */
  readonly asked: number;
  /** `gather`: from the pieces; `scatter`: into them. */
  readonly way: "gather" | "scatter";
}

/** Moves bytes between `bytes` and [offset, + its length) of the pieces. Keys are checked for each piece that is touched. */
export function movePieces(
  { regions, pieces, domain, asked, way }: PiecesAccess,
  offset: number,
  bytes: Uint8Array,
): Outcome {
  let start = 0;
  for (const { address, length, key } of pieces) {
    const from = Math.max(0, offset - start);
    const to = Math.min(length, offset + bytes.length - start);
    if (from < to) {
      if (!regions.allows(key, { domain }, asked, address, length)) return "denied";
      const part = bytes.subarray(start + from - offset, start + to - offset);
      const outcome =
        way === "gather" ? regions.read(key, address + from, part) : regions.write(key, address + from, part);
      if (outcome !== "done") return outcome;
    }
    start += length;
  }
  return "done";
}
