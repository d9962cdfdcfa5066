/**
 * An access: a part of the kernel that uses a user's memory through an address space, as a device without an IOMMU does.
 *
 * Idea: it either pins pages and keeps them until told to let go, or reads and writes without keeping anything.
 * Promises: a failed pin keeps nothing; what is unmapped is let go of first, or the unmap fails.
 * Specified by: behaviour of Linux 7.2 (iommufd_access); judged by test/golden/iommufd.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { UserAddr } from "../../platform/index.ts";
import type { Area } from "./area.ts";
import { badArgument, badFile, noPermission, notMapped, unreachable, wraps } from "./errors.ts";
import type { Ioas } from "./ioas.ts";
import type { FailurePoint } from "./memory.ts";
import type { IommufdObject } from "./objects.ts";
import { LAST_IOVA } from "./ranges.ts";

/** What an access is told, and how it uses memory. */
export interface AccessOptions {
  /** It pins pages: areas must be of whole pages. */
  readonly pins: boolean;
  /** Pages at [iova, iova + length) go: let go of them now. Absent: it holds none. */
  readonly onUnmap?: (iova: bigint, length: bigint) => void;
  /** For tests. */
  readonly failurePoint?: FailurePoint | undefined;
}

/** Part of the kernel that uses memory of an address space. */
export class Access implements IommufdObject {
  readonly kind = "access";
  id = 0;
  users = 1; // its owner
  /** What areas of its space must be aligned to: bytes. */
  readonly alignment: number;
  readonly #options: AccessOptions;
  #ioas: Ioas | undefined;
  readonly #onEnd: () => void;

  /** Made by {@link IommufdMemory.createAccess}; `onEnd` is called once, when it has let go of all. */
  constructor(options: AccessOptions, onEnd: () => void = () => {}) {
    this.#options = options;
    this.alignment = options.pins ? PAGE_SIZE : 1;
    this.#onEnd = onEnd;
  }

  /** The space that it uses; undefined: none. */
  get ioas(): Ioas | undefined {
    return this.#ioas;
  }

  /**
   * Uses another space from now on, or none; what it held in the old one is let go of.
   *
   * @throws DmaError ERR_DMA_IOVA_RANGE (EADDRINUSE); it stays where it was
   */
  use(ioas: Ioas | undefined): void {
    const old = this.#ioas;
    if (old === ioas) return;
    ioas?.addAccess(this);
    if (ioas) ioas.users++;
    if (old) {
      this.#options.onUnmap?.(0n, LAST_IOVA);
      old.removeAccess(this);
      old.users--;
    }
    this.#ioas = ioas;
  }

  /** For the space: pages go. */
  tellUnmap(iova: bigint, length: bigint): void {
    this.#options.onUnmap?.(iova, length);
  }

  /**
   * Pins the pages of [iova, iova + length), until {@link unpin} with the same.
   *
   * @param lock no one may unmap them meanwhile
   * @returns their numbers
   * @throws DmaError ENOENT for a hole or without a space; EINVAL, EOVERFLOW, EPERM, EFAULT, ENOMEM; nothing is pinned then
   */
  pin(iova: bigint, length: bigint, write: boolean, lock = false): number[] {
    const ioas = this.#check(iova, length);
    const last = iova + length - 1n;
    const pages: number[] = [];
    const held: [Area, number, number][] = [];
    try {
      for (const [area, first, end] of ioas.areasAt(iova, last)) {
        if (area.isClosed) throw notMapped(first, length, "the area is being made");
        if (area.refusesAccess || !isOfWholePages(area, first, end, last))
          throw badArgument("the area goes, or its pages are not whole");
        if (!(write ? area.access.write : area.access.read))
          throw noPermission(`the area may not be ${write ? "written" : "read"}`);
        const [from, to] = [area.indexAt(first), area.indexAt(end)];
        for (const page of area.memory.hold(from, to, write)) pages.push(page);
        area.accesses++;
        if (lock) area.locks++;
        held.push([area, from, to]);
      }
    } catch (error) {
      for (const [area, from, to] of held) letGo(area, from, to, lock);
      throw error;
    }
    return pages;
  }

  /** Ends one {@link pin} of exactly this range. */
  unpin(iova: bigint, length: bigint, lock = false): void {
    const last = iova + length - 1n;
    for (const [area, first, end] of this.#ioas!.areasAt(iova, last))
      letGo(area, area.indexAt(first), area.indexAt(end), lock);
  }

  /**
   * Reads or writes bytes at `iova`, and keeps nothing.
   *
   * @throws DmaError ENOENT, EINVAL, EOVERFLOW, EPERM, EFAULT: areas before the one that failed have been read or written
   */
  copy(iova: bigint, bytes: Uint8Array, write: boolean): void {
    this.#options.failurePoint?.("spare");
    const ioas = this.#check(iova, BigInt(bytes.length));
    let done = 0;
    for (const [area, first, end] of ioas.areasAt(iova, iova + BigInt(bytes.length) - 1n)) {
      if (area.isClosed) throw notMapped(first, 1n, "the area is being made");
      if (area.refusesAccess) throw badArgument("the area goes");
      if (!(write ? area.access.write : area.access.read))
        throw noPermission(`the area may not be ${write ? "written" : "read"}`);
      const part = bytes.subarray(done, done + Number(end - first + 1n));
      copyPart(area, area.byteAt(first), part, write);
      done += part.length;
    }
  }

  #check(iova: bigint, length: bigint): Ioas {
    if (length === 0n) throw badArgument("length 0");
    if (iova + length - 1n > LAST_IOVA) throw wraps(iova, length);
    if (!this.#ioas) throw notMapped(iova, length, "the access has no address space");
    return this.#ioas;
  }

  end(): void {
    this.use(undefined);
    this.#onEnd();
  }
}

/** The part begins with a page, and ends with one unless it is the last. */
function isOfWholePages(area: Area, first: bigint, end: bigint, last: bigint): boolean {
  if (area.byteAt(first) % 4096n !== 0n) return false;
  return end === last || (area.byteAt(end) + 1n) % 4096n === 0n;
}

function letGo(area: Area, from: number, to: number, lock: boolean): void {
  area.memory.letGo(from, to);
  area.accesses--;
  if (lock) area.locks--;
}

/** Bytes of the memory itself: of the process, or of the file. */
function copyPart(area: Area, startByte: bigint, bytes: Uint8Array, write: boolean): void {
  const { memory } = area;
  const { source } = memory;
  const at = memory.startPageByte + startByte;
  if (source.kind === "buffer") throw badFile("EINVAL", "a DMA buffer of a device cannot be reached by the CPU");
  let done: number;
  if (source.kind === "user") {
    const user = memory.payer.memory;
    if (user.isGone || at >= 2n ** 47n) throw unreachable(at, bytes.length);
    done = write ? user.write(UserAddr(Number(at)), bytes) : user.read(UserAddr(Number(at)), bytes);
  } else {
    const { file } = source;
    if (!file) throw badFile("EINVAL", "this kind of file has no memory");
    done = write ? file.write(Number(at), bytes) : file.read(Number(at), bytes);
  }
  if (done < bytes.length) throw unreachable(at, bytes.length);
}
