/**
 * Interrupts as callbacks: eventfds that the kernel signals, and one worker that waits for all of them.
 *
 * Idea: the worker sleeps in the kernel and wakes the event loop through shared memory, which is quicker than messages.
 * Promises: one call for each signal; none after its end. An eventfd is closed only when the worker has let go of it, so that its
 * number cannot come back as somebody else's. The process stays alive while there are any, and can end while there are none.
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { INTERRUPT_WORKER } from "./interrupt-worker.ts";
import type { Fd, Syscalls } from "./syscalls.ts";

/** Eventfds that one worker waits for. */
const SLOTS = 1024;
/** Words before those of the slots, and after. */
const BEFORE = 1;
const AFTER = 1;

/** Part of the language since 2024, and of Node since 16. */
const waitAsync = (
  Atomics as unknown as {
    waitAsync(words: Int32Array, index: number, value: number): { async: boolean; value: Promise<string> | string };
  }
).waitAsync;

/** Somebody who is called back. */
interface Watch {
  readonly fd: Fd;
  readonly callback: () => void;
}

export interface InterruptSource {
  /** The eventfd to give to the kernel. */
  readonly fd: Fd;
  /** No callback comes any more. Take the eventfd from the kernel first. */
  close(): void;
}

export class Interrupts {
  readonly #sys: Syscalls;
  readonly #words = new Int32Array(new SharedArrayBuffer((BEFORE + SLOTS + AFTER) * 4));
  readonly #watches = new Map<number, Watch>();
  /** To be closed when the worker has read the message of that number. */
  readonly #ended: { fd: Fd; message: number }[] = [];
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  #control: Fd = -1;
  #messages = 0;
  #lastSlot = 0;

  constructor(sys: Syscalls) {
    this.#sys = sys;
  }

  /** An eventfd; `callback` comes once for each signal. @throws DmaError ERR_DMA_SYSCALL */
  open(callback: () => void): InterruptSource {
    const fd = this.#sys.eventfd();
    let slot = this.#lastSlot;
    do slot = (slot + 1) % SLOTS;
    while (this.#watches.has(slot)); // the longest unused: a late signal for its last owner is long gone
    this.#lastSlot = slot;
    Atomics.store(this.#words, BEFORE + slot, 0);
    const watch = { fd, callback };
    this.#watches.set(slot, watch);
    this.#tell();
    const close = (): void => {
      if (this.#watches.get(slot) !== watch) return;
      this.#watches.delete(slot);
      this.#tell();
      this.#ended.push({ fd, message: this.#messages });
    };
    return { fd, close };
  }

  /** The worker ends; no callback comes any more. */
  close(): void {
    const worker = this.#worker;
    if (worker === undefined) return;
    const [control, port] = [this.#control, this.#port!];
    const left = [control, ...[...this.#watches.values(), ...this.#ended.splice(0)].map(({ fd }) => fd)];
    this.#watches.clear();
    this.#worker = undefined;
    port.postMessage(null);
    this.#sys.signal(control);
    worker.once("exit", () => {
      for (const fd of left) this.#sys.close(fd);
      port.close();
    });
  }

  #tell(): void {
    if (this.#worker === undefined) this.#start();
    const waiting = [...this.#watches].map(([slot, { fd }]) => [slot, fd]);
    this.#port!.postMessage({ number: ++this.#messages, waiting });
    this.#sys.signal(this.#control);
    if (this.#watches.size > 0) this.#worker!.ref();
    else this.#worker!.unref();
  }

  #start(): void {
    this.#control = this.#sys.eventfd();
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.unref();
    this.#worker = new Worker(INTERRUPT_WORKER, {
      eval: true,
      execArgv: [], // whatever this process was started with is not for a few lines of CommonJS
      transferList: [port2],
      workerData: {
        library: this.#sys.workerLibrary,
        control: this.#control,
        port: port2,
        words: this.#words.buffer,
      },
    });
    void this.#dispatch(this.#worker);
  }

  async #dispatch(worker: Worker): Promise<void> {
    const words = this.#words;
    let seen = Atomics.load(words, 0);
    for (;;) {
      const waiting = waitAsync(words, 0, seen);
      if (waiting.async) await waiting.value;
      if (this.#worker !== worker) return;
      seen = Atomics.load(words, 0);
      for (const [slot, watch] of [...this.#watches]) {
        const signals = Atomics.exchange(words, BEFORE + slot, 0);
        for (let i = 0; i < signals && this.#watches.get(slot) === watch; i++) called(watch.callback);
      }
      const read = Atomics.load(words, words.length - 1);
      while (this.#ended[0] !== undefined && this.#ended[0].message <= read) this.#sys.close(this.#ended.shift()!.fd);
    }
  }
}

/** What a callback throws is its own affair: it ends the process as any error that nobody catches, if nobody does, and not this loop. */
export function called(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
