/**
 * Memory of this process that devices may be given: buffers, and pages for descriptor rings.
 *
 * Idea: shared mappings (`mmap`), so that a fork does not copy pinned pages; a "physical" address is the process's own. What
 * is contiguous here is contiguous for the device, because the IOMMU makes it so.
 * Promises: a view never ends the process. `free` gives the memory back to the system at once, but the addresses only when
 * the view has been collected: until then it reads as zeros.
 * Not for: memory that is still mapped for DMA; unmap first, or the kernel keeps the pages pinned.
 */
import { PAGE_SIZE, type PhysAddr, type PhysPage, pagesOf } from "../../base/index.ts";
import type { HostBuffer, HostMemory, PageAllocator, PhysicalMemory } from "../../platform/index.ts";
import { badHugePage, badLength, bufferFreed, memoryClosed } from "./errors.ts";
import type { Fd, HugePage, Syscalls } from "./syscalls.ts";

/** Which kind of pages a buffer is made of. */
export interface AllocateOptions {
  /** Of huge pages, which somebody must have set aside: fewer page-table entries, and fewer misses of the IOTLB. */
  readonly hugePage?: HugePage;
  /** As a file that other processes can be given: {@link LinuxBuffer.fd}. */
  readonly shareable?: boolean;
  /** Keep it in memory from now on, and not only while it is mapped. */
  readonly locked?: boolean;
}

const HUGE_BYTES: Readonly<Record<HugePage, number>> = { "2 MiB": 2 ** 21, "1 GiB": 2 ** 30 };

/** Pages of a block that pages are taken from. */
const BLOCK_PAGES = 1024;

/** A piece of the process's memory, as long as somebody holds it. */
interface Region {
  readonly address: number;
  readonly bytes: Uint8Array;
}

/** Memory of this process that devices can be given: page aligned, never moved, huge pages where asked. */
export class LinuxMemory implements HostMemory, PageAllocator, PhysicalMemory {
  readonly #sys: Syscalls;
  /** By address, in order. */
  readonly #regions: Region[] = [];
  /** Free pages of the blocks: first page and number, in order, never adjacent. */
  readonly #free: { page: number; pages: number }[] = [];
  /** Takes the addresses back when nobody can look there any more. */
  readonly #collected: FinalizationRegistry<{ address: number; length: number }>;

  #closed = false;

  /** Takes nothing yet. Made by {@link LinuxHost}. */
  constructor(sys: Syscalls) {
    this.#sys = sys;
    this.#collected = new FinalizationRegistry(({ address, length }) => sys.munmap(address, length));
  }

  /**
   * Zeroed memory, whole pages.
   *
   * @throws DmaError ERR_DMA_LENGTH, ERR_DMA_LINUX_HUGE_PAGE (EINVAL), ERR_DMA_LINUX_CLOSED (ENODEV), ERR_DMA_SYSCALL (ENOMEM)
   */
  allocate(length: number, options: AllocateOptions = {}): LinuxBuffer {
    if (!(Number.isSafeInteger(length) && length > 0)) throw badLength(length);
    const { hugePage, shareable, locked } = options;
    if (hugePage !== undefined && !Object.hasOwn(HUGE_BYTES, hugePage))
      throw badHugePage(hugePage, Object.keys(HUGE_BYTES));
    if (this.#closed) throw memoryClosed(length);
    const unit = hugePage === undefined ? PAGE_SIZE : HUGE_BYTES[hugePage];
    const whole = Math.ceil(length / unit) * unit;
    const purpose = `allocate ${whole} bytes${hugePage === undefined ? "" : ` of ${hugePage} pages`}`;
    const fd = shareable ? this.#sys.memfd("dmalink", whole, hugePage, purpose) : undefined;
    let region: Region;
    try {
      region = this.#map(whole, { hugePage, ...(fd !== undefined && { fd }) }, purpose);
      if (locked) this.#lock(region, whole);
    } catch (error) {
      if (fd !== undefined) this.#sys.close(fd);
      throw error;
    }
    return new LinuxBuffer(region.address as PhysAddr, length, region.bytes.subarray(0, length), fd, () => {
      this.#sys.discard(region.address, whole);
      this.#forget(region);
      if (fd !== undefined) this.#sys.close(fd);
    });
  }

  /** Gives out no more. What was given out stays its owners', who free it as ever. */
  close(): void {
    this.#closed = true;
  }

  /** Pages for rings and the like. `lastPage` says nothing here: devices see addresses of the IOMMU. */
  allocatePages(pages: number, _lastPage?: number): PhysPage | undefined {
    if (this.#closed) return undefined;
    const page = this.#takePages(pages) ?? this.#grow(pages);
    if (page === undefined) return undefined;
    this.view((page * PAGE_SIZE) as PhysAddr, pages * PAGE_SIZE)?.fill(0);
    return page as PhysPage;
  }

  freePages(page: PhysPage, pages: number): void {
    const free = this.#free;
    let place = free.findIndex((run) => run.page > page);
    if (place < 0) place = free.length;
    const before = free[place - 1];
    const after = free[place];
    if (before !== undefined && before.page + before.pages === page) {
      before.pages += pages;
      if (after !== undefined && before.page + before.pages === after.page) {
        before.pages += after.pages;
        free.splice(place, 1);
      }
    } else if (after !== undefined && page + pages === after.page) {
      after.page = page;
      after.pages += pages;
    } else free.splice(place, 0, { page, pages });
  }

  read(address: PhysAddr, into: Uint8Array): void {
    into.set(this.#bytesAt(address, into.length));
  }

  write(address: PhysAddr, from: Uint8Array): void {
    this.#bytesAt(address, from.length).set(from);
  }

  view(address: PhysAddr, length: number): Uint8Array | undefined {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#regions[middle]!.address > address) high = middle;
      else low = middle + 1;
    }
    const region = this.#regions[low - 1];
    if (region === undefined) return undefined;
    const offset = address - region.address;
    return offset + length <= region.bytes.length ? region.bytes.subarray(offset, offset + length) : undefined;
  }

  #bytesAt(address: PhysAddr, length: number): Uint8Array {
    const bytes = this.view(address, length);
    if (bytes === undefined) throw bufferFreed();
    return bytes;
  }

  #map(length: number, options: { fd?: Fd; hugePage: HugePage | undefined }, purpose: string): Region {
    const address = this.#sys.mmap(length, options, purpose);
    const buffer = this.#sys.view(address, length);
    this.#collected.register(buffer, { address, length });
    const region = { address, bytes: new Uint8Array(buffer) };
    const place = this.#regions.findIndex((other) => other.address > address);
    this.#regions.splice(place < 0 ? this.#regions.length : place, 0, region);
    return region;
  }

  #lock(region: Region, length: number): void {
    try {
      this.#sys.mlock(region.address, length, `lock ${length} bytes in memory`);
    } catch (error) {
      this.#forget(region);
      throw error;
    }
  }

  #forget(region: Region): void {
    this.#regions.splice(this.#regions.indexOf(region), 1);
  }

  #takePages(pages: number): number | undefined {
    const place = this.#free.findIndex((run) => run.pages >= pages);
    if (place < 0) return undefined;
    const run = this.#free[place]!;
    const { page } = run;
    if (run.pages === pages) this.#free.splice(place, 1);
    else {
      run.page += pages;
      run.pages -= pages;
    }
    return page;
  }

  #grow(pages: number): number | undefined {
    const length = Math.max(BLOCK_PAGES, pages) * PAGE_SIZE;
    try {
      const { address } = this.#map(length, { hugePage: undefined }, `take ${length} bytes for pages`);
      this.freePages((address / PAGE_SIZE) as PhysPage, pagesOf(length));
    } catch {
      return undefined; // an allocator that has none says so; it does not throw
    }
    return this.#takePages(pages);
  }
}

/** Memory that was allocated, until it is freed. */
export class LinuxBuffer implements HostBuffer, Disposable {
  readonly phys: PhysAddr;
  /** Bytes, as they were asked for. */
  readonly length: number;
  /** The memory as a file, if it was asked for. Closed by {@link free}. */
  readonly fd: Fd | undefined;
  #bytes: Uint8Array | undefined;
  readonly #release: () => void;

  /** Made by {@link LinuxMemory.allocate}. */
  constructor(phys: PhysAddr, length: number, bytes: Uint8Array, fd: Fd | undefined, release: () => void) {
    this.phys = phys;
    this.length = length;
    this.fd = fd;
    this.#bytes = bytes;
    this.#release = release;
  }

  /** @throws DmaError ERR_DMA_LINUX_FREED (EFAULT) after {@link free} */
  get bytes(): Uint8Array {
    if (this.#bytes === undefined) throw bufferFreed();
    return this.#bytes;
  }

  free(): void {
    if (this.#bytes === undefined) return;
    this.#bytes = undefined;
    this.#release();
  }

  /** As `free`, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }
}
