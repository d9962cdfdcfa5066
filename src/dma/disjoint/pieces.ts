/** Input pieces as mapping wants them: cut where the way to the memory changes, joined where memory goes on. */
import type { PhysAddr } from "../../base/index.ts";
import { chunksOf, eachPart } from "../../p2p/index.ts";
import type { DmaDevice } from "../device.ts";
import { peerUnreachable } from "../errors.ts";
import type { PhysVec } from "../vectors.ts";

/** A run of physical memory that is reached one way. */
export interface Piece {
  readonly phys: PhysAddr;
  length: number;
  readonly way: "memory" | "bus" | "host-bridge";
  /** What the bus adds to the physical address, for `bus`. */
  readonly busOffset: number;
}

/** @throws DmaError ERR_DMA_PEER (EREMOTEIO) */
export function piecesOf(device: DmaDevice, vecs: readonly PhysVec[]): Piece[] {
  const { peers } = device.machine;
  const pieces: Piece[] = [];
  const add = (phys: PhysAddr, length: number, way: Piece["way"], busOffset: number): void => {
    const last = pieces.at(-1);
    if (last && last.phys + last.length === phys && last.way === way && last.busOffset === busOffset)
      last.length += length;
    else pieces.push({ phys, length, way, busOffset });
  };
  if (peers === undefined) for (const { phys, length } of vecs) add(phys, length, "memory", 0);
  else
    for (const chunk of chunksOf(vecs, peers, device.node)) {
      const { type, provider } = chunk;
      eachPart(vecs, chunk, (phys, length) => {
        if (type === "not-supported") throw peerUnreachable(device.name, phys);
        if (type === "bus-address") add(phys, length, "bus", provider?.busOffset ?? 0);
        else add(phys, length, type === "none" ? "memory" : "host-bridge", 0);
      });
    }
  return pieces;
}
