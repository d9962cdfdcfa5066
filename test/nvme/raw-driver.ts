/** A driver that does what it is told, right or wrong: what tests of the simulated controller stand on. */
import { expect } from "vitest";
import {
  NvmeController,
  type NvmeModelOptions,
  SimulatedMachine,
  type SimulatedPciDevice,
} from "../../src/hosts/simulated/index.ts";
import {
  ADMIN,
  adminQueueSizes,
  COMMAND,
  COMPLETION,
  CONFIGURATION,
  CONFIGURATION_4K,
  completionDoorbell,
  DO_NOT_RETRY,
  put64,
  putCommand,
  QUEUE,
  REGISTER,
  statusName,
  submissionDoorbell,
  viewOf,
  write64,
} from "../../src/layouts/nvme/index.ts";
import type { HostBuffer, Registers } from "../../src/platform/index.ts";

/** Of the queues, unless a test says so. */
export const ENTRIES: number = 16;

export interface RawQueue {
  readonly id: number;
  readonly commands: HostBuffer;
  readonly completions: HostBuffer;
  tail: number;
  head: number;
  phase: number;
}

/** Without an IOMMU: addresses are physical. */
export class RawDriver {
  readonly machine: SimulatedMachine = new SimulatedMachine({ memoryBytes: 64 * 1024 * 1024 });
  readonly controller: NvmeController;
  readonly device: SimulatedPciDevice;
  readonly admin: RawQueue;
  interrupts = 0;
  #id = 0;

  constructor(options: Partial<NvmeModelOptions> = {}) {
    this.controller = new NvmeController({
      namespaces: [{ blocks: 1024 }, { blocks: 64, blockBytes: 4096 }],
      ...options,
    });
    this.device = this.machine.plug("0.0", this.controller)[0]!;
    this.device.setBusMaster(true);
    this.device.onInterrupt(0, () => {
      this.interrupts++;
    });
    this.admin = this.queue(0);
  }

  get registers(): Registers {
    return this.device.bar(0)!;
  }

  get status(): number {
    return this.registers.read32(REGISTER.status);
  }

  queue(id: number, entries: number = ENTRIES): RawQueue {
    const ram = this.machine.ram;
    return {
      id,
      commands: ram.allocate(entries * 64),
      completions: ram.allocate(entries * 16),
      tail: 0,
      head: 0,
      phase: 1,
    };
  }

  enable(configuration: number = CONFIGURATION_4K): void {
    this.registers.write32(REGISTER.adminQueueSizes, adminQueueSizes(ENTRIES));
    write64(this.registers, REGISTER.adminSubmissionQueue, this.admin.commands.phys);
    write64(this.registers, REGISTER.adminCompletionQueue, this.admin.completions.phys);
    this.registers.write32(REGISTER.configuration, configuration | CONFIGURATION.enable);
    this.machine.clock.advance(10);
  }

  /** Puts a command into the ring; the doorbell is another matter. */
  put(queue: RawQueue, opcode: number, namespace: number, fill: (view: DataView) => void = () => {}): number {
    const view = new DataView(new ArrayBuffer(64));
    putCommand(view, 0, opcode, namespace, this.#id);
    fill(view);
    queue.commands.bytes.set(new Uint8Array(view.buffer), queue.tail * 64);
    queue.tail = (queue.tail + 1) % (queue.commands.length / 64);
    return this.#id++;
  }

  ring(queue: RawQueue): void {
    this.registers.write32(submissionDoorbell(queue.id, 0), queue.tail);
    this.machine.clock.advance(1);
  }

  /** The next completion, if there is one. */
  take(queue: RawQueue): { id: number; status: number; result: number; head: number } | undefined {
    const view = viewOf(queue.completions.bytes);
    const at = queue.head * 16;
    const status = view.getUint16(at + COMPLETION.status, true);
    if ((status & 1) !== queue.phase) return undefined;
    queue.head = (queue.head + 1) % (queue.completions.length / 16);
    if (queue.head === 0) queue.phase ^= 1;
    return {
      id: view.getUint16(at + COMPLETION.id, true),
      status: status >>> 1,
      result: view.getUint32(at + COMPLETION.result, true),
      head: view.getUint16(at + COMPLETION.submissionHead, true),
    };
  }

  consume(queue: RawQueue): void {
    this.registers.write32(completionDoorbell(queue.id, 0), queue.head);
  }

  /** One command: what its completion says. A name, with "*" if it need not be tried again. */
  send(
    opcode: number,
    namespace: number = 0,
    fill: (view: DataView) => void = () => {},
    queue: RawQueue = this.admin,
  ): string {
    const id = this.put(queue, opcode, namespace, fill);
    this.ring(queue);
    const completion = this.take(queue);
    if (!completion) return "none";
    this.consume(queue);
    expect(completion.id).toBe(id);
    return statusName(completion.status) + ((completion.status & DO_NOT_RETRY) !== 0 ? "*" : "");
  }

  createCq(
    id: number,
    size0: number = ENTRIES - 1,
    flags: number = QUEUE.contiguous,
    base: number = 0x10_0000,
  ): string {
    return this.send(ADMIN.createCompletionQueue, 0, (view) => {
      put64(view, COMMAND.dataPointer, base);
      view.setUint32(COMMAND.cdw10, id | (size0 << 16), true);
      view.setUint32(COMMAND.cdw11, flags, true);
    });
  }

  createSq(
    id: number,
    completions: number,
    size0: number = ENTRIES - 1,
    flags: number = QUEUE.contiguous,
    base: number = 0x10_0000,
  ): string {
    return this.send(ADMIN.createSubmissionQueue, 0, (view) => {
      put64(view, COMMAND.dataPointer, base);
      view.setUint32(COMMAND.cdw10, id | (size0 << 16), true);
      view.setUint32(COMMAND.cdw11, flags | (completions << 16), true);
    });
  }

  delete(opcode: number, id: number): string {
    return this.send(opcode, 0, (view) => view.setUint32(COMMAND.cdw10, id, true));
  }

  ioQueue(entries: number = ENTRIES): RawQueue {
    const queue = this.queue(1, entries);
    expect(this.createCq(1, entries - 1, QUEUE.contiguous, queue.completions.phys)).toBe("success");
    expect(this.createSq(1, 1, entries - 1, QUEUE.contiguous, queue.commands.phys)).toBe("success");
    return queue;
  }
}
