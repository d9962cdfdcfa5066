/**
 * Memory of a device that migrates: buffers that are in the device's own memory, in RAM, or partly in each.
 *
 * Idea: where each part is, is kept by chunks; a part moves by being copied to its new place while nobody reaches it, and the old place is
 * free after that. Importers that follow in place keep their mapping; a change costs what the moved part costs, however long the
 * buffer. Promises: the bytes are the same after a move; a refused one changes nothing; what was left is not freed before it is
 * unreachable. Who cannot reach peers keeps a buffer in RAM as long as it is attached.
 * Not for: deciding what should move (that is the driver's). Modelled on Linux 7.2 GPU drivers that export their memory.
 */
import { PAGE_SIZE, type PhysAddr } from "../../../base/index.ts";
import { ChunkIndex } from "../../../dma/index.ts";
import type { P2pProvider } from "../../../p2p/index.ts";
import type { PageAllocator, PhysicalMemory, Steps } from "../../../platform/index.ts";
import { DmaBuf } from "../dma-buf.ts";
import { badArgument, importerRefused } from "../errors.ts";
import type { Exporter } from "../exporter.ts";
import type { Importer } from "../importer.ts";
import type { StorageVec } from "../storage.ts";
import { allocateBlocks, freeBlocks } from "./blocks.ts";

/** Where a part of a buffer is. */
export type Place = "device" | "system";

/** A device with memory, and the machine around it. */
export interface DeviceMemoryBuffersOptions {
  /** For reports. */
  readonly name: string;
  /** The device's memory as peers see it. */
  readonly provider: P2pProvider;
  /** Pages of that memory. */
  readonly devicePages: PageAllocator;
  /** Pages of RAM. */
  readonly systemPages: PageAllocator;
  /** By which both are copied. */
  readonly memory: PhysicalMemory;
}

/** Copied at once, bytes. */
const COPY_BYTES = 65_536;

/** Gives out buffers of a device. */
export class DeviceMemoryBuffers {
  readonly #options: DeviceMemoryBuffersOptions;

  /** Takes nothing yet: pages are taken by each allocation. */
  constructor(options: DeviceMemoryBuffersOptions) {
    this.#options = options;
  }

  /** A new buffer, all in one place. @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL), ERR_DMA_BUF_NO_MEMORY (ENOMEM) */
  allocate(lengthBytes: number, place: Place): MigratingBuffer {
    if (!(lengthBytes > 0 && lengthBytes % PAGE_SIZE === 0)) throw badArgument("a length", lengthBytes, "whole pages");
    return new MigratingBuffer(this.#options, lengthBytes, place);
  }
}

/** A buffer whose parts move. */
export class MigratingBuffer {
  /** What importers attach to. */
  readonly buffer: DmaBuf;
  readonly #options: DeviceMemoryBuffersOptions;
  readonly #index = new ChunkIndex<P2pProvider | undefined>();
  /** Attached, and without a way to peers. */
  #needRam = 0;

  /** Made by {@link DeviceMemoryBuffers.allocate}. */
  constructor(options: DeviceMemoryBuffersOptions, lengthBytes: number, place: Place) {
    this.#options = options;
    this.#enter(0, this.#allocate(lengthBytes, place));
    const exporter: Exporter = {
      name: "device-memory",
      lengthBytes,
      form: "vectors",
      teardown: "at-once",
      vectors: () => this.#part(0, lengthBytes),
      part: (offset, length) => this.#part(offset, length),
      attach: (importer) => this.#lookOver(importer),
      detach: (importer) => {
        if (!importer.ops?.peerToPeer) this.#needRam--;
      },
      pin: () => {},
      unpin: () => {},
      release: () => this.#free(this.#part(0, lengthBytes)),
    };
    this.buffer = new DmaBuf(exporter, `device-memory of ${options.name}`);
  }

  /** Runs that the storage is made of now. */
  get chunks(): number {
    return this.#index.count;
  }

  /** Where the byte at `offset` is. */
  placeOf(offset: number): Place {
    return this.#index.at(offset)?.kind === undefined ? "system" : "device";
  }

  /**
   * Moves [offset, + length), whole pages, to the other place, or to a new one in the same.
   *
   * @throws DmaError ERR_DMA_BUF_ARGUMENT (EINVAL), ERR_DMA_BUF_NO_MEMORY (ENOMEM), ERR_DMA_BUF_IMPORTER (EOPNOTSUPP: one attached needs RAM),
   *   ERR_DMA_BUF_PINNED (EBUSY), ERR_DMA_BUF_REVOKED (ENODEV); nothing has moved then
   */
  *migrate(offset: number, length: number, to: Place): Steps<void> {
    if (!(offset % PAGE_SIZE === 0 && length % PAGE_SIZE === 0)) throw badArgument("a part", length, "whole pages");
    if (to === "device" && this.#needRam > 0)
      throw importerRefused(
        this.buffer.name,
        "an attached device",
        "it cannot reach memory of devices: it has to stay in RAM",
      );
    const fresh = this.#allocate(length, to);
    let old: readonly StorageVec[] | undefined;
    try {
      yield* this.buffer.move(offset, length, () => {
        const before = this.#part(offset, length);
        copy(this.#options.memory, before, fresh);
        this.#enter(offset, fresh);
        old = before;
      });
    } finally {
      this.#free(old ?? fresh);
    }
  }

  #allocate(length: number, place: Place): StorageVec[] {
    const { devicePages, systemPages, provider } = this.#options;
    if (place === "device") return allocateBlocks(devicePages, length / PAGE_SIZE, provider);
    return allocateBlocks(systemPages, length / PAGE_SIZE);
  }

  #free(vecs: readonly StorageVec[]): void {
    const { devicePages, systemPages } = this.#options;
    for (const vec of vecs) freeBlocks(vec.provider ? devicePages : systemPages, [vec]);
  }

  #enter(offset: number, vecs: readonly StorageVec[]): void {
    let at = offset;
    for (const { phys, length, provider } of vecs) {
      this.#index.set(at, length, phys, provider);
      at += length;
    }
  }

  #part(offset: number, length: number): StorageVec[] {
    const vecs: StorageVec[] = [];
    for (const chunk of this.#index.within(offset, length))
      vecs.push({ phys: chunk.phys as PhysAddr, length: chunk.length, ...(chunk.kind && { provider: chunk.kind }) });
    return vecs;
  }

  #lookOver({ name, ops }: Importer): void {
    if (ops?.peerToPeer) return;
    for (const { kind } of this.#index)
      if (kind !== undefined)
        throw importerRefused(
          this.buffer.name,
          name,
          "it needs pages, and part of the buffer is in a device: migrate that to RAM",
        );
    this.#needRam++;
  }
}

/** Byte for byte from one list to another of the same length. */
function copy(memory: PhysicalMemory, from: readonly StorageVec[], to: readonly StorageVec[]): void {
  const bytes = new Uint8Array(COPY_BYTES);
  let target = 0;
  let inTarget = 0;
  for (const { phys, length } of from)
    for (let at = 0; at < length; ) {
      const into = to[target]!;
      const piece = bytes.subarray(0, Math.min(COPY_BYTES, length - at, into.length - inTarget));
      memory.read((phys + at) as PhysAddr, piece);
      memory.write((into.phys + inTarget) as PhysAddr, piece);
      at += piece.length;
      inTarget += piece.length;
      if (inTarget < into.length) continue;
      target++;
      inTarget = 0;
    }
}
