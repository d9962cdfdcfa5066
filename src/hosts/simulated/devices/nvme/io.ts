/**
 * I/O commands of the simulated NVMe controller.
 *
 * Promises: nothing is stored and no data move unless the command, its range and the description of its memory are in order.
 * Specified by: NVM Express NVM command set specification 1.0, chapter 3.
 */
import {
  COMMAND,
  CONTROLLER_PAGE,
  DEALLOCATE,
  DSM_RANGE_BYTES,
  get64,
  IO,
  NVME_STATUS,
  POINTERS,
  SGL_BYTES,
  SGL_SUPPORT,
  viewOf,
} from "../../../../layouts/nvme/index.ts";
import { DataRuns, type DmaPort, readPrps, readSgl } from "./data.ts";
import type { Namespace } from "./namespace.ts";

interface IoContext {
  /** The controller's way to memory, its own included. */
  readonly port: DmaPort;
  readonly namespaces: ReadonlyMap<number, Namespace>;
  readonly sgls: number;
  /** Longest transfer, bytes. */
  readonly maxTransferBytes: number;
  /** May data from (`write`) or for (`read`) memory at `address` lie there? Not if it is in a buffer that cannot hold data. */
  mayHoldData(address: number, access: "read" | "write"): boolean;
}

const OK = NVME_STATUS.success;
/**
 * Bytes that one command deallocates; the rest stays as it is, which a deallocation, being a hint, allows. One command of 256 ranges may
 * name a disk 256 times, and a store that is a file writes zeroes.
 */
const MOST_DEALLOCATED = 2 ** 30;

export class IoCommands {
  readonly #context: IoContext;
  readonly #data = new DataRuns();
  readonly #metadata = new DataRuns();
  #buffer = new Uint8Array(65_536);

  constructor(context: IoContext) {
    this.#context = context;
  }

  /** Does the command; its status. `broken`: the link fails in the middle of the data. */
  execute(command: DataView, broken: boolean): number {
    const opcode = command.getUint8(COMMAND.opcode);
    const namespace = this.#context.namespaces.get(command.getUint32(COMMAND.namespace, true));
    switch (opcode) {
      case IO.flush: {
        const all = command.getUint32(COMMAND.namespace, true) === 0xffff_ffff;
        if (!namespace && !all) return NVME_STATUS.invalidNamespace;
        for (const each of all ? this.#context.namespaces.values() : [namespace!]) each.store.flush();
        return OK;
      }
      case IO.read:
      case IO.write:
      case IO.compare:
        return namespace ? this.#transfer(command, opcode, namespace, broken) : NVME_STATUS.invalidNamespace;
      case IO.writeZeroes: {
        if (!namespace) return NVME_STATUS.invalidNamespace;
        const [first, count] = [get64(command, COMMAND.firstBlock), command.getUint16(COMMAND.blocks0, true) + 1];
        if (!namespace.holds(first, count)) return NVME_STATUS.lbaRange;
        namespace.discard(first, count);
        return OK;
      }
      case IO.datasetManagement:
        return namespace ? this.#manage(command, namespace, broken) : NVME_STATUS.invalidNamespace;
      default:
        return NVME_STATUS.invalidOpcode;
    }
  }

  #transfer(command: DataView, opcode: number, namespace: Namespace, broken: boolean): number {
    const first = get64(command, COMMAND.firstBlock);
    const count = command.getUint16(COMMAND.blocks0, true) + 1;
    if (!namespace.holds(first, count)) return NVME_STATUS.lbaRange;
    const length = count * namespace.blockBytes;
    if (length > this.#context.maxTransferBytes) return NVME_STATUS.invalidField;
    const status = this.#describe(
      command,
      length,
      count * namespace.metadataBytes,
      opcode === IO.read ? "read" : "write",
    );
    if (status !== OK) return status;
    const { port } = this.#context;
    const offset = first * namespace.blockBytes;
    const metadataOffset = first * namespace.metadataBytes;
    const data = this.#room(length).subarray(0, broken ? length >>> 1 : length);
    const metadata = namespace.metadataBytes > 0 ? new Uint8Array(count * namespace.metadataBytes) : undefined;
    if (opcode === IO.read) {
      namespace.store.read(offset, data);
      if (!this.#data.write(port, data) || broken) return NVME_STATUS.dataTransferError;
      if (metadata) namespace.metadata.read(metadataOffset, metadata);
      return metadata && !this.#metadata.write(port, metadata) ? NVME_STATUS.dataTransferError : OK;
    }
    if (!this.#data.read(port, data) || broken) return NVME_STATUS.dataTransferError;
    if (metadata && !this.#metadata.read(port, metadata)) return NVME_STATUS.dataTransferError;
    if (opcode === IO.compare) return this.#compare(namespace, offset, data);
    namespace.store.write(offset, data);
    if (metadata) namespace.metadata.write(metadataOffset, metadata);
    return OK;
  }

  #compare(namespace: Namespace, offset: number, data: Uint8Array): number {
    const stored = new Uint8Array(data.length);
    namespace.store.read(offset, stored);
    return data.every((byte, i) => byte === stored[i]) ? OK : NVME_STATUS.compareFailure;
  }

  #manage(command: DataView, namespace: Namespace, broken: boolean): number {
    const bytes = ((command.getUint32(COMMAND.cdw10, true) & 0xff) + 1) * DSM_RANGE_BYTES;
    const status = this.#describe(command, bytes, 0, "write");
    if (status !== OK) return status;
    const ranges = new Uint8Array(bytes);
    if (!this.#data.read(this.#context.port, ranges) || broken) return NVME_STATUS.dataTransferError;
    const view = viewOf(ranges);
    for (let at = 0; at < bytes; at += DSM_RANGE_BYTES)
      if (!namespace.holds(get64(view, at + 8), view.getUint32(at + 4, true))) return NVME_STATUS.lbaRange;
    if ((command.getUint32(COMMAND.cdw11, true) & DEALLOCATE) === 0) return OK;
    let left = Math.floor(MOST_DEALLOCATED / namespace.blockBytes);
    for (let at = 0; at < bytes && left > 0; at += DSM_RANGE_BYTES) {
      const count = Math.min(left, view.getUint32(at + 4, true));
      namespace.discard(get64(view, at + 8), count);
      left -= count;
    }
    return OK;
  }

  /** Reads the data and metadata pointers of a command, all of them, and checks them. */
  #describe(command: DataView, length: number, metadataLength: number, access: "read" | "write"): number {
    const { port, sgls } = this.#context;
    const pointers = command.getUint8(COMMAND.flags) & POINTERS.mask;
    const dwordAligned = (sgls & SGL_SUPPORT.mask) === SGL_SUPPORT.dwordAligned;
    this.#data.clear();
    this.#metadata.clear();
    const at = COMMAND.dataPointer;
    let status: number;
    if (pointers === POINTERS.prp)
      status = readPrps(port, get64(command, at), get64(command, at + 8), length, this.#data);
    else if ((sgls & SGL_SUPPORT.mask) === 0 || pointers === POINTERS.mask) return NVME_STATUS.invalidField;
    else status = readSgl(port, command, at, length, this.#data, dwordAligned);
    if (status === OK && metadataLength > 0)
      status = this.#describeMetadata(command, pointers, metadataLength, dwordAligned);
    if (status !== OK) return status;
    for (const runs of [this.#data, this.#metadata])
      if (!runs.addresses.every((address) => this.#context.mayHoldData(address, access))) return NVME_STATUS.cmbUse;
    return OK;
  }

  #describeMetadata(command: DataView, pointers: number, length: number, dwordAligned: boolean): number {
    const { port, sgls } = this.#context;
    const pointer = get64(command, COMMAND.metadataPointer);
    if (pointers !== POINTERS.sglMetadata) {
      if (pointer % 4 !== 0) return NVME_STATUS.invalidField;
      this.#metadata.add(pointer, length);
      return OK;
    }
    if ((sgls & SGL_SUPPORT.metadata) === 0) return NVME_STATUS.invalidField;
    const descriptor = new Uint8Array(SGL_BYTES);
    if (!port.read(pointer as never, descriptor)) return NVME_STATUS.dataTransferError;
    return readSgl(port, viewOf(descriptor), 0, length, this.#metadata, dwordAligned, NVME_STATUS.sglMetadataLength);
  }

  #room(length: number): Uint8Array {
    if (this.#buffer.length < length)
      this.#buffer = new Uint8Array(Math.ceil(length / CONTROLLER_PAGE) * CONTROLLER_PAGE);
    return this.#buffer.subarray(0, length);
  }
}
