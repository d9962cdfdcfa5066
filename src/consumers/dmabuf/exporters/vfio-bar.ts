/**
 * Memory of a device in the hands of a program (VFIO), as buffers: parts of its BARs.
 *
 * Idea: the buffers of a device live and die with what makes its BARs answer: memory decode, power, reset. Before one of these goes, all
 * buffers are revoked, which waits until no importer reaches them; when it is back, they are restored. A closed device is final.
 * Only importers come in that cope with memory without pages and lose it in bounded time.
 * Promises: after a revocation nothing maps the BAR, in lazy mode too; buffers may outlive the device, and are then of no use.
 * Specified by: behaviour of Linux 7.2 VFIO (feature 11, DMA_BUF); judged by test/golden (dmabuf).
 */
import type { Errno } from "../../../base/index.ts";
import { PAGE_SIZE } from "../../../base/index.ts";
import type { P2pProvider } from "../../../p2p/index.ts";
import type { Steps } from "../../../platform/index.ts";
import { BufferDescriptor } from "../descriptor.ts";
import { DmaBuf } from "../dma-buf.ts";
import {
  badArgument,
  badVectors,
  deviceGone,
  importerRefused,
  noProvider,
  noRegion,
  noSuchCall,
  outsideBar,
  revoked,
} from "../errors.ts";
import type { Exporter } from "../exporter.ts";
import type { Importer } from "../importer.ts";
import { Reservation } from "../reservation.ts";
import { type BarPart, barVectors } from "./peer-vectors.ts";

/** A part of a BAR as the call has it: 64 bits. */
export interface RegionRange {
  /** First byte in the region. */
  readonly offset: bigint;
  /** How many. */
  readonly length: bigint;
}

/** Feature 11 of a VFIO device, after its header. */
export interface RegionExport {
  /** Number of the region: 0 to 5 are BARs. */
  readonly region: number;
  /** Of the descriptor: bits of {@link OPEN_FLAGS}. */
  readonly openFlags: number;
  /** None is known. */
  readonly flags: number;
  /** The buffer's bytes, in their order. */
  readonly ranges: readonly RegionRange[];
}

/** What memory a device has to export. */
export interface BarRegion {
  /** Bytes. */
  readonly lengthBytes: number;
  /** undefined: no peer memory (not mappable, or I/O ports). */
  readonly provider: P2pProvider | undefined;
}

/** Bytes of the structure before the ranges, header and fixed part, and of each range. */
const FIXED_BYTES = 24;
/** The bit of the command register by which memory BARs answer. */
const MEMORY_DECODE = 0x2;
const TOP_BIT = 2n ** 63n;
const WRAP = 2n ** 64n;

/** The memory of a VFIO device: exports it, and takes it back when the device stops answering. */
export class VfioDeviceMemory {
  /** For reports. */
  readonly name: string;
  readonly #regions: ReadonlyMap<number, BarRegion>;
  #buffers: DmaBuf[] = [];
  #decodes = true;
  #isPowered = true;
  #isResetting = false;
  #isClosed = false;
  /** Events come one after the other: a device cannot come back while it is going. */
  readonly #events = new Reservation();

  /**
   * The BARs answer, and nothing is exported yet.
   * @param regions memory BARs by number
   */
  constructor(name: string, regions: ReadonlyMap<number, BarRegion>) {
    this.name = name;
    this.#regions = regions;
  }

  /** Buffers that somebody holds. */
  get buffers(): readonly DmaBuf[] {
    return this.#buffers;
  }

  /** Its BARs answer. */
  get answers(): boolean {
    return this.#decodes && this.#isPowered && !this.#isResetting && !this.#isClosed;
  }

  /**
   * Feature 11: parts of a BAR as a buffer. While the device does not answer, it is made revoked.
   *
   * @param argumentBytes the size that the caller gives; only the fixed part has to be there
   * @throws DmaError ERR_DMA_BUF_ARGUMENT, ERR_DMA_BUF_PROVIDER, ERR_DMA_BUF_VECTORS (EINVAL), ERR_DMA_BUF_REGION, ERR_DMA_BUF_DEVICE_GONE
   *   (ENODEV), ERR_DMA_BUF_RANGE (EINVAL, EOVERFLOW)
   */
  export(call: RegionExport, argumentBytes: number = FIXED_BYTES): BufferDescriptor {
    if (this.#isClosed) throw deviceGone(this.name);
    if (argumentBytes < FIXED_BYTES)
      throw badArgument("an argument size", argumentBytes, `${FIXED_BYTES} bytes at least`);
    const { region, openFlags, flags, ranges } = call;
    if (ranges.length === 0) throw badVectors("there is none");
    if (flags !== 0) throw badArgument("flags", flags, "none is known");
    const bar = this.#regions.get(region);
    if (bar === undefined) throw noRegion(region);
    const parts = partsOf(ranges, region, bar);
    const buffer = new DmaBuf(this.#exporter(bar.provider!, parts), `vfio-bar of ${this.name}`);
    if (!this.answers) buffer.startRevoked();
    this.#buffers.push(buffer);
    return new BufferDescriptor(buffer, { openFlags });
  }

  /** Does the device have feature 11, to get (a buffer) or to set? @throws DmaError ERR_DMA_BUF_CALL (EINVAL) to set */
  probe(call: "get" | "set"): void {
    if (call === "set") throw noSuchCall("setting of a buffer", "EINVAL");
  }

  /** The command register is written: clearing memory decode revokes, setting it restores. */
  writeCommand(value: number): Steps<void> {
    return this.#event(() => {
      this.#decodes = (value & MEMORY_DECODE) !== 0;
    });
  }

  /** D0 to D3: in D3 the BARs do not answer. */
  setPowerState(state: 0 | 1 | 2 | 3): Steps<void> {
    return this.#event(() => {
      this.#isPowered = state !== 3;
    });
  }

  /** A reset of the function: `reset` runs while nobody reaches the device. */
  *reset(reset: () => void = (): void => {}): Steps<void> {
    yield* this.#events.acquire();
    try {
      this.#isResetting = true;
      yield* this.#follow();
      reset();
    } finally {
      this.#isResetting = false;
      this.#events.release();
    }
    yield* this.#event(() => {});
  }

  /** The program closes the device: all buffers are revoked for good. A second time does nothing. */
  *close(): Steps<void> {
    yield* this.#event(() => {
      this.#isClosed = true;
    });
    this.#buffers = [];
  }

  #exporter(provider: P2pProvider, parts: readonly BarPart[]): Exporter {
    const vecs = barVectors(provider, parts);
    const exporter: Exporter = {
      name: "vfio-bar",
      lengthBytes: vecs.reduce((sum, { length }) => sum + length, 0),
      form: "vectors",
      teardown: "at-once",
      vectors: () => vecs,
      attach: (importer) => this.#lookOver(exporter, importer),
      release: () => {
        this.#buffers = this.#buffers.filter((buffer) => buffer.exporter !== exporter);
      },
    };
    return exporter;
  }

  /** In the order of the kernel: peers first, then whether there is anything, then whether it can be taken back. */
  #lookOver(exporter: Exporter, { name, ops }: Importer): void {
    if (!ops?.peerToPeer) throw importerRefused(this.name, name, "it needs pages, and memory of devices has none");
    const buffer = this.#buffers.find((each) => each.exporter === exporter);
    if (buffer === undefined || buffer.isRevoked) throw revoked(this.name, "attach to");
    if (!ops.invalidated) throw importerRefused(this.name, name, "it could not be taken back from it");
  }

  /** What the device is from now on, so that a new buffer is made as it has to be; then the buffers follow. */
  *#event(change: () => void): Steps<void> {
    yield* this.#events.acquire();
    try {
      change();
      yield* this.#follow();
    } finally {
      this.#events.release();
    }
  }

  /** Revokes, or restores, what is not so yet. One after the other: the device stops when the last one is done. */
  *#follow(): Steps<void> {
    for (const buffer of [...this.#buffers])
      if (!this.answers) yield* buffer.revoke();
      else if (buffer.isRevoked) yield* buffer.restore();
  }
}

function partsOf(ranges: readonly RegionRange[], region: number, bar: BarRegion): BarPart[] {
  let total = 0n;
  const page = BigInt(PAGE_SIZE);
  for (const { offset, length } of ranges) {
    if (length === 0n || length % page !== 0n || offset % page !== 0n)
      throw badVectors(`${length} bytes at ${offset} are not whole pages`, { offset, length });
    total += length;
    if (total >= TOP_BIT) throw badVectors("together they are longer than any buffer", { total });
  }
  if (bar.provider === undefined) throw noProvider(region);
  return ranges.map(({ offset, length }) => {
    const refuse = (errno: Errno): Error => outsideBar(errno, String(offset), String(length), bar.lengthBytes);
    if (offset + length >= WRAP) throw refuse("EOVERFLOW");
    if (offset + length > BigInt(bar.lengthBytes)) throw refuse("EINVAL");
    return { offset: Number(offset), length: Number(length) };
  });
}
