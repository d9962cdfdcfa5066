/**
 * A queue pair: a ring of commands, a ring of completions, and the slots of the commands in between.
 *
 * Idea: a command is composed beside the ring and copied in when it is complete. Completions are read as long as their phase is
 * the expected one, all that there are, and then the controller is told once how far.
 * Promises: a completion that is stale, told twice or for nobody is counted and dropped; a slot ends exactly once per use.
 * Specified by: NVM Express base specification 2.0, 3.3.1; behaviour of Linux 7.2 NVMe driver (generations in command ids).
 */
import {
  COMMAND_BYTES,
  COMPLETION,
  COMPLETION_BYTES,
  completionDoorbell,
  generationOf,
  NVME_STATUS,
  submissionDoorbell,
  tagOf,
  viewOf,
} from "../../layouts/nvme/index.ts";
import type { Registers } from "../../platform/index.ts";
import { CommandSlot } from "./command-slot.ts";
import type { SharedMemory } from "./descriptor-pool.ts";
import { FreeStack } from "./free-stack.ts";
import type { NvmeWarnings } from "./options.ts";

/** Where the commands of a queue go: host memory, or the controller's own. */
export interface CommandRing {
  readonly address: number;
  put(index: number, command: Uint8Array): void;
  free(): void;
}

/** A ring in memory that CPU and device share. */
export function hostRing(memory: SharedMemory): CommandRing {
  const { address, bytes } = memory;
  return {
    address,
    put: (index, command) => bytes.set(command, index * COMMAND_BYTES),
    free: () => memory.free(),
  };
}

export class QueuePair {
  readonly id: number;
  /** Entries of each ring; one is always empty. */
  readonly size: number;
  readonly slots: readonly CommandSlot[];
  readonly ring: CommandRing;
  completions: SharedMemory;
  inFlight = 0;
  /** The command that is being composed. */
  readonly command: DataView = new DataView(new ArrayBuffer(COMMAND_BYTES));
  readonly #commandBytes: Uint8Array;
  #view: DataView;
  readonly #registers: Registers;
  readonly #stride: number;
  readonly #warnings: NvmeWarnings;
  readonly #free = new FreeStack<CommandSlot>();
  #tail = 0;
  #rung = 0;
  #head = 0;
  #phase = 1;
  /** False while the controller is stopped: its doorbells are not to be touched. */
  live = false;

  constructor(
    id: number,
    size: number,
    ring: CommandRing,
    completions: SharedMemory,
    registers: Registers,
    stride: number,
    warnings: NvmeWarnings,
  ) {
    this.id = id;
    this.size = size;
    this.ring = ring;
    this.completions = completions;
    this.#commandBytes = new Uint8Array(this.command.buffer);
    this.#view = viewOf(completions.bytes);
    this.#registers = registers;
    this.#stride = stride;
    this.#warnings = warnings;
    this.slots = Array.from({ length: size - 1 }, (_, tag) => new CommandSlot(this, tag));
    for (const slot of [...this.slots].reverse()) this.#free.give(slot);
  }

  /** A slot that nobody uses; undefined if the queue is full. Goes back with {@link release}. */
  acquire(): CommandSlot | undefined {
    return this.#free.take();
  }

  release(slot: CommandSlot): void {
    slot.owner = undefined;
    slot.end = undefined;
    this.#free.give(slot);
  }

  /** Puts the composed command into the ring, for `slot`. The controller hears of it by {@link ring}. */
  push(slot: CommandSlot, deadlineMs: number): void {
    slot.inFlight = true;
    slot.aborting = false;
    slot.deadlineMs = deadlineMs;
    this.inFlight++;
    this.ring.put(this.#tail, this.#commandBytes);
    this.#tail = this.#tail + 1 === this.size ? 0 : this.#tail + 1;
  }

  /** Tells the controller of everything pushed. One register write for any number of commands. */
  ringDoorbell(): void {
    if (!this.live || this.#tail === this.#rung) return;
    this.#rung = this.#tail;
    this.#registers.write32(submissionDoorbell(this.id, this.#stride), this.#tail);
  }

  /** Takes all completions there are. How many commands ended. */
  process(): number {
    if (!this.live) return 0;
    const view = this.#view;
    let taken = 0;
    let ended = 0;
    while ((view.getUint8(this.#head * COMPLETION_BYTES + COMPLETION.status) & 1) === this.#phase) {
      const at = this.#head * COMPLETION_BYTES;
      const id = view.getUint16(at + COMPLETION.id, true);
      const status = view.getUint16(at + COMPLETION.status, true) >>> 1;
      const result = view.getUint32(at + COMPLETION.result, true);
      if (++this.#head === this.size) {
        this.#head = 0;
        this.#phase ^= 1;
      }
      taken++;
      const slot = this.#find(id);
      if (!slot) continue;
      this.#end(slot, status, result);
      ended++;
      if (!this.live) return ended; // the end of a command stopped the controller
    }
    if (taken > 0) this.#registers.write32(completionDoorbell(this.id, this.#stride), this.#head);
    return ended;
  }

  /** Ends every command in flight: the controller is stopped and can do nothing with their memory any more. */
  cancelAll(): void {
    for (const slot of this.slots) if (slot.inFlight) this.#end(slot, NVME_STATUS.hostAborted, 0);
  }

  /**
   * Both rings are empty, as the controller believes when the queue is created. Completions come into other memory from now on,
   * so that a controller that did not let go cannot put one of before the reset among those of after.
   */
  restart(completions: SharedMemory): void {
    this.completions.free();
    this.completions = completions;
    this.#view = viewOf(completions.bytes);
    completions.bytes.fill(0);
    this.#tail = 0;
    this.#rung = 0;
    this.#head = 0;
    this.#phase = 1;
  }

  free(): void {
    this.ring.free();
    this.completions.free();
  }

  #find(id: number): CommandSlot | undefined {
    const slot = this.slots[tagOf(id)];
    if (!slot) this.#warnings.unknownTag++;
    else if (!slot.inFlight) this.#warnings.notInFlight++;
    else if (generationOf(slot.id) !== generationOf(id)) this.#warnings.staleGeneration++;
    else return slot;
    return undefined;
  }

  #end(slot: CommandSlot, status: number, result: number): void {
    slot.inFlight = false;
    slot.deadlineMs = 0;
    slot.renew();
    this.inFlight--;
    slot.end!(slot, status, result);
  }
}
