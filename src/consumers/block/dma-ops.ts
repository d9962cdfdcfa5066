/**
 * The mapping calls that the block layer makes for a request.
 *
 * Idea: what is asked for every request, in a form that makes no garbage; and peer memory, which the mapping calls do not
 * recognise by themselves, is looked up here.
 */
import type { Direction, DmaAddr, PhysAddr } from "../../base/index.ts";
import { type Dma, type DmaAttributes, IovaRange } from "../../dma/index.ts";
import type { P2pMapType, P2pProvider } from "../../p2p/index.ts";
import type { Provider } from "./vectors.ts";

/** How a device reaches the memory of a peer, and what to add to a physical address to get the one on the bus. */
export interface PeerRoute {
  /** `none` for RAM; else the way, or that there is none. */
  readonly type: P2pMapType;
  /** Bus address less physical address, bytes; 0 for RAM. */
  readonly busOffset: number;
}

/** Addresses for a whole request, as the iterator uses an {@link IovaRange}. */
export type RequestRange = Pick<IovaRange, "address" | "length" | "link" | "sync" | "destroy">;

/** What the block layer asks of DMA mapping. */
export interface DmaOps {
  /** Granule of the IOMMU less one; 0 without. */
  readonly mergeBoundary: number;
  /** False if unmapping does nothing: no IOMMU, coherent, nothing bounced. */
  readonly needsUnmap: boolean;
  /** Whose memory `phys` is; undefined for RAM. */
  providerOf(phys: number): Provider;
  /** How the device reaches memory of a provider at `phys`. */
  peerRoute(phys: number): PeerRoute;
  /**
   * Address space for `length` bytes that begin at `phys`; undefined if there is none: map piece by piece. `again` was given
   * back, and may be used once more.
   */
  tryReserveIova(length: number, phys: number, again?: RequestRange): RequestRange | undefined;
  /** @throws DmaError */
  mapPhys(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr;
  /** Undoes one `mapPhys`, with the same length, direction and attributes. Cannot fail. */
  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void;
}

const RAM: PeerRoute = { type: "none", busOffset: 0 };

/** Mapping by two steps, through a {@link Dma}. */
export class TwoStepOps implements DmaOps {
  /** Through which it maps. */
  readonly dma: Dma;
  readonly mergeBoundary: number;
  readonly #asked: { length: number; physOffset: number; reuse: IovaRange | undefined } = {
    length: 0,
    physOffset: 0,
    reuse: undefined,
  };

  /** Remembers the merge boundary of `dma`: of a device whose domain stays. */
  constructor(dma: Dma) {
    this.dma = dma;
    this.mergeBoundary = dma.mergeBoundary;
  }

  get needsUnmap(): boolean {
    return this.dma.needsUnmap;
  }

  providerOf(phys: number): P2pProvider | undefined {
    return this.dma.device.machine.peers?.providerOf(phys as PhysAddr);
  }

  peerRoute(phys: number): PeerRoute {
    const { peers } = this.dma.device.machine;
    const provider = this.providerOf(phys);
    if (!peers || !provider) return RAM;
    return { type: peers.mapType(provider, this.dma.device.node), busOffset: provider.busOffset };
  }

  tryReserveIova(length: number, phys: number, again?: RequestRange): RequestRange | undefined {
    this.#asked.reuse = again instanceof IovaRange ? again : undefined;
    this.#asked.length = length;
    this.#asked.physOffset = phys;
    return this.dma.tryReserveIova(this.#asked);
  }

  mapPhys(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    return this.dma.mapPhys(phys, length, direction, attributes);
  }

  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    this.dma.unmapPhys(address, length, direction, attributes);
  }
}
