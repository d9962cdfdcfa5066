/**
 * An operation: one call of a user, which may become several commands.
 *
 * It is over when its last command is, and no sooner, even if it failed or was given up: until then its memory belongs to the
 * device. Objects go round in a pool; only the promise is new each time.
 */
import { Bio, type BlockStatus, type QueueLimits, VectorList } from "../block/index.ts";
import { commandFailed, requestFailed } from "./errors.ts";

export class Operation {
  opcode = 0;
  namespace = 0;
  control = 0;
  /** What has not become commands yet. */
  readonly rest: Bio = new Bio();
  readonly data: VectorList = new VectorList();
  readonly metadata: VectorList = new VectorList();
  /** Blocks of a command without data, from `rest.firstBlock` on. */
  blocks = 0;
  /** Something has not become a command yet. */
  more = false;
  /** Commands that are not over. */
  pending = 0;
  /** What went wrong first. */
  failure: unknown = undefined;
  limits: QueueLimits | undefined = undefined;
  /** It waits to become commands; it is over. */
  queued = false;
  settled = false;
  resolve: () => void = () => {};
  reject: (reason: unknown) => void = () => {};

  /** A user's call, ready to be filled in. */
  begin(opcode: number, namespace: number, control: number): void {
    this.opcode = opcode;
    this.namespace = namespace;
    this.control = control;
    this.blocks = 0;
    this.pending = 0;
    this.more = true;
    this.failure = undefined;
    this.settled = false;
    this.data.clear();
    this.metadata.clear();
  }

  /** The first failure counts; nothing more is sent after it. */
  fail(reason: unknown): void {
    this.failure ??= reason;
    this.more = false;
  }

  failWith(what: string, firstBlock: number, status: number): void {
    this.fail(commandFailed(`${what} of block ${firstBlock} and after`, status));
  }

  failAs(what: string, status: BlockStatus, cause?: unknown): void {
    this.fail(requestFailed(what, status, cause));
  }

  settle(): void {
    if (this.failure === undefined) this.resolve();
    else this.reject(this.failure);
    this.resolve = () => {};
    this.reject = () => {};
  }
}
