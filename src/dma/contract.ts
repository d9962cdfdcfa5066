/**
 * What a device may be given, where that can change while its driver holds a `Dma`: a device that enters or leaves the trust
 * of a confidential guest.
 *
 * Idea: the contract is asked before anything is mapped, and says no by an error; what is mapped already is its owner's to
 * take back, and that cannot fail. Contracts are made and enforced in consumers/tee; the DMA layer only asks them.
 */
import type { DmaAttributes, PhysAddr } from "../base/index.ts";

export interface MappingContract {
  /** Before addresses are reserved, or memory is allocated. @throws DmaError if the contract is over */
  check(): void;
  /** Before a piece of memory is mapped. @throws DmaError if it is over, or does not allow this */
  checkPiece(phys: PhysAddr, length: number, attributes: DmaAttributes | undefined): void;
}
