/**
 * A controller memory buffer, lent to other devices as peer memory.
 *
 * Idea: the part of the BAR that queues do not need is registered as a provider; vectors in it may then be given to any device's
 * reads and writes, and the bytes go from device to device.
 * Promises: once given back, its addresses are nobody's. Whoever lends must end all transfers that use it first.
 * Specified by: behaviour of Linux 7.2 NVMe driver (what is registered, and what is published for others to find).
 */
import { MiB, type PhysAddr } from "../../base/index.ts";
import type { PhysVec } from "../../dma/index.ts";
import type { P2pProvider, P2pRouter } from "../../p2p/index.ts";
import type { PciBar, PciNode } from "../../platform/index.ts";
import type { Cmb } from "./cmb.ts";

/** Start and length must be multiples of this: memory is added to a machine in such pieces. */
const GRANULE: number = 2 * MiB;

/** Memory of a controller that others transfer to and from, given out in pieces. */
export class PeerMemory implements Disposable {
  /** The memory as routers of peers know it. */
  readonly provider: P2pProvider;
  readonly #router: P2pRouter;

  constructor(router: P2pRouter, provider: P2pProvider) {
    this.#router = router;
    this.provider = provider;
  }

  /** Bytes that are lent. */
  get length(): number {
    return this.provider.bar.length;
  }

  /** Bytes [offset, + length) of it, as mapping calls take them. */
  vec(offset: number, length: number): PhysVec {
    return { phys: (this.provider.bar.phys + offset) as PhysAddr, length };
  }

  /** A second time does nothing. */
  [Symbol.dispose](): void {
    this.#router.remove(this.provider);
  }
}

/**
 * Registers `cmb` but for its first `taken` bytes; `bar` is where the host has put the BAR that it is in. `undefined` if it
 * cannot hold data both ways, or is not in whole pieces.
 *
 * @throws DmaError as {@link P2pRouter.add}
 */
export function lend(cmb: Cmb, taken: number, bar: PciBar, owner: PciNode, router: P2pRouter): PeerMemory | undefined {
  const from = Math.ceil(taken / GRANULE) * GRANULE;
  const phys = (bar.phys + cmb.offset + from) as PhysAddr;
  const length = Math.floor((cmb.length - from) / GRANULE) * GRANULE;
  if (!cmb.holdsData || phys % GRANULE !== 0 || length <= 0) return undefined;
  const busAddress = cmb.busAddress + from;
  return new PeerMemory(router, router.add(owner, { index: cmb.bar, phys, length, busAddress }, true));
}
