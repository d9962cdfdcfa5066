/**
 * Admin commands of the simulated NVMe controller: queues, identify, features, aborts, events, logs.
 *
 * Specified by: NVM Express base specification 2.0, chapter 5. Checks of a new queue come in this order: id, completion queue,
 * size, contiguity, vector, address.
 */
import {
  ADMIN,
  COMMAND,
  CONTROLLER_PAGE,
  encodeController,
  encodeNamespace,
  encodeNamespaceList,
  FEATURE,
  get64,
  IDENTIFY,
  IDENTIFY_BYTES,
  LOG_PAGE,
  NVME_STATUS,
  OPTIONAL_COMMAND,
  POINTERS,
  QUEUE,
  versionOf,
} from "../../../../layouts/nvme/index.ts";
import { DataRuns, type DmaPort, readPrps } from "./data.ts";
import type { Namespace } from "./namespace.ts";
import type { NvmeModelOptions } from "./options.ts";
import { type AdminAnswer, CompletionQueue, SubmissionQueue } from "./queues.ts";

/** What admin commands read and change of their controller. */
interface AdminTarget {
  readonly options: NvmeModelOptions;
  readonly namespaces: ReadonlyMap<number, Namespace>;
  readonly sgls: number;
  readonly vectors: number;
  readonly ioQueues: number;
  readonly maxQueueEntries: number;
  readonly engine: AdminQueues;
}

/** Of its queue engine. */
interface AdminQueues {
  readonly submissionQueues: Map<number, SubmissionQueue>;
  readonly completionQueues: Map<number, CompletionQueue>;
  complete(queue: SubmissionQueue, id: number, status: number, result: number): void;
  awaitEvent(queue: SubmissionQueue, id: number, limit: number): boolean;
}

const ABORT_LIMIT = 4;
const EVENT_LIMIT = 4;
const answer = (status: number, result = 0): AdminAnswer => ({ status, result });

export class AdminCommands {
  readonly #controller: AdminTarget;
  readonly #port: DmaPort;
  readonly #runs = new DataRuns();

  constructor(controller: AdminTarget, port: DmaPort) {
    this.#controller = controller;
    this.#port = port;
  }

  /** Does the command; `undefined` if its completion comes later. */
  execute(queue: SubmissionQueue, id: number, command: DataView): AdminAnswer | undefined {
    if ((command.getUint8(COMMAND.flags) & POINTERS.mask) !== POINTERS.prp) return answer(NVME_STATUS.invalidField);
    const cdw10 = command.getUint32(COMMAND.cdw10, true);
    const cdw11 = command.getUint32(COMMAND.cdw11, true);
    switch (command.getUint8(COMMAND.opcode)) {
      case ADMIN.identify:
        return this.#identify(command, cdw10 & 0xff);
      case ADMIN.createCompletionQueue:
        return answer(this.#createCompletionQueue(command, cdw10, cdw11));
      case ADMIN.createSubmissionQueue:
        return answer(this.#createSubmissionQueue(command, cdw10, cdw11));
      case ADMIN.deleteSubmissionQueue:
        return answer(this.#deleteSubmissionQueue(cdw10 & 0xffff));
      case ADMIN.deleteCompletionQueue:
        return answer(this.#deleteCompletionQueue(cdw10 & 0xffff));
      case ADMIN.setFeatures:
      case ADMIN.getFeatures:
        return this.#features(cdw10 & 0xff);
      case ADMIN.abort:
        return this.#abort(cdw10);
      case ADMIN.asyncEvent:
        return this.#controller.engine.awaitEvent(queue, id, EVENT_LIMIT)
          ? undefined
          : answer(NVME_STATUS.asyncEventLimit);
      case ADMIN.getLogPage:
        return this.#logPage(command, cdw10);
      default:
        return answer(NVME_STATUS.invalidOpcode);
    }
  }

  #identify(command: DataView, what: number): AdminAnswer {
    const controller = this.#controller;
    const id = command.getUint32(COMMAND.namespace, true);
    if (what === IDENTIFY.controller) return this.#give(command, this.#identity());
    if (what === IDENTIFY.activeNamespaces)
      return this.#give(command, encodeNamespaceList([...controller.namespaces.keys()].filter((each) => each > id)));
    if (what !== IDENTIFY.namespace) return answer(NVME_STATUS.invalidField);
    const namespace = controller.namespaces.get(id);
    if (!namespace) return answer(NVME_STATUS.invalidNamespace);
    const { blocks, blockBytes, metadataBytes } = namespace;
    const formats = [{ blockBytes, metadataBytes }];
    return this.#give(
      command,
      encodeNamespace({ blocks, capacity: blocks, used: blocks, format: 0, extendedBlocks: false, formats }),
    );
  }

  #identity(): Uint8Array {
    const { options, namespaces, sgls } = this.#controller;
    return encodeController({
      vendorId: 0x1b36,
      serialNumber: options.serialNumber ?? "SIM0",
      modelNumber: options.modelNumber ?? "dmalink simulated NVMe",
      firmware: "1.0",
      maxTransferShift: options.maxTransferShift ?? 0,
      controllerId: 0,
      version: versionOf(2, 0),
      abortLimit0: ABORT_LIMIT - 1,
      asyncEventLimit0: EVENT_LIMIT - 1,
      namespaces: namespaces.size,
      optionalCommands: OPTIONAL_COMMAND.compare | OPTIONAL_COMMAND.datasetManagement | OPTIONAL_COMMAND.writeZeroes,
      volatileWriteCache: true,
      sgls,
      subsystem: `nqn.2014-08.org.nvmexpress:sim:${options.serialNumber ?? "SIM0"}`,
    });
  }

  #createCompletionQueue(command: DataView, cdw10: number, cdw11: number): number {
    const { engine, maxQueueEntries, ioQueues, vectors } = this.#controller;
    const { completionQueues } = engine;
    const [id, size0, vector] = [cdw10 & 0xffff, cdw10 >>> 16, cdw11 >>> 16];
    const base = get64(command, COMMAND.dataPointer);
    if (id === 0 || id > ioQueues || completionQueues.has(id)) return NVME_STATUS.queueIdInvalid;
    if (size0 === 0 || size0 > maxQueueEntries - 1) return NVME_STATUS.queueSizeInvalid;
    if ((cdw11 & QUEUE.contiguous) === 0) return NVME_STATUS.invalidField;
    const interrupts = (cdw11 & QUEUE.interrupts) !== 0;
    if (interrupts && vector >= Math.max(1, vectors)) return NVME_STATUS.interruptVectorInvalid;
    if (base % CONTROLLER_PAGE !== 0) return NVME_STATUS.prpOffset;
    completionQueues.set(id, new CompletionQueue(id, base, size0 + 1, interrupts ? vector : -1));
    return NVME_STATUS.success;
  }

  #createSubmissionQueue(command: DataView, cdw10: number, cdw11: number): number {
    const { engine, maxQueueEntries, ioQueues } = this.#controller;
    const { submissionQueues, completionQueues } = engine;
    const [id, size0] = [cdw10 & 0xffff, cdw10 >>> 16];
    const base = get64(command, COMMAND.dataPointer);
    if (id === 0 || id > ioQueues || submissionQueues.has(id)) return NVME_STATUS.queueIdInvalid;
    const completions = completionQueues.get(cdw11 >>> 16);
    if (!completions || completions.id === 0) return NVME_STATUS.completionQueueInvalid;
    if (size0 === 0 || size0 > maxQueueEntries - 1) return NVME_STATUS.queueSizeInvalid;
    if ((cdw11 & QUEUE.contiguous) === 0) return NVME_STATUS.invalidField;
    if (base % CONTROLLER_PAGE !== 0) return NVME_STATUS.prpOffset;
    completions.users++;
    submissionQueues.set(id, new SubmissionQueue(id, base, size0 + 1, completions));
    return NVME_STATUS.success;
  }

  #deleteSubmissionQueue(id: number): number {
    const { submissionQueues } = this.#controller.engine;
    const queue = submissionQueues.get(id);
    if (id === 0 || !queue) return NVME_STATUS.queueIdInvalid;
    submissionQueues.delete(id);
    queue.completions.users--;
    for (const [command, work] of queue.outstanding) {
      work.cancel();
      this.#controller.engine.complete(queue, command, NVME_STATUS.abortedByQueueDeletion, 0);
    }
    queue.outstanding.clear();
    return NVME_STATUS.success;
  }

  #deleteCompletionQueue(id: number): number {
    const { completionQueues } = this.#controller.engine;
    const queue = completionQueues.get(id);
    if (id === 0 || !queue) return NVME_STATUS.queueIdInvalid;
    if (queue.users > 0) return NVME_STATUS.queueDeletionInvalid;
    completionQueues.delete(id);
    return NVME_STATUS.success;
  }

  #features(feature: number): AdminAnswer {
    if (feature !== FEATURE.numberOfQueues) return answer(NVME_STATUS.invalidField);
    const count = this.#controller.ioQueues - 1;
    return answer(NVME_STATUS.success, count | (count << 16));
  }

  /** Result bit 0: the command was not aborted. */
  #abort(cdw10: number): AdminAnswer {
    const queue = this.#controller.engine.submissionQueues.get(cdw10 & 0xffff);
    const id = cdw10 >>> 16;
    const work = queue?.outstanding.get(id);
    if (!queue || !work) return answer(NVME_STATUS.success, 1);
    work.cancel();
    queue.outstanding.delete(id);
    this.#controller.engine.complete(queue, id, NVME_STATUS.abortRequested, 0);
    return answer(NVME_STATUS.success, 0);
  }

  #logPage(command: DataView, cdw10: number): AdminAnswer {
    const page = cdw10 & 0xff;
    if (page !== LOG_PAGE.error && page !== LOG_PAGE.health && page !== LOG_PAGE.firmware)
      return answer(NVME_STATUS.logPageInvalid);
    const dwords = (cdw10 >>> 16) + (command.getUint32(COMMAND.cdw11, true) & 0xffff) * 65_536 + 1;
    return this.#give(command, new Uint8Array(Math.min(dwords * 4, IDENTIFY_BYTES)));
  }

  /** Writes what was asked for to where the command says. */
  #give(command: DataView, bytes: Uint8Array): AdminAnswer {
    this.#runs.clear();
    const at = COMMAND.dataPointer;
    const status = readPrps(this.#port, get64(command, at), get64(command, at + 8), bytes.length, this.#runs);
    if (status !== NVME_STATUS.success) return answer(status);
    return answer(this.#runs.write(this.#port, bytes) ? NVME_STATUS.success : NVME_STATUS.dataTransferError);
  }
}
