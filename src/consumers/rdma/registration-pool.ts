/**
 * Regions for one transfer each: keys and page lists that are made once and used again and again.
 *
 * Idea: a transfer whose memory needs a key takes a region from the pool, has the list written, and gives it back with the next variant of
 * its key, so that whoever kept the old one misses.
 * Specified by: behaviour of Linux 7.2 rdma_rw (registration) and ib_mr_pool.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Direction, DmaVec, PhysVec, ScatterlistMapping } from "../../dma/index.ts";
import { ACCESS, KEY, MTT, type WorkPiece } from "../../layouts/rdma/index.ts";
import type { RdmaDevice } from "./device.ts";
import { badArgument, poolEmpty } from "./errors.ts";
import { eachBlock, PageList } from "./page-list.ts";
import type { ProtectionDomain } from "./region.ts";

/** Memory of a transfer under keys. */
export interface TransferRegions {
  /** The memory, in order, as work requests name it. */
  readonly pieces: readonly WorkPiece[];
  /** The keys name nothing any more, and the memory is unmapped. */
  release(): void;
}

/** A pool to make. */
export interface RegistrationPoolOptions {
  /** Where keys come from. */
  readonly device: RdmaDevice;
  /** The protection domain of its regions. */
  readonly domain: ProtectionDomain;
  /** Regions. */
  readonly regions: number;
  /** Pages of 4 KiB that one can have. */
  readonly pages: number;
}

interface PooledRegion {
  readonly list: PageList;
  key: number;
}

/** Regions that transfers take and give back. */
export class RegistrationPool implements Disposable {
  readonly #options: RegistrationPoolOptions;
  readonly #free: PooledRegion[] = [];
  readonly #all: PooledRegion[] = [];

  /** @throws DmaError ERR_DMA_RDMA_ARGUMENT (EINVAL), ERR_DMA_RDMA_KEYS (ENOMEM), and as `Dma.allocCoherent`; nothing is left then */
  constructor(options: RegistrationPoolOptions) {
    const { device, regions, pages } = options;
    if (!device.adapter || !device.dma) throw badArgument("a software device has no page lists");
    this.#options = options;
    try {
      for (let i = 0; i < regions; i++) {
        const region: PooledRegion = { list: new PageList(device.dma, pages), key: device.reserveKey() };
        this.#all.push(region);
        this.#free.push(region);
      }
    } catch (error) {
      this.free();
      throw error;
    }
  }

  /** Regions that nobody has taken. */
  get available(): number {
    return this.#free.length;
  }

  /**
   * Maps the memory, and puts it under as many keys as it needs: inner edges of one region lie on pages.
   *
   * @throws DmaError ERR_DMA_RDMA_POOL (EAGAIN), and as `Dma.mapScatterlist`; nothing is left then
   */
  register(vecs: readonly PhysVec[], direction: Direction): TransferRegions {
    const mapping = this.#options.device.dma!.mapScatterlist(vecs, direction);
    const groups = grouped(mapping.segments, this.#options.pages);
    if (groups.length > this.#free.length) {
      mapping.unmap();
      throw poolEmpty(groups.length, this.#free.length);
    }
    const taken = groups.map((group) => this.#fill(this.#free.pop()!, group));
    return {
      pieces: taken.map(({ piece }) => piece),
      release: () =>
        this.#release(
          taken.map(({ region }) => region),
          mapping,
        ),
    };
  }

  /** Nothing may be taken. A second time does nothing. */
  free(): void {
    for (const { list, key } of this.#all) {
      list.free();
      this.#options.device.releaseKey(key);
    }
    this.#all.length = 0;
    this.#free.length = 0;
  }

  /** As `free`, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }

  #fill(region: PooledRegion, runs: readonly DmaVec[]): { region: PooledRegion; piece: WorkPiece } {
    const { device, domain } = this.#options;
    const virt = runs[0]!.address;
    const length = runs.reduce((sum, run) => sum + run.length, 0);
    const firstOffset = virt % PAGE_SIZE;
    const [first, ...rest] = runs;
    const whole = [{ address: first!.address - firstOffset, length: first!.length + firstOffset }, ...rest];
    let entries = 0;
    eachBlock({ runs: whole, firstOffset, virt, length, blockBytes: PAGE_SIZE }, (index, address) => {
      region.list.set(index, address, MTT.read | MTT.write);
      entries++;
    });
    device.adapter!.putRegion({
      key: region.key,
      domain: domain.number,
      access: ACCESS.localWrite,
      virt,
      length,
      blockBytes: PAGE_SIZE,
      list: region.list.address,
      entries,
      listOf: "blocks",
      onDemand: false,
    });
    return { region, piece: { address: virt, length, key: region.key } };
  }

  #release(regions: readonly PooledRegion[], mapping: ScatterlistMapping): void {
    const { device } = this.#options;
    for (const region of regions) {
      device.adapter!.removeRegion(region.key);
      region.key = KEY.of(KEY.index(region.key), KEY.variant(region.key) + 1);
      this.#free.push(region);
    }
    mapping.unmap();
  }
}

/** Segments in groups that one page list can hold: whole pages but for the beginning and the end. */
function grouped(segments: readonly DmaVec[], most: number): DmaVec[][] {
  const groups: DmaVec[][] = [];
  let pages = 0;
  for (let segment of segments) {
    for (;;) {
      const inside = segment.address % PAGE_SIZE;
      const before = groups.at(-1)?.at(-1);
      const joins =
        before !== undefined && inside === 0 && (before.address + before.length) % PAGE_SIZE === 0 && pages < most;
      if (!joins) {
        groups.push([]);
        pages = 0;
      }
      const room = (most - pages) * PAGE_SIZE - inside;
      const length = Math.min(segment.length, room);
      groups.at(-1)!.push({ ...segment, length });
      pages += Math.ceil((inside + length) / PAGE_SIZE);
      if (length === segment.length) break;
      segment = { ...segment, address: (segment.address + length) as never, length: segment.length - length };
    }
  }
  return groups;
}
