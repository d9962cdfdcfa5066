/**
 * The kernel's own transfers: pieces of physical memory to or from a peer, without a scatterlist.
 *
 * Idea: one work request with one piece where all of the memory fits into one reserved range (two steps: reserve, link each, one sync); a chain of
 * requests with a piece for each part where it does not; a region of its own where the adapter wants a key. Whether the parts join is
 * asked *before* anything is linked: inner edges on granules, one kind of memory.
 * Promises: a failure leaves nothing mapped. Releasing cannot go the wrong way: a transfer knows how it was made.
 * Not for: memory of programs, which have regions.
 * Specified by: behaviour of Linux 7.2 rdma_rw_ctx_init_bvec, rdma_rw_init_iova_wrs_bvec. Linux does not ask before, nor does it tell peer
 * memory from other: there a link that fails ends the transfer.
 */
import type { DmaAddr } from "../../base/index.ts";
import type { Direction, Dma, DmaAttributes, IovaRange, PhysVec } from "../../dma/index.ts";
import { LOCAL_DMA_KEY, type WorkPiece } from "../../layouts/rdma/index.ts";
import type { P2pState } from "../../p2p/index.ts";
import type { RdmaDevice } from "./device.ts";
import { badArgument, peerMemoryOutOfReach } from "./errors.ts";
import type { SendRequest } from "./queue-pair.ts";
import type { RegistrationPool, TransferRegions } from "./registration-pool.ts";

/** A transfer to set up. */
export interface TransferOptions {
  /** For which device. */
  readonly device: RdmaDevice;
  /** `write`: this memory goes to the peer; `read`: the peer's comes here. */
  readonly work: "read" | "write";
  /** Memory of this side, in order. */
  readonly vecs: readonly PhysVec[];
  /** Where, as the peer's region counts. */
  readonly remoteAddress: number;
  /** Remote key of that region. */
  readonly remoteKey: number;
  /** The memory gets a key of its own, from this pool: for adapters that need one. Not unless said. */
  readonly registration?: RegistrationPool;
}

/** How a transfer's memory is reached. */
export type TransferKind =
  /** One part, mapped in one shot. */
  | "single"
  /** All parts in one reserved range. */
  | "linked"
  /** Each part by itself. */
  | "pieces"
  /** Under keys of its own. */
  | "registered";

interface Mapped {
  readonly address: DmaAddr;
  readonly length: number;
  readonly attributes: DmaAttributes | undefined;
  /** A peer's address on the bus: nothing is mapped. */
  readonly isBus: boolean;
}

/** What a part of memory is to the device. */
type PartKind = "memory" | "through-host-bridge" | "bus-address";

const PEER: DmaAttributes = { mmio: true };
/** Bytes that one piece can have. */
const MOST_PIECE = 2 ** 32 - 1;

/** Memory of a transfer, mapped for the device until {@link Transfer.release}. */
export class Transfer implements Disposable {
  /** In which form it was mapped. */
  readonly kind: TransferKind;
  /** Bytes of all parts. */
  readonly totalBytes: number;
  readonly #options: TransferOptions;
  readonly #dma: Dma;
  readonly #direction: Direction;
  readonly #mapped: Mapped[] = [];
  #range: IovaRange | undefined;
  #regions: TransferRegions | undefined;
  #released = false;

  /**
   * @throws DmaError ERR_DMA_RDMA_ARGUMENT (EINVAL) for no parts or no bytes; ERR_DMA_RDMA_PEER (EREMOTEIO); ERR_DMA_RDMA_POOL (EAGAIN); as
   *   `IovaRange.link`, `Dma.mapPhys`, `Dma.mapScatterlist`; nothing is left then
   */
  constructor(options: TransferOptions) {
    const { device, work, vecs, registration } = options;
    const { adapter, dma } = device;
    if (!adapter || !dma) throw badArgument("a software device has no transfers: it copies");
    this.#options = options;
    this.#dma = dma;
    this.#direction = work === "write" ? "to-device" : "from-device";
    this.totalBytes = vecs.reduce((sum, { length }) => sum + length, 0);
    if (vecs.length === 0 || this.totalBytes === 0) throw badArgument("a transfer of nothing");
    try {
      if (registration) {
        this.kind = "registered";
        this.#regions = registration.register(vecs, this.#direction);
        return;
      }
      const kinds = kindsOf(dma, vecs);
      if (
        vecs.length > 1 &&
        this.totalBytes <= Math.min(adapter.maxMessageBytes, MOST_PIECE) &&
        joins(dma, vecs, kinds)
      ) {
        this.#range = dma.tryReserveIova({ length: this.totalBytes, physOffset: vecs[0]!.phys });
        if (this.#range) {
          this.kind = "linked";
          this.#link(this.#range, kinds[0]!);
          return;
        }
      }
      this.kind = vecs.length === 1 ? "single" : "pieces";
      this.#mapEach(kinds);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /**
   * The requests, in order: to be posted one after the other. Only the last is signaled.
   *
   * @param id names the last; those before it have the same name
   */
  requests(id: number): SendRequest[] {
    const { work, remoteAddress, remoteKey, device } = this.#options;
    const pieces = this.#pieces();
    const requests: SendRequest[] = [];
    const most = this.kind === "registered" ? 1 : device.adapter!.maxPieces;
    let remote = remoteAddress;
    for (let at = 0; at < pieces.length; at += most) {
      const some = pieces.slice(at, at + most);
      const signaled = at + most >= pieces.length;
      requests.push({ work, id, pieces: some, remoteAddress: remote, remoteKey, signaled });
      remote += some.reduce((sum, { length }) => sum + length, 0);
    }
    return requests;
  }

  /** Slots of a send queue that it takes. */
  get slots(): number {
    return this.requests(0).length;
  }

  /** Unmaps everything; bytes that came are in place. A second time does nothing. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#regions?.release();
    this.#range?.destroy(undefined, { direction: this.#direction });
    for (const { address, length, attributes, isBus } of this.#mapped)
      if (!isBus) this.#dma.unmapPhys(address, length, this.#direction, attributes);
    this.#mapped.length = 0;
  }

  /** As `release`, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }

  #pieces(): WorkPiece[] {
    if (this.#regions) return [...this.#regions.pieces];
    if (this.#range) return [{ address: this.#range.address, length: this.totalBytes, key: LOCAL_DMA_KEY }];
    return this.#mapped.map(({ address, length }) => ({ address, length, key: LOCAL_DMA_KEY }));
  }

  #link(range: IovaRange, kind: PartKind): void {
    const attributes = kind === "through-host-bridge" ? PEER : undefined;
    let offset = 0;
    for (const { phys, length } of this.#options.vecs) {
      range.link(offset, phys, length, this.#direction, attributes);
      offset += length;
    }
    range.sync();
  }

  #mapEach(kinds: readonly PartKind[]): void {
    const state: P2pState = { type: undefined, provider: undefined };
    const { peers } = this.#dma.device.machine;
    this.#options.vecs.forEach(({ phys, length }, i) => {
      const kind = kinds[i]!;
      if (kind === "bus-address") {
        peers!.stateOf(state, phys, this.#dma.device.node);
        const address = state.provider!.busAddress(phys);
        this.#mapped.push({ address, length, attributes: undefined, isBus: true });
        return;
      }
      const attributes = kind === "through-host-bridge" ? PEER : undefined;
      const address = this.#dma.mapPhys(phys, length, this.#direction, attributes);
      this.#mapped.push({ address, length, attributes, isBus: false });
    });
  }
}

/** @throws DmaError ERR_DMA_RDMA_PEER (EREMOTEIO) */
function kindsOf(dma: Dma, vecs: readonly PhysVec[]): PartKind[] {
  const { device } = dma;
  const { peers } = device.machine;
  const state: P2pState = { type: undefined, provider: undefined };
  return vecs.map(({ phys }) => {
    const type = peers?.stateOf(state, phys, device.node) ?? "none";
    if (type === "not-supported") throw peerMemoryOutOfReach(device.name, phys);
    return type === "none" ? "memory" : type;
  });
}

/** The parts can lie in one range, one behind the other: inner edges on granules, and all of one kind that is mapped. */
function joins(dma: Dma, vecs: readonly PhysVec[], kinds: readonly PartKind[]): boolean {
  const granule = dma.mergeBoundary + 1;
  if (granule === 1 || kinds[0] === "bus-address" || kinds.some((kind) => kind !== kinds[0])) return false;
  return vecs.every(({ phys, length }, i) => {
    const begins = i === 0 || phys % granule === 0;
    const ends = i === vecs.length - 1 || (phys + length) % granule === 0;
    return begins && ends;
  });
}
