/**
 * The part of an iommufd that has to do with memory: address spaces, maps, copies, accesses, and who pays.
 *
 * Promises: a failed call leaves no object and no id behind. When the last holder lets go, everything is unmapped and unpinned.
 * Not for: devices and tables; they are added in iommufd.ts.
 * Specified by: behaviour of Linux 7.2 iommufd; judged by test/golden/iommufd.
 */
import type { OpenFile, UserProcess } from "../../platform/index.ts";
import { isMemoryFile } from "../../platform/index.ts";
import { isDmaBuf } from "../dmabuf/index.ts";
import { Access, type AccessOptions } from "./access.ts";
import { type AccountMode, type ChargedPages, Payer } from "./account.ts";
import { badArgument, badAttach, badFile, noCompatSpace, notPrivileged, wraps } from "./errors.ts";
import type { RangeBuffer } from "./hardware.ts";
import { ImportedBuffer } from "./imported-buffer.ts";
import { Ioas } from "./ioas.ts";
import { type FailurePoint, MappedMemory, type MemorySource } from "./memory.ts";
import { type IommufdObject, type ObjectKind, ObjectTable } from "./objects.ts";
import { LAST_IOVA } from "./ranges.ts";
import type { IoasRules } from "./rules.ts";

/** How an iommufd is made. */
export interface IommufdOptions {
  /** Whose counter pays for pins: `user` unless said. */
  readonly accountMode?: Exclude<AccountMode, "none">;
  /** Beyond Linux: pages are charged once to each user, over all that share this. */
  readonly chargedPages?: ChargedPages;
  /** Beyond Linux, by name. */
  readonly rules?: IoasRules;
  /** Devices whose interrupts are not isolated are bound nevertheless. */
  readonly allowUnsafeInterrupts?: boolean;
  /** Pages that one call pins at most: 8192 unless said. */
  readonly pinBatchPages?: number;
  /** For tests. */
  readonly failurePoint?: FailurePoint;
}

/** What to map: where it is, and what devices may do. Addresses are bigints, since they may be any 64 bits. */
export interface MapRequest {
  /** How many bytes. */
  readonly length: bigint;
  /** Chosen, unless said. */
  readonly iova?: bigint | undefined;
  /** Devices may read; true unless said. */
  readonly read?: boolean;
  /** Devices may write; true unless said. */
  readonly write?: boolean;
}

/** The part of an iommufd that maps memory. Made as an {@link Iommufd}. */
export class IommufdMemory implements OpenFile {
  readonly kind = "iommufd";
  /** Everything in it, by id. */
  readonly objects: ObjectTable = new ObjectTable();
  /** Where its spaces differ from Linux. */
  readonly rules: IoasRules;
  /** Whose account of pinned pages is charged, the user's or the process's. */
  accountMode: Exclude<AccountMode, "none">;
  /** The space of calls that are compatible with VFIO containers. */
  compatIoas: Ioas | undefined;
  /** As it was made. */
  protected readonly options: IommufdOptions;
  #holders = 0;

  /** Empty. Its first holder acquires it. */
  constructor(options: IommufdOptions = {}) {
    this.options = options;
    this.accountMode = options.accountMode ?? "user";
    this.rules = options.rules ?? {};
  }

  acquire(): void {
    this.#holders++;
  }

  /** With the last holder everything ends. */
  release(): void {
    this.#holders--;
    if (this.#holders > 0) return;
    this.objects.clear();
    this.compatIoas = undefined;
  }

  /** The object of an id. @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT) */
  protected lookUp(kind: ObjectKind, id: number): IommufdObject {
    this.options.failurePoint?.("lookup");
    return this.objects.of(kind, id);
  }

  /** @throws DmaError EPERM without the privilege; EBUSY once there are objects */
  setAccountMode(mode: Exclude<AccountMode, "none">, process: UserProcess): void {
    if (!process.has("SYS_RESOURCE")) throw notPrivileged("changing who is charged needs CAP_SYS_RESOURCE");
    if (this.objects.size > 0) throw alreadyInUse();
    this.accountMode = mode;
  }

  /** An empty address space. */
  createIoas(): Ioas {
    return this.objects.add(new Ioas(this.rules));
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT) */
  ioas(id: number): Ioas {
    return this.lookUp("ioas", id) as Ioas;
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT), ERR_DMA_IOMMUFD_BUSY (EBUSY) */
  destroy(id: number): void {
    const object = this.objects.get(id);
    this.objects.destroy(id);
    if (object && object === this.compatIoas) this.compatIoas = undefined;
  }

  /** Maps memory of a process. Where. @throws DmaError as {@link Ioas.mapParts} */
  map(ioas: Ioas, process: UserProcess, address: bigint, request: MapRequest): bigint {
    mustAllowSomething(request);
    return this.mapAnyhow(ioas, process, address, request);
  }

  /** The same, and it may forbid devices everything: tables refuse that, but without one it holds its addresses. */
  mapAnyhow(ioas: Ioas, process: UserProcess, address: bigint, request: MapRequest): bigint {
    if (address + request.length > LAST_IOVA) throw wraps(address, request.length);
    return this.#mapSource(ioas, process, { kind: "user", address }, request);
  }

  /** Maps a file of memory, or a DMA buffer. Where. @throws DmaError EINVAL, ENODEV, EOPNOTSUPP; as {@link Ioas.mapParts} */
  mapFile(ioas: Ioas, process: UserProcess, file: OpenFile, start: bigint, request: MapRequest): bigint {
    mustAllowSomething(request);
    if (start + request.length - 1n > LAST_IOVA) throw wraps(start, request.length);
    const source = this.#sourceOf(file, start, request);
    return this.#mapSource(ioas, process, source, request);
  }

  #sourceOf(given: OpenFile, start: bigint, { length, write = true }: MapRequest): MemorySource {
    if (length === 0n) throw badArgument("length 0");
    const file = isDmaBuf(given) ? new ImportedBuffer(given) : given;
    if (isRangeBuffer(file)) {
      if (!file.givesRanges) throw badFile("EOPNOTSUPP", "this DMA buffer does not say where its memory is");
      if (start + length > BigInt(file.length)) throw badFile("EINVAL", "beyond the end of the DMA buffer");
      if (!file.range) throw badFile("ENODEV", "the DMA buffer was taken back");
      return { kind: "buffer", buffer: file, start };
    }
    const memory = isMemoryFile(file) ? file : undefined;
    if (this.rules.filesAreChecked) {
      if (!memory) throw badFile("EINVAL", "this kind of file cannot be mapped");
      if (write && (memory.seals.has("write") || memory.seals.has("future-write")))
        throw badFile("EPERM", "the file is sealed against writing");
    }
    return { kind: "file", file: memory, start };
  }

  #mapSource(ioas: Ioas, process: UserProcess, source: MemorySource, request: MapRequest): bigint {
    const { length, iova, read = true, write = true } = request;
    if (length === 0n || length > LAST_IOVA - 4096n) throw badArgument(`length ${length}`, { length });
    const memory = new MappedMemory(source, length, write, new Payer(process, this.accountMode), {
      once: this.options.chargedPages,
      pinBatchPages: this.options.pinBatchPages,
      failurePoint: this.options.failurePoint,
    });
    memory.acquire();
    try {
      const part = { memory, startByte: BigInt(memory.startOffset), length };
      return ioas.mapParts([part], iova, { read, write, mmio: source.kind === "buffer" });
    } finally {
      memory.release();
    }
  }

  /** Maps what `source` reaches at `sourceIova` in another space, or elsewhere in the same; pages are shared, and charged once. */
  copy(source: Ioas, sourceIova: bigint, to: Ioas, request: MapRequest): bigint {
    mustAllowSomething(request);
    const parts = source.partsAt(sourceIova, request.length);
    const { read = true, write = true } = request;
    for (const { memory } of parts) memory.acquire();
    try {
      const mmio = parts[0]!.memory.source.kind === "buffer";
      return to.mapParts(parts, request.iova, { read, write, mmio });
    } finally {
      for (const { memory } of parts) memory.release();
    }
  }

  /** A use of mapped memory by the kernel's side, such as an emulated device; ended by {@link endAccess}. */
  createAccess(options: AccessOptions): Access {
    this.acquire();
    return this.objects.add(new Access(options, () => this.release()));
  }

  /** Ends what {@link createAccess} made: its pins go, and it holds nothing any more. Never fails. */
  endAccess(access: Access): void {
    this.objects.remove(access);
  }

  /**
   * Whoever calls pays for everything from now on: a program that was replaced by its successor.
   *
   * @throws DmaError EINVAL if there is memory that is not of files; ENOMEM over the limit of the new one; nothing changes then
   */
  changeProcess(process: UserProcess): void {
    const all = new Set<MappedMemory>();
    for (const object of this.objects)
      if (object instanceof Ioas)
        for (const { memory } of object.areas) {
          if (memory.source.kind !== "file") throw badArgument("only memory of files can change hands");
          all.add(memory);
        }
    const moved = [...all].filter((memory) => !memory.payer.isPaidBy(process));
    const undo: (() => void)[] = [];
    try {
      for (const memory of moved) undo.push(memory.chargeToo(process));
    } catch (error) {
      for (const takeBack of undo) takeBack();
      throw error;
    }
    for (const memory of moved) memory.changePayer(process);
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_COMPAT (ENODEV) */
  needCompatIoas(): Ioas {
    if (!this.compatIoas) throw noCompatSpace();
    return this.compatIoas;
  }
}

const alreadyInUse = (): Error =>
  badAttach("EBUSY", "there are objects already: it is too late to change who is charged");

function mustAllowSomething({ read = true, write = true }: MapRequest): void {
  if (!read && !write) throw badArgument("neither reading nor writing");
}

/** Is it a DMA buffer? */
const isRangeBuffer = (file: OpenFile): file is OpenFile & RangeBuffer => file.kind === "dma-buf";
