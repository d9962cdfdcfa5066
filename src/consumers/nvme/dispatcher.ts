/**
 * The dispatcher: operations become commands on queues, and completions become ends of operations.
 *
 * Idea: an operation is split as it is sent, one request at a time, each into a slot of its own; what finds no slot, address space
 * or descriptor waits and goes on when something has ended. Doorbells are rung once for all that was pushed.
 * Promises: a command's memory is unmapped once, after its end, before anybody hears of it; a command that failed for a reason
 * that may pass is tried again, so often and no more; every operation ends.
 * Specified by: behaviour of Linux 7.2 NVMe driver and block layer (retries, requeueing).
 */
import {
  COMMAND,
  DO_NOT_RETRY,
  IO,
  NVME_STATUS,
  putBlocks,
  putCommand,
  STATUS_MASK,
} from "../../layouts/nvme/index.ts";
import type { Timer } from "../../platform/index.ts";
import { type BlockStatus, isRetryable, type QueueLimits } from "../block/index.ts";
import type { CommandSlot } from "./command-slot.ts";
import type { Controller, ControllerUser } from "./controller.ts";
import type { DataMapper } from "./data-mapper.ts";
import { closed } from "./errors.ts";
import type { Operation } from "./operation.ts";
import type { QueuePair } from "./queue-pair.ts";

/** Blocks of one command without data. */
const MOST_BLOCKS = 65_536;
/** How long to wait for memory when no command is in flight whose end could bring some, and how often. */
const RETRY_MS = 1;
const MOST_STALLS = 100;

export class Dispatcher implements ControllerUser {
  readonly #controller: Controller;
  readonly #mapper: DataMapper;
  readonly #retries: number;
  readonly #waiting: Operation[] = [];
  /** Commands to be sent (again): they come before anything new. */
  readonly #again: CommandSlot[] = [];
  readonly #idle: (() => void)[] = [];
  readonly #end = (slot: CommandSlot, status: number): void => this.#ended(slot, status);
  #next = 0;
  #stalls = 0;
  #timer: Timer | undefined;
  #busy = 0;

  constructor(controller: Controller, mapper: DataMapper, retries: number) {
    this.#controller = controller;
    this.#mapper = mapper;
    this.#retries = retries;
    controller.user = this;
  }

  /** Operations that are not over. */
  get busy(): number {
    return this.#busy;
  }

  /** Sends an operation; it settles when it is over. `limits` are those of its namespace. */
  submit(operation: Operation, limits: QueueLimits): void {
    operation.limits = limits;
    operation.queued = true;
    this.#busy++;
    this.#waiting.push(operation);
    this.resume();
  }

  /** Gives an operation up: what was not sent is not, and the controller is asked to abort the rest. */
  cancel(operation: Operation, reason: unknown): void {
    operation.fail(reason);
    for (const queue of this.#controller.queues)
      for (const slot of queue.slots) if (slot.inFlight && slot.owner === operation) this.#controller.abort(slot);
    this.#settle(operation);
    this.resume();
  }

  /** Resolves when no operation is left. */
  idle(): Promise<void> {
    return this.#busy === 0 ? Promise.resolve() : new Promise((resolve) => void this.#idle.push(resolve));
  }

  /** Sends what can be sent. */
  resume(): void {
    const { state } = this.#controller;
    if (state === "dead") this.offline();
    if (state !== "live") return;
    let room = true;
    while (room && this.#again.length > 0) {
      room = this.#send(this.#again[0]!);
      if (room) this.#again.shift();
    }
    while (room && this.#waiting.length > 0) {
      const operation = this.#waiting[0]!;
      room = this.#advance(operation);
      if (operation.more) break;
      operation.queued = false;
      this.#waiting.shift();
      this.#settle(operation);
    }
    for (const queue of this.#controller.queues) queue.ringDoorbell();
    if (this.#controller.inFlight > 0) this.#controller.watch();
  }

  offline(): void {
    const error = closed(this.#controller.device.name);
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const slot of this.#again.splice(0)) {
      this.#owner(slot).fail(error);
      this.#give(slot);
    }
    for (const operation of this.#waiting.slice()) {
      operation.fail(error);
      this.#settle(operation);
    }
  }

  /** Turns an operation into commands. False if there is no room for more of anything. */
  #advance(operation: Operation): boolean {
    while (operation.more) {
      const slot = this.#acquire();
      if (!slot) return false;
      if (!this.#cut(operation, slot)) continue;
      operation.pending++;
      if (this.#send(slot)) continue;
      this.#again.push(slot);
      return false;
    }
    return true;
  }

  /** Gives `slot` the next part of the operation. False if it cannot be cut, and then the operation has failed. */
  #cut(operation: Operation, slot: CommandSlot): boolean {
    slot.owner = operation;
    slot.end = this.#end;
    slot.tries = 0;
    slot.opcode = operation.opcode;
    slot.namespace = operation.namespace;
    slot.control = operation.control;
    const { rest, limits } = operation;
    if (operation.data.count > 0) {
      try {
        operation.more = rest.split(limits!, slot.bio);
      } catch (error) {
        operation.fail(error);
        slot.queue.release(slot);
        return false;
      }
      slot.request.start(slot.bio);
      slot.blocks = slot.request.bytes / limits!.blockBytes;
      return true;
    }
    slot.request.clear(rest.operation);
    slot.request.firstBlock = rest.firstBlock;
    slot.blocks = Math.min(operation.blocks, MOST_BLOCKS);
    rest.firstBlock += slot.blocks;
    operation.blocks -= slot.blocks;
    operation.more = operation.blocks > 0;
    return true;
  }

  /** Maps and pushes a command, or ends it if that can never be. False if there is no memory for it now. */
  #send(slot: CommandSlot): boolean {
    const operation = this.#owner(slot);
    if (operation.failure !== undefined) {
      this.#give(slot);
      return true;
    }
    const { queue } = slot;
    const view = queue.command;
    putCommand(view, 0, slot.opcode, slot.namespace, slot.id);
    const status = this.#map(slot, operation, view);
    if (status === "ok") {
      this.#stalls = 0;
      queue.push(slot, this.#controller.deadline());
      return true;
    }
    const cause = this.#mapper.takeCause();
    if (isRetryable(status) && this.#mayStall()) {
      this.#controller.warnings.requeued++;
      return false;
    }
    operation.failAs(nameOf(slot.opcode), status, cause);
    this.#give(slot);
    return true;
  }

  #map(slot: CommandSlot, operation: Operation, view: DataView): BlockStatus {
    const { request, mapping } = slot;
    if (request.bytes > 0) {
      const status = this.#mapper.mapData(mapping, request, view, 0);
      if (status !== "ok") return status;
      const metadata = this.#mapper.mapMetadata(mapping, request, view, 0);
      if (metadata !== "ok") {
        this.#mapper.unmapData(mapping);
        return metadata;
      }
    }
    if (slot.opcode === IO.datasetManagement) {
      view.setUint32(COMMAND.cdw10, slot.blocks - 1, true); // ranges less one
      view.setUint32(COMMAND.cdw11, operation.control, true);
    } else if (slot.opcode !== IO.flush) putBlocks(view, 0, request.firstBlock, slot.blocks, slot.control);
    return "ok";
  }

  /** Is something going on that may free memory? If not, it is looked again a little later, so often and no more. */
  #mayStall(): boolean {
    if (this.#controller.inFlight > 0) return true;
    if (this.#stalls++ >= MOST_STALLS) {
      this.#stalls = 0;
      return false;
    }
    this.#timer ??= this.#controller.clock.after(RETRY_MS, () => {
      this.#timer = undefined;
      this.resume();
    });
    return true;
  }

  #ended(slot: CommandSlot, status: number): void {
    const operation = this.#owner(slot);
    this.#mapper.unmap(slot.mapping);
    const code = status & STATUS_MASK;
    if (code !== NVME_STATUS.success) {
      const lasting = (status & DO_NOT_RETRY) !== 0 || slot.tries >= this.#retries || operation.failure !== undefined;
      if (!lasting && this.#controller.state !== "dead") {
        slot.tries++;
        this.#controller.warnings.retries++;
        this.#again.push(slot);
        return;
      }
      if (code === NVME_STATUS.hostAborted) operation.failAs(nameOf(slot.opcode), this.#lostStatus());
      else operation.failWith(nameOf(slot.opcode), slot.request.firstBlock, status);
    }
    this.#give(slot);
  }

  #lostStatus(): BlockStatus {
    return this.#controller.state === "dead" ? "offline" : "timeout";
  }

  /** A command of an operation is over, and its slot is free. */
  #give(slot: CommandSlot): void {
    const operation = this.#owner(slot);
    slot.queue.release(slot);
    operation.pending--;
    this.#settle(operation);
  }

  /** Ends an operation if it is over. A second time does nothing. */
  #settle(operation: Operation): void {
    if (operation.more || operation.pending > 0 || operation.settled) return;
    if (operation.queued) this.#waiting.splice(this.#waiting.indexOf(operation), 1);
    operation.queued = false;
    operation.settled = true;
    this.#busy--;
    operation.settle();
    if (this.#busy === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  #owner(slot: CommandSlot): Operation {
    return slot.owner as Operation;
  }

  /** A free slot, from the queues in turn. */
  #acquire(): CommandSlot | undefined {
    const queues = this.#controller.queues as readonly QueuePair[];
    for (let i = 0; i < queues.length; i++) {
      const queue = queues[this.#next]!;
      this.#next = this.#next + 1 === queues.length ? 0 : this.#next + 1;
      const slot = queue.acquire();
      if (slot) return slot;
    }
    return undefined;
  }
}

const NAMES: Readonly<Record<number, string>> = {
  [IO.flush]: "flush",
  [IO.write]: "write",
  [IO.read]: "read",
  [IO.compare]: "compare",
  [IO.writeZeroes]: "write zeroes",
  [IO.datasetManagement]: "discard",
};
const nameOf = (opcode: number): string => NAMES[opcode] ?? `command 0x${opcode.toString(16)}`;
