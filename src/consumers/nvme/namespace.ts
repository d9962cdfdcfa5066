/**
 * A namespace: the disk as its user sees it, in blocks, or in bytes.
 *
 * Promises: a promise settles when the device is done with the memory, no sooner; what was not in whole blocks, beyond the end or
 * unreachable is refused before any command is sent. Buffers may lie anywhere, also in a peer's memory; those of one call must
 * all belong to one provider.
 */
import { DmaError } from "../../base/index.ts";
import type { PhysVec } from "../../dma/index.ts";
import {
  CONTROL,
  DEALLOCATE,
  DSM_RANGE_BYTES,
  IO,
  MAX_DSM_RANGES,
  type NamespaceIdentity,
  NVME_STATUS,
  OPTIONAL_COMMAND,
  putDsmRange,
  STATUS_MASK,
  viewOf,
} from "../../layouts/nvme/index.ts";
import type { HostBuffer, HostMemory } from "../../platform/index.ts";
import type { BlockOperation, DmaOps, QueueLimits, VectorList } from "../block/index.ts";
import type { Dispatcher } from "./dispatcher.ts";
import { outOfRange, unsupported } from "./errors.ts";
import { FreeStack } from "./free-stack.ts";
import { Operation } from "./operation.ts";

/** A run of blocks. */
export interface BlockRange {
  /** First logical block. */
  readonly firstBlock: number;
  /** How many. */
  readonly blocks: number;
}

/** How one transfer differs from a plain one. */
export interface TransferOptions {
  /** Gives the transfer up: it rejects with the signal's reason when the device has let go of the memory. */
  readonly signal?: AbortSignal;
  /** Metadata of the blocks, if the namespace has some: as many bytes as its format says. */
  readonly metadata?: readonly PhysVec[];
  /** A write is safe on the medium when it resolves. */
  readonly forceUnitAccess?: boolean;
}

/** What a namespace needs of its controller. */
interface NamespaceHost {
  readonly dispatcher: Dispatcher;
  readonly ops: DmaOps;
  readonly memory: HostMemory;
  /** Bits of ONCS. */
  readonly optionalCommands: number;
  /** Throws if the controller takes no more operations. */
  checkOpen(): void;
}

/** A disk of a controller, for reads, writes, compares and more. */
export class NvmeNamespace {
  /** NSID, as commands carry it; from 1 on. */
  readonly id: number;
  /** Logical blocks it has (NSZE). */
  readonly blocks: number;
  /** Bytes of data in a logical block. */
  readonly blockBytes: number;
  /** Bytes of metadata of each block; 0 without. */
  readonly metadataBytes: number;
  /** How large one command may be; longer transfers are split. */
  readonly limits: QueueLimits;
  readonly #host: NamespaceHost;
  readonly #free = new FreeStack<Operation>();

  constructor(id: number, identity: NamespaceIdentity, limits: QueueLimits, host: NamespaceHost) {
    const format = identity.formats[identity.format]!;
    this.id = id;
    this.blocks = identity.blocks;
    this.blockBytes = format.blockBytes;
    this.metadataBytes = format.metadataBytes;
    this.limits = limits;
    this.#host = host;
  }

  /** Bytes of data it holds. */
  get bytes(): number {
    return this.blocks * this.blockBytes;
  }

  /**
   * Reads blocks from `firstBlock` on into `buffers`, as many as fill them.
   *
   * Cost: one command for each `limits.maxBytes`.
   * @throws DmaError (rejects) ERR_DMA_BLOCK_ALIGNMENT, ERR_DMA_BLOCK_MIXED, ERR_DMA_BLOCK_INTEGRITY (EINVAL), ERR_DMA_NVME_RANGE
   * (ERANGE), ERR_DMA_NVME_REQUEST, ERR_DMA_NVME_STATUS (EIO), ERR_DMA_NVME_CLOSED (ENODEV)
   */
  read(firstBlock: number, buffers: readonly PhysVec[], options: TransferOptions = {}): Promise<void> {
    return this.#transfer("read", IO.read, firstBlock, buffers, options);
  }

  /** Writes `buffers` to the blocks from `firstBlock` on. @throws as {@link read} */
  write(firstBlock: number, buffers: readonly PhysVec[], options: TransferOptions = {}): Promise<void> {
    return this.#transfer("write", IO.write, firstBlock, buffers, options);
  }

  /** True if the blocks from `firstBlock` on hold the bytes of `buffers`. @throws as {@link read}; ERR_DMA_NVME_UNSUPPORTED */
  async compare(firstBlock: number, buffers: readonly PhysVec[], options: TransferOptions = {}): Promise<boolean> {
    this.#needs(OPTIONAL_COMMAND.compare, "compare");
    try {
      await this.#transfer("compare", IO.compare, firstBlock, buffers, options);
      return true;
    } catch (error) {
      const differs =
        error instanceof DmaError && ((error.details.status as number) & STATUS_MASK) === NVME_STATUS.compareFailure;
      if (differs) return false;
      throw error;
    }
  }

  /** Everything written before is safe on the medium when this resolves. */
  flush(): Promise<void> {
    return this.#command("flush", IO.flush, 0, 1);
  }

  /** The blocks read as zero from then on; no data are sent. @throws as {@link read}; ERR_DMA_NVME_UNSUPPORTED */
  async writeZeroes(firstBlock: number, blocks: number): Promise<void> {
    this.#needs(OPTIONAL_COMMAND.writeZeroes, "write zeroes");
    this.#check(firstBlock, blocks);
    return this.#command("write-zeroes", IO.writeZeroes, firstBlock, blocks);
  }

  /** The contents of the blocks are not needed any more. @throws as {@link read}; ERR_DMA_NVME_UNSUPPORTED */
  async discard(ranges: readonly BlockRange[]): Promise<void> {
    this.#needs(OPTIONAL_COMMAND.datasetManagement, "dataset management");
    for (const { firstBlock, blocks } of ranges) this.#check(firstBlock, blocks);
    for (let i = 0; i < ranges.length; i += MAX_DSM_RANGES) {
      const some = ranges.slice(i, i + MAX_DSM_RANGES);
      const buffer = this.#host.memory.allocate(some.length * DSM_RANGE_BYTES);
      try {
        const view = viewOf(buffer.bytes);
        some.forEach(({ firstBlock, blocks }, at) => {
          putDsmRange(view, at * DSM_RANGE_BYTES, firstBlock, blocks);
        });
        const limits = { ...this.limits, blockBytes: DSM_RANGE_BYTES };
        await this.#run(IO.datasetManagement, DEALLOCATE, limits, {}, (operation) => {
          operation.data.add(buffer.phys, some.length * DSM_RANGE_BYTES);
          operation.rest.set("discard", 0, operation.data, limits);
        });
      } finally {
        buffer.free();
      }
    }
  }

  /** A copy of `length` bytes from `offset` on. Any place and length: whole blocks around it are read. */
  async readBytes(offset: number, length: number): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    const { first, blocks, before } = this.#around(offset, length);
    return this.#withBuffer(blocks, async (buffer) => {
      await this.read(first, [buffer]);
      return buffer.bytes.slice(before, before + length);
    });
  }

  /** Writes a copy of `bytes` at `offset`. Blocks that it covers in part are read first: not atomic with other writes to them. */
  async writeBytes(offset: number, bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    const { first, blocks, before } = this.#around(offset, bytes.length);
    await this.#withBuffer(blocks, async (buffer) => {
      if (before > 0 || bytes.length < buffer.length) await this.read(first, [buffer]);
      buffer.bytes.set(bytes, before);
      await this.write(first, [buffer]);
    });
  }

  #around(offset: number, length: number): { first: number; blocks: number; before: number } {
    const first = Math.floor(offset / this.blockBytes);
    const before = offset - first * this.blockBytes;
    const blocks = Math.ceil((before + length) / this.blockBytes);
    this.#check(first, blocks);
    return { first, blocks, before };
  }

  async #withBuffer<T>(blocks: number, use: (buffer: HostBuffer) => Promise<T>): Promise<T> {
    const buffer = this.#host.memory.allocate(blocks * this.blockBytes);
    try {
      return await use(buffer);
    } finally {
      buffer.free();
    }
  }

  #transfer(
    kind: BlockOperation,
    opcode: number,
    firstBlock: number,
    buffers: readonly PhysVec[],
    options: TransferOptions,
  ): Promise<void> {
    const control = options.forceUnitAccess ? CONTROL.forceUnitAccess : 0;
    return this.#run(opcode, control, this.limits, options, (operation) => {
      this.#fill(operation.data, buffers);
      const metadata = options.metadata || this.metadataBytes > 0 ? operation.metadata : undefined;
      if (metadata) this.#fill(metadata, options.metadata ?? []);
      operation.rest.set(kind, firstBlock, operation.data, this.limits, metadata, this.metadataBytes);
      this.#check(firstBlock, operation.data.bytes / this.blockBytes);
    });
  }

  #command(kind: BlockOperation, opcode: number, firstBlock: number, blocks: number): Promise<void> {
    return this.#run(opcode, 0, this.limits, {}, (operation) => {
      operation.rest.operation = kind;
      operation.rest.firstBlock = firstBlock;
      operation.blocks = blocks;
    });
  }

  #run(
    opcode: number,
    control: number,
    limits: QueueLimits,
    { signal }: TransferOptions,
    prepare: (operation: Operation) => void,
  ): Promise<void> {
    const { dispatcher } = this.#host;
    const operation = this.#free.take() ?? new Operation();
    return new Promise<void>((resolve, reject) => {
      operation.begin(opcode, this.id, control);
      let stopListening = (): void => {};
      const over = (): void => {
        stopListening();
        this.#free.give(operation);
      };
      try {
        this.#host.checkOpen();
        signal?.throwIfAborted();
        prepare(operation);
      } catch (error) {
        over();
        reject(error);
        return;
      }
      operation.resolve = () => {
        over();
        resolve();
      };
      operation.reject = (reason) => {
        over();
        reject(reason);
      };
      if (signal) {
        const abort = (): void => dispatcher.cancel(operation, signal.reason);
        signal.addEventListener("abort", abort, { once: true });
        stopListening = () => signal.removeEventListener("abort", abort);
      }
      dispatcher.submit(operation, limits);
    });
  }

  #fill(list: VectorList, buffers: readonly PhysVec[]): void {
    for (let i = 0; i < buffers.length; i++) {
      const { phys, length } = buffers[i]!;
      list.add(phys, length, this.#host.ops.providerOf(phys));
    }
  }

  #check(firstBlock: number, blocks: number): void {
    const valid = Number.isSafeInteger(firstBlock) && firstBlock >= 0 && Number.isSafeInteger(blocks) && blocks > 0;
    if (!valid || firstBlock + blocks > this.blocks) throw outOfRange(firstBlock, blocks, this.blocks);
  }

  #needs(bit: number, what: string): void {
    if ((this.#host.optionalCommands & bit) === 0) throw unsupported(what);
  }
}
