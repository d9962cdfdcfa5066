/**
 * Peer memory: whose it is, and which way each device reaches it.
 *
 * Idea: every memory BAR that is registered is a provider. An address is looked up in the sorted list of them, and the
 * answer holds for the whole range between two borders, so a run of addresses in one range costs two comparisons each.
 * The way from a device to a provider is worked out once and remembered.
 * Promises: answers equal Linux's: a remembered type stays though access control bits change, until the distance is
 * asked. With `followAcs` it never stays: each question looks at the tree as it is.
 * Specified by: behaviour of Linux 7.2 peer-to-peer DMA; judged by test/golden (p2p-routes).
 */
import type { DmaAddr, PhysAddr, Random } from "../base/index.ts";
import type { PciBar, PciNode } from "../platform/index.ts";
import { badBar, overlappingBar } from "./errors.ts";
import { type AllowedBridge, type P2pMapType, routeBetween } from "./route.ts";

/** The memory behind one BAR, for other devices to reach. */
export class P2pProvider {
  /** The device whose memory it is. */
  readonly owner: PciNode;
  /** Where it lies. */
  readonly bar: PciBar;
  /** Others may find it by {@link P2pRouter.nearest}. */
  readonly published: boolean;

  constructor(owner: PciNode, bar: PciBar, published: boolean) {
    this.owner = owner;
    this.bar = bar;
    this.published = published;
  }

  /** Bus address less CPU address. */
  get busOffset(): number {
    return this.bar.busAddress - this.bar.phys;
  }

  /** What a device puts on the bus for `phys`, when the type is `bus-address`. */
  busAddress(phys: PhysAddr): DmaAddr {
    return (phys + this.busOffset) as DmaAddr;
  }
}

/** Addresses [low, high) with one answer: the memory of one provider, or what lies between two. */
export interface PeerRange {
  /** First CPU address, bytes. */
  readonly low: number;
  /** The CPU address after the last, bytes. */
  readonly high: number;
  /** Whose memory it is; undefined: no peer's. */
  readonly provider: P2pProvider | undefined;
}

/** What was found last in a run of look-ups for one client: reused while the provider stays the same. */
export interface P2pState {
  /** undefined: no peer memory was met yet. */
  type: P2pMapType | undefined;
  /** Whose memory was met last; undefined: nobody's. */
  provider: P2pProvider | undefined;
}

/** How routes are worked out. */
export interface P2pRouterOptions {
  /** Look at the access control bits at every question, instead of remembering the answer. Default false, as Linux. */
  readonly followAcs?: boolean;
  /** Host bridges that route between root ports, besides those of AMD processors from family 0x17 on. Default: none. */
  readonly allowedBridges?: readonly AllowedBridge[];
}

const NO_PEERS: PeerRange = { low: 0, high: Number.POSITIVE_INFINITY, provider: undefined };

/**
 * Which way each device reaches other devices' memory: on the bus, through the host bridge, or not at all. Answers
 * equal Linux 7.2's.
 */
export class P2pRouter {
  /** As it was asked for in the options: routes are worked out anew at each question. */
  readonly followAcs: boolean;
  readonly #allowed: readonly AllowedBridge[];
  /** By CPU address. */
  readonly #providers: P2pProvider[] = [];
  /** By owner, then by the client's requester id. */
  readonly #types = new Map<PciNode, Map<number, P2pMapType>>();
  /** All of the address space, in order. */
  #ranges: readonly PeerRange[] = [NO_PEERS];
  #last: PeerRange = NO_PEERS;

  /** Knows no peers yet. */
  constructor(options: P2pRouterOptions = {}) {
    this.followAcs = options.followAcs ?? false;
    this.#allowed = options.allowedBridges ?? [];
  }

  /** Every memory that is registered now, by CPU address. */
  get providers(): readonly P2pProvider[] {
    return this.#providers;
  }

  /**
   * From now on the addresses of `bar` are peer memory.
   *
   * @param published may be found by {@link nearest}
   * @throws DmaError ERR_DMA_P2P_BAR (EINVAL), ERR_DMA_P2P_OVERLAP (EEXIST)
   */
  add(owner: PciNode, bar: PciBar, published = false): P2pProvider {
    const { phys, length } = bar;
    if (!(phys >= 0 && length > 0 && phys % 4096 === 0 && length % 4096 === 0 && phys + length <= 2 ** 52))
      throw badBar(phys, length);
    const other = this.#providers.find(
      (each) => each.bar.phys < phys + length && phys < each.bar.phys + each.bar.length,
    );
    if (other) throw overlappingBar(phys, length, other.bar);
    const provider = new P2pProvider(owner, bar, published);
    this.#providers.push(provider);
    this.#providers.sort((a, b) => a.bar.phys - b.bar.phys);
    this.#drawRanges();
    return provider;
  }

  /** Its addresses are nobody's again; a second time does nothing. Mappings of it must be gone. */
  remove(provider: P2pProvider): void {
    const at = this.#providers.indexOf(provider);
    if (at < 0) return;
    this.#providers.splice(at, 1);
    this.#drawRanges();
    if (!this.#providers.some(({ owner }) => owner === provider.owner)) this.#types.delete(provider.owner);
  }

  /** Whose memory `phys` is; undefined: no peer's. Two comparisons if the last look-up was nearby, else a binary search. */
  providerOf(phys: PhysAddr): P2pProvider | undefined {
    return this.rangeOf(phys).provider;
  }

  /** The range around `phys` for which {@link providerOf} gives the same answer. Stays true until a provider comes or goes. */
  rangeOf(phys: PhysAddr): PeerRange {
    const last = this.#last;
    if (phys >= last.low && phys < last.high) return last;
    let low = 0;
    let high = this.#ranges.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]!.high <= phys) low = middle + 1;
      else high = middle;
    }
    this.#last = this.#ranges[low]!;
    return this.#last;
  }

  /** The way from `client` to the provider; `undefined` stands for a client that is no PCI device. */
  mapType(provider: P2pProvider, client: PciNode | undefined): P2pMapType {
    if (client === undefined) return "not-supported";
    if (this.followAcs) return routeBetween(provider.owner, client, this.#allowed).type;
    return this.#types.get(provider.owner)?.get(client.requester) ?? this.#workOut(provider.owner, client).type;
  }

  /** Steps between the two, or -1 if they cannot reach each other. Works the way out anew, and remembers its type. */
  distance(owner: PciNode, client: PciNode | undefined): number {
    if (client === undefined) return -1;
    const { type, steps } = this.#workOut(owner, client);
    return type === "not-supported" ? -1 : steps;
  }

  /**
   * The owner of published memory with the smallest sum of distances to all `clients`; undefined if there is none that
   * all of them reach. Among equals chance decides, or without `random` the lowest address.
   */
  nearest(clients: readonly (PciNode | undefined)[], random?: Random): PciNode | undefined {
    let best: PciNode[] = [];
    let least = Number.POSITIVE_INFINITY;
    const owners = new Set(this.#providers.filter(({ published }) => published).map(({ owner }) => owner));
    for (const owner of owners) {
      const distances = clients.map((client) => this.distance(owner, client));
      if (distances.includes(-1)) continue;
      const total = distances.reduce((sum, each) => sum + each, 0);
      if (total < least) {
        best = [];
        least = total;
      }
      if (total === least) best.push(owner);
    }
    return random && best.length > 0 ? random.pick(best) : best[0];
  }

  /**
   * The type for `phys`, and in `state` the provider it comes from; only another provider than the last is looked up.
   * RAM is `none` and leaves the state alone.
   */
  stateOf(state: P2pState, phys: PhysAddr, client: PciNode | undefined): P2pMapType {
    const provider = this.providerOf(phys);
    if (provider === undefined) return "none";
    if (state.provider !== provider || state.type === undefined) {
      state.provider = provider;
      state.type = this.mapType(provider, client);
    }
    return state.type;
  }

  #workOut(owner: PciNode, client: PciNode): ReturnType<typeof routeBetween> {
    const route = routeBetween(owner, client, this.#allowed);
    let types = this.#types.get(owner);
    if (types === undefined) {
      types = new Map();
      this.#types.set(owner, types);
    }
    types.set(client.requester, route.type);
    return route;
  }

  #drawRanges(): void {
    const ranges: PeerRange[] = [];
    let end = 0;
    for (const provider of this.#providers) {
      const { phys, length } = provider.bar;
      if (phys > end) ranges.push({ low: end, high: phys, provider: undefined });
      end = phys + length;
      ranges.push({ low: phys, high: end, provider });
    }
    ranges.push({ low: end, high: Number.POSITIVE_INFINITY, provider: undefined });
    this.#ranges = ranges;
    this.#last = ranges[0]!;
  }
}
