/**
 * The mapping contract: what a device of a confidential guest may be given, by its trust and by the memory.
 *
 * Idea: one table, as a function, and one object for each door that a driver holds. What the driver says (`shared`) and what
 * the page is must agree: an address has one bit that says so. A contract is over when the trust of its device changes: then
 * nothing new is mapped through that door, and what is mapped can still be taken back.
 * Goes beyond Linux 7.2, which has the untrusted rows on its direct path only.
 */
import { type PhysAddr, PhysPage, pagesTouched } from "../../../base/index.ts";
import type { DmaAttributes, MappingContract } from "../../../dma/index.ts";
import type { MemoryEncryption, Sharing } from "../../../platform/index.ts";
import { contractOver, mixedPiece, peerNotBound, privateDeviceMemory, sharingDiffers } from "../errors.ts";

/** What is to be mapped. */
export interface MemoryTerms {
  /** RAM, or memory of a device. */
  readonly kind: "ram" | "mmio";
  /** What the pages are. */
  readonly page: Sharing;
  /** The mapping says that the memory is shared. */
  readonly saysShared: boolean;
  /** No bounce, no syncs. */
  readonly requireCoherent?: boolean;
}

/** How it is mapped, or why not. */
export type ContractAnswer =
  | "bounced"
  | "direct, T=0"
  | "translated, T=1"
  | "peer, T=1, if it is bound"
  | {
      /**
       * EPERM: the trust forbids it; EINVAL: what the mapping says and what the page is differ; EOPNOTSUPP: no way leads
       * there.
       */
      readonly refused: "EPERM" | "EINVAL" | "EOPNOTSUPP";
    };

/** The table: trust and memory in, the way out. */
export function contractAnswer(trust: "untrusted" | "trusted", memory: MemoryTerms): ContractAnswer {
  const { kind, page, saysShared, requireCoherent = false } = memory;
  if (saysShared !== (page === "shared")) {
    // An untrusted device may be given shared memory without a word: it is copied like any other.
    if (trust === "trusted" || saysShared) return { refused: "EINVAL" };
    if (kind === "mmio") return { refused: "EPERM" };
  }
  // A device inside the trust and one outside have nothing to say to each other, whatever anybody says of the memory.
  if (trust === "trusted" && kind === "mmio" && saysShared) return { refused: "EPERM" };
  if (saysShared) return "direct, T=0";
  if (trust === "untrusted") return kind === "mmio" || requireCoherent ? { refused: "EPERM" } : "bounced";
  return kind === "mmio" ? "peer, T=1, if it is bound" : "translated, T=1";
}

interface ContractOptions {
  readonly device: string;
  readonly trust: "untrusted" | "trusted";
  readonly encryption: MemoryEncryption;
  /** May private memory of a device be reached: its own, or a peer's that is bound? */
  readonly reachesDevice: (phys: PhysAddr) => boolean;
  /** Is this memory of a device? */
  readonly isDeviceMemory: (phys: PhysAddr) => boolean;
}

/** The contract of one door. */
export class Contract implements MappingContract {
  readonly #options: ContractOptions;
  #over: string | undefined;

  /** Made by {@link TeeDevice.openDma}: holds until it is ended. */
  constructor(options: ContractOptions) {
    this.#options = options;
  }

  /** Nothing is mapped from here on. @param why what the driver is told */
  end(why: string): void {
    this.#over ??= why;
  }

  /** It was only ended for a try that failed: it holds again. */
  resume(): void {
    this.#over = undefined;
  }

  /** It was ended: nothing more is mapped through its door. */
  get isOver(): boolean {
    return this.#over !== undefined;
  }

  check(): void {
    if (this.#over !== undefined) throw contractOver(this.#options.device, this.#over);
  }

  checkPiece(phys: PhysAddr, length: number, attributes: DmaAttributes | undefined): void {
    this.check();
    const { device, trust, reachesDevice, isDeviceMemory } = this.#options;
    const page = this.#sharingOf(phys, length);
    const saysShared = attributes?.shared === true;
    const kind = attributes?.mmio === true || isDeviceMemory(phys) ? "mmio" : "ram";
    const answer = contractAnswer(trust, { kind, page, saysShared });
    if (answer === "peer, T=1, if it is bound" && !reachesDevice(phys)) throw peerNotBound(device, phys);
    if (typeof answer === "string") return;
    if (answer.refused === "EINVAL") throw sharingDiffers(device, phys, page);
    // A bounce that is not allowed is refused by the path, with its own words; device memory has no path to do it.
    if (kind === "mmio") throw privateDeviceMemory(device, phys, page);
  }

  /** What the pages of a piece are: all the same, or it is no piece. */
  #sharingOf(phys: PhysAddr, length: number): Sharing {
    const { encryption, device, trust } = this.#options;
    const first = PhysPage.of(phys);
    const isPrivate = encryption.isPrivate(first);
    const pages = pagesTouched(phys, length);
    for (let i = 1; i < pages; i++)
      if (encryption.isPrivate(PhysPage.add(first, i)) !== isPrivate) {
        // A copy can be made of anything; an address says one thing.
        if (trust === "untrusted") return "private";
        throw mixedPiece(device, PhysPage.start(PhysPage.add(first, i)));
      }
    return isPrivate ? "private" : "shared";
  }
}
