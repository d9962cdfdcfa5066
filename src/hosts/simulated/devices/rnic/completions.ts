/** Completion queues of the adapter: a ring in memory, written by DMA. */
import type { DmaAddr } from "../../../../base/index.ts";
import { COMPLETION_BYTES, type CompletionEntry, writeCompletion } from "../../../../layouts/rdma/index.ts";
import type { AdapterRing } from "../../../../platform/index.ts";
import type { DevicePort } from "../../device.ts";

interface Queue {
  readonly ring: AdapterRing;
  /** Counted without end. */
  written: number;
  read: number;
  armed: boolean;
  /** A completion found no room, or could not be written. */
  overrun: boolean;
}

/** Completions by queue. */
export class RnicCompletions {
  readonly #queues = new Map<number, Queue>();
  readonly #port: () => DevicePort;
  readonly #told: (queue: number) => void;

  constructor(port: () => DevicePort, told: (queue: number) => void) {
    this.#port = port;
    this.#told = told;
  }

  put(number: number, ring: AdapterRing): void {
    this.#queues.set(number, { ring, written: 0, read: 0, armed: false, overrun: false });
  }

  remove(number: number): void {
    this.#queues.delete(number);
  }

  read(number: number, index: number): void {
    const queue = this.#queues.get(number);
    if (queue) queue.read = index;
  }

  arm(number: number): void {
    const queue = this.#queues.get(number);
    if (queue) queue.armed = true;
  }

  clear(): void {
    this.#queues.clear();
  }

  /** False: it got lost, since the ring is full, or the IOMMU refused. The queue pair goes into the error state. */
  add(number: number, entry: Omit<CompletionEntry, "phase">): boolean {
    const queue = this.#queues.get(number);
    if (!queue || queue.overrun) return false;
    const { ring, written } = queue;
    if (written - queue.read >= ring.slots) {
      queue.overrun = true;
      return false;
    }
    const phase = Math.floor(written / ring.slots) % 2 === 0 ? 1 : 0;
    const at = (ring.address + (written % ring.slots) * COMPLETION_BYTES) as DmaAddr;
    if (!this.#port().write(at, writeCompletion({ ...entry, phase }))) {
      queue.overrun = true;
      return false;
    }
    queue.written++;
    if (queue.armed) {
      queue.armed = false;
      this.#told(number);
    }
    return true;
  }
}
