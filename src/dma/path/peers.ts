/**
 * Which way a device reaches each entry of a list: memory, a peer's bus address, or a peer through the host bridge.
 *
 * Idea: the answer is worked out once per chunk (consecutive bytes of the list in one provider, or in RAM), never per page. On a machine without
 * registered peer memory nothing is asked at all.
 * Specified by: behaviour of Linux 7.2 peer-to-peer DMA.
 */
import type { PhysAddr } from "../../base/index.ts";
import type { P2pMapType, P2pState } from "../../p2p/index.ts";
import type { DmaDevice } from "../device.ts";
import { peerUnreachable } from "../errors.ts";
import { type Terms, withAttributes } from "../terms.ts";
import type { PhysVec } from "../vectors.ts";

/** How a chunk is reached; `busOffset` is what the bus adds to the CPU's address, for `bus-address`. */
export interface PeerRoute {
  readonly type: Exclude<P2pMapType, "not-supported">;
  readonly busOffset: number;
}

/** RAM, which every device reaches by its own path. */
export const MEMORY: PeerRoute = { type: "none", busOffset: 0 };

export class PeerChunks {
  readonly #device: DmaDevice;
  readonly #state: P2pState = { type: undefined, provider: undefined };
  #route: PeerRoute = MEMORY;

  constructor(device: DmaDevice) {
    this.#device = device;
  }

  /**
   * How memory at `phys` is reached.
   *
   * @throws DmaError ERR_DMA_PEER (EREMOTEIO) if it is not
   */
  at(phys: PhysAddr): PeerRoute {
    const { peers } = this.#device.machine;
    if (peers === undefined) return MEMORY;
    const before = this.#state.provider;
    const type = peers.stateOf(this.#state, phys, this.#device.node);
    if (type === "none") return MEMORY;
    if (type === "not-supported") throw peerUnreachable(this.#device.name, phys);
    const { provider } = this.#state;
    if (provider !== before || this.#route.type !== type)
      this.#route = { type, busOffset: type === "bus-address" ? (provider?.busOffset ?? 0) : 0 };
    return this.#route;
  }
}

/** A peer's memory, which no cache holds and no encryption covers. Linux takes it for RAM in lists. */
export function isPeer({ linuxCompatible, machine }: DmaDevice, phys: PhysAddr): boolean {
  return !linuxCompatible && machine.peers?.providerOf(phys) !== undefined;
}

/** The entries that the CPU caches: all but peers' memory. */
export function cachedEntries(device: DmaDevice, list: readonly PhysVec[]): readonly PhysVec[] {
  return list.some(({ phys }) => isPeer(device, phys)) ? list.filter(({ phys }) => !isPeer(device, phys)) : list;
}

/** The terms of memory that is reached by `route`: what goes through the host bridge is a device's, not RAM. */
export const reachedAs = (route: PeerRoute | undefined, terms: Terms): Terms =>
  route?.type === "through-host-bridge" ? withAttributes(terms, { mmio: true }) : terms;
