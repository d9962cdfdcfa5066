/**
 * Memory of a process that stays where it is for as long as a device may use it: pinned, charged, mapped.
 *
 * Idea: the account comes first, so that a range that is too large costs no pins; then pages are pinned in batches and joined where
 * they lie side by side; then all are mapped at once. Peer memory may lie between: each run is mapped for what it is.
 * Promises: a failure at any step leaves nothing pinned, charged or mapped. Whatever the process does with the range meanwhile, the
 * device keeps the pages that it has. Pages that are registered twice count twice.
 * Not for: pages that come when they are needed (on-demand.ts); keys (region.ts).
 * Specified by: behaviour of Linux 7.2 ib_umem_get, ib_umem_release; judged by test/golden (umem).
 */
import { PAGE_SIZE, type PhysAddr, PhysPage } from "../../base/index.ts";
import type { Dma, DmaVec, PhysVec, ScatterlistMapping } from "../../dma/index.ts";
import { ACCESS, isWritableAccess } from "../../layouts/rdma/index.ts";
import { UserAddr, type UserMemory, type UserProcess } from "../../platform/index.ts";
import {
  accessUnsupported,
  badRegion,
  copiesNeeded,
  lockingForbidden,
  mappingFailed,
  outsideRegion,
  tooMuchPinned,
} from "./errors.ts";

/** Memory to pin, and for whom. */
export interface PinnedMemoryOptions {
  /** Whose memory. */
  readonly process: UserProcess;
  /** First byte, in the process. */
  readonly address: number;
  /** How many bytes. */
  readonly length: number;
  /** {@link ACCESS} bits: whether anything of them writes decides how the pages are pinned. */
  readonly access: number;
  /** The front door of the device; without one it is software, and uses the pages as the CPU does. */
  readonly dma?: Dma;
  /** The device's accesses pass through bounce slots if they must: only where program and device never use a page at the same time. */
  readonly mayBounce?: boolean;
}

/** End of all addresses. */
const ADDRESS_END = 2 ** 64;
/** Pages that a region can have. */
const MOST_PAGES = 2 ** 32 - 1;
/** Pages that are pinned at a time: as many as a page of pointers holds. */
const BATCH = 512;

/**
 * A range of a process's memory, pinned and mapped for one device, until {@link PinnedMemory.release}.
 */
export class PinnedMemory implements Disposable {
  /** First byte, in the process. */
  readonly address: number;
  /** How many. */
  readonly length: number;
  /** The pages were pinned for writing. */
  readonly writable: boolean;
  /** Pages of 4 KiB that it touches: each is pinned once. */
  readonly pages: number;
  /** What was pinned, side by side pages joined up to the device's longest segment. */
  readonly runs: readonly PhysVec[];
  readonly #memory: UserMemory;
  readonly #mapping: ScatterlistMapping | undefined;
  readonly #copies: boolean;
  #released = false;

  /**
   * @throws DmaError, in this order: ERR_DMA_RDMA_BOUNCE (EOPNOTSUPP) in a confidential guest; ERR_DMA_RDMA_RANGE (EINVAL);
   *   ERR_DMA_RDMA_LOCKING (EPERM); ERR_DMA_RDMA_UNSUPPORTED (EOPNOTSUPP) for access on demand; ERR_DMA_RDMA_RANGE (EINVAL);
   *   ERR_DMA_RDMA_PINNED (ENOMEM); ERR_DMA_USER_FAULT (EFAULT), ERR_DMA_USER_MEMORY (ENOMEM); ERR_DMA_RDMA_MAP (EIO)
   */
  constructor({ process, address, length, access, dma, mayBounce = false }: PinnedMemoryOptions) {
    if (!mayBounce && dma?.device.machine.encryption !== undefined && dma.device.tdi !== "run")
      throw copiesNeeded(dma.device.name, "the guest's memory is private");
    const first = Math.floor(address / PAGE_SIZE);
    const end = address + length;
    if (!(address >= 0 && length >= 0) || Math.ceil(end / PAGE_SIZE) * PAGE_SIZE >= ADDRESS_END)
      throw badRegion(address, length, "it goes past the last address");
    const limit = process.memlockBytes;
    const isFree = process.has("IPC_LOCK");
    if (limit === 0 && !isFree) throw lockingForbidden();
    if ((access & ACCESS.onDemand) !== 0) throw accessUnsupported(access, "pinned memory is not on demand");
    const pages = length === 0 ? 0 : Math.ceil(end / PAGE_SIZE) - first;
    if (pages === 0 || pages > MOST_PAGES) throw badRegion(address, length, `a region has 1 to ${MOST_PAGES} pages`);
    const { memory } = process;
    const allowed = Math.floor(limit / PAGE_SIZE);
    if (memory.pinned.pages + pages > allowed && !isFree) throw tooMuchPinned(pages, memory.pinned.pages, allowed);
    this.address = address;
    this.length = length;
    this.writable = isWritableAccess(access);
    this.pages = pages;
    this.#memory = memory;
    this.#copies = mayBounce;
    memory.pinned.pages += pages;
    try {
      this.runs = pinAll(memory, first, pages, this.writable, dma);
    } catch (error) {
      memory.pinned.pages -= pages;
      throw error;
    }
    try {
      this.#mapping = dma?.mapScatterlist(
        this.runs,
        "bidirectional",
        mayBounce ? undefined : { requireCoherent: true },
      );
    } catch (error) {
      unpinRuns(memory, this.runs, false);
      memory.pinned.pages -= pages;
      throw mappingFailed(dma?.device.name ?? "the device", error);
    }
  }

  /** Where it lies for the device, in order; of a software device where it lies. */
  get segments(): readonly DmaVec[] {
    return this.#mapping?.segments ?? this.runs.map(({ phys, length }) => ({ address: phys as never, length }));
  }

  /** Bytes of the first page before the region. */
  get firstOffset(): number {
    return this.address % PAGE_SIZE;
  }

  /** Some of it may be copies, which {@link toDevice} and {@link fromDevice} bring up to date. */
  get mayBeCopied(): boolean {
    return this.#copies;
  }

  /** What the program wrote is the device's to read. Needed only where {@link mayBeCopied}. */
  toDevice(): void {
    this.#mapping?.syncForDevice();
  }

  /** What the device wrote is the program's to read. Needed only where {@link mayBeCopied}. */
  fromDevice(): void {
    this.#mapping?.syncForCpu();
  }

  /**
   * Copies bytes of it as the kernel would: through the pages that are pinned, whatever the process maps there by now.
   *
   * @throws DmaError ERR_DMA_RDMA_OUTSIDE (EFAULT)
   */
  eachPiece(offset: number, length: number, visit: (phys: PhysAddr, at: number, bytes: number) => void): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.length))
      throw outsideRegion(offset, length, this.length);
    let runStart = -this.firstOffset;
    let at = 0;
    for (const run of this.runs) {
      const from = offset + at - runStart;
      if (from < run.length && at < length) {
        const bytes = Math.min(run.length - from, length - at);
        visit((run.phys + from) as PhysAddr, at, bytes);
        at += bytes;
      }
      runStart += run.length;
    }
  }

  /** Unmaps, unpins, and takes back what was charged. The device must not use it any more. A second time does nothing. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#mapping?.unmap();
    unpinRuns(this.#memory, this.runs, this.writable);
    this.#memory.pinned.pages -= this.pages;
  }

  /** As `release`, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }
}

/** Pins [first, first + count), and joins pages that lie side by side. Nothing is pinned if one of them cannot be. */
function pinAll(memory: UserMemory, first: number, count: number, write: boolean, dma: Dma | undefined): PhysVec[] {
  const longest = Math.max(PAGE_SIZE, Math.floor((dma?.device.maxSegmentSize ?? 2 ** 31) / PAGE_SIZE) * PAGE_SIZE);
  const options = { write, longTerm: true, peers: dma?.device.machine.peers !== undefined };
  const runs: { phys: PhysAddr; length: number }[] = [];
  const batch = new Float64Array(Math.min(BATCH, count));
  let open: { phys: PhysAddr; length: number } | undefined;
  try {
    for (let done = 0; done < count; ) {
      const asked = Math.min(BATCH, count - done);
      const got = memory.pin(UserAddr((first + done) * PAGE_SIZE), asked, batch, 0, options);
      for (let i = 0; i < got; i++) {
        const phys = (batch[i]! * PAGE_SIZE) as PhysAddr;
        if (open && open.phys + open.length === phys && open.length < longest && isSameMemory(memory, dma, phys)) {
          open.length += PAGE_SIZE;
        } else {
          open = { phys, length: PAGE_SIZE };
          runs.push(open);
        }
      }
      done += got;
    }
  } catch (error) {
    unpinRuns(memory, runs, false);
    throw error;
  }
  return runs;
}

/** The page and the one before it are of one owner: runs never mix memory of the system with that of devices, nor of two. */
function isSameMemory(memory: UserMemory, dma: Dma | undefined, phys: PhysAddr): boolean {
  const before = (phys - PAGE_SIZE) as PhysAddr;
  const peers = dma?.device.machine.peers;
  if (peers && peers.providerOf(phys) !== peers.providerOf(before)) return false;
  return memory.pages.ownerOf(PhysPage.of(phys)) === memory.pages.ownerOf(PhysPage.of(before));
}

function unpinRuns(memory: UserMemory, runs: readonly PhysVec[], dirty: boolean): void {
  for (const { phys, length } of runs) memory.pages.unpin((phys / PAGE_SIZE) as PhysPage, length / PAGE_SIZE, dirty);
}
