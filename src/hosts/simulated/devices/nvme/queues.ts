/**
 * Queues of the simulated NVMe controller: rings in host memory (or in the controller's own), as the controller sees them.
 *
 * Specified by: NVM Express base specification 2.0, 3.3.1 (queues over PCI Express).
 */

/** How an admin command ended. */
export interface AdminAnswer {
  readonly status: number;
  readonly result: number;
}

/** A ring of commands. The driver moves the tail, the controller the head. */
export class SubmissionQueue {
  readonly id: number;
  readonly base: number;
  readonly size: number;
  readonly completions: CompletionQueue;
  head = 0;
  tail = 0;
  /** Commands fetched and not completed, by id. */
  readonly outstanding: Map<number, { cancel(): void }> = new Map();

  constructor(id: number, base: number, size: number, completions: CompletionQueue) {
    this.id = id;
    this.base = base;
    this.size = size;
    this.completions = completions;
  }
}

/** What a completion says, until there is room for it. */
export interface Completion {
  readonly queue: SubmissionQueue;
  readonly id: number;
  readonly status: number;
  readonly result: number;
}

/** A ring of completions. The controller moves the tail, the driver the head. */
export class CompletionQueue {
  readonly id: number;
  readonly base: number;
  readonly size: number;
  /** Interrupt vector; -1 without interrupts. */
  readonly vector: number;
  head = 0;
  tail = 0;
  phase = 1;
  /** Submission queues that end here. */
  users = 0;
  /** Completions that wait for the driver to make room. */
  readonly held: Completion[] = [];

  constructor(id: number, base: number, size: number, vector: number) {
    this.id = id;
    this.base = base;
    this.size = size;
    this.vector = vector;
  }

  get full(): boolean {
    return (this.tail + 1) % this.size === this.head;
  }
}
