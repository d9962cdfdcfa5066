/** Cuts the input of a mapping into pieces: where the way to the memory changes, and where memory is not contiguous. */
import type { DmaAttributes, PhysAddr } from "../../base/index.ts";
import { chunksOf, eachPart } from "../../p2p/index.ts";
import type { DmaDevice } from "../device.ts";
import { peerUnreachable } from "../errors.ts";
import { MEMORY, type PeerRoute } from "../path/peers.ts";
import type { PhysVec } from "../vectors.ts";

/** Physically contiguous memory that is reached one way. Bytes. */
export interface Piece {
  readonly phys: PhysAddr;
  length: number;
  readonly route: PeerRoute;
}

/** @throws DmaError ERR_DMA_PEER (EREMOTEIO); what the device's contract says */
export function piecesOf(device: DmaDevice, vecs: readonly PhysVec[], attributes?: DmaAttributes): Piece[] {
  const { peers } = device.machine;
  if (device.contract) for (const { phys, length } of vecs) device.contract.checkPiece(phys, length, attributes);
  const pieces: Piece[] = [];
  const add = (phys: PhysAddr, length: number, route: PeerRoute): void => {
    const last = pieces.at(-1);
    const goesOn = last && last.phys + last.length === phys;
    if (goesOn && last.route.type === route.type && last.route.busOffset === route.busOffset) last.length += length;
    else pieces.push({ phys, length, route });
  };
  if (peers === undefined) for (const { phys, length } of vecs) add(phys, length, MEMORY);
  else
    for (const chunk of chunksOf(vecs, peers, device.node)) {
      const { type, provider } = chunk;
      eachPart(vecs, chunk, (phys, length) => {
        if (type === "not-supported") throw peerUnreachable(device.name, phys);
        add(phys, length, { type, busOffset: type === "bus-address" ? (provider?.busOffset ?? 0) : 0 });
      });
    }
  return pieces;
}
