/**
 * The file behind a queue of an iommufd: read, written and polled by number, like any open file.
 *
 * Idea: while somebody has it open, the queue cannot be destroyed and the iommufd stays alive.
 */
import type { OpenFile } from "../../platform/index.ts";
import type { IommufdObject } from "./objects.ts";

/** What the file passes on. */
interface QueueCalls {
  /** Bytes read. @throws DmaError */
  readonly read: (into: Uint8Array) => number;
  /** Bytes written. @throws DmaError */
  readonly write: (from: Uint8Array) => number;
  readonly poll: () => {
    /** A read would give something. */
    readonly in: boolean;
    /** A write would be taken. */
    readonly out: boolean;
  };
}

/** A queue's open file. Its maker holds it once: {@link QueueFile.release} ends that. */
export class QueueFile implements OpenFile {
  readonly kind: string;
  readonly #context: OpenFile;
  readonly #queue: IommufdObject;
  readonly #calls: QueueCalls;
  #holders = 0;

  /** Made with its queue; keeps `context`, the iommufd, alive while somebody has it open. */
  constructor(kind: string, context: OpenFile, queue: IommufdObject, calls: QueueCalls) {
    this.kind = kind;
    this.#context = context;
    this.#queue = queue;
    this.#calls = calls;
  }

  /** Bytes read: 0 if there is nothing. @throws DmaError ESPIPE, EINVAL */
  read(into: Uint8Array): number {
    return this.#calls.read(into);
  }

  /** Bytes written. @throws DmaError ESPIPE, EINVAL */
  write(from: Uint8Array): number {
    return this.#calls.write(from);
  }

  /** Whether a read would give something, and a write would be taken. */
  poll(): {
    /** A read would give something. */
    readonly in: boolean;
    /** A write would be taken. */
    readonly out: boolean;
  } {
    return this.#calls.poll();
  }

  acquire(): void {
    if (this.#holders++ > 0) return;
    this.#queue.users++;
    this.#context.acquire();
  }

  release(): void {
    if (--this.#holders > 0) return;
    this.#queue.users--;
    this.#context.release();
  }
}
