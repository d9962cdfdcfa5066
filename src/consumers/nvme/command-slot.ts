/**
 * A command slot: everything that belongs to one tag of a queue, made once and used again and again.
 *
 * Idea: request, bio and mapping live here, so that a command in steady state allocates nothing. Each use of a tag has a
 * generation; a completion with another one is not for this use.
 */
import { commandId } from "../../layouts/nvme/index.ts";
import { Bio, BlockRequest } from "../block/index.ts";
import { CommandMapping } from "./command-mapping.ts";

/** Called when a command is over: its status (type << 8 | code, and the do-not-retry bit), and dword 0. */
type CommandEnd = (slot: CommandSlot, status: number, result: number) => void;

/** The queue that a slot belongs to, as far as the slot's users ask it. */
interface SlotOwner {
  readonly id: number;
  /** Where the next command is written before it is pushed. */
  readonly command: DataView;
  /** The command of the slot goes to the controller, which has until `deadlineMs`. */
  push(slot: CommandSlot, deadlineMs: number): void;
  /** The slot's command is over: its tag may be used again. */
  release(slot: CommandSlot): void;
}

export class CommandSlot {
  readonly queue: SlotOwner;
  readonly tag: number;
  #generation = 0;
  inFlight = false;
  /** When it has run out of time; 0 if it is not in flight. */
  deadlineMs = 0;
  /** An abort was sent for it. */
  aborting = false;
  tries = 0;
  opcode = 0;
  namespace = 0;
  control = 0;
  /** Blocks (or ranges) that the command is about. */
  blocks = 0;
  /** Whose the command is. */
  owner: unknown = undefined;
  end: CommandEnd | undefined = undefined;
  readonly mapping: CommandMapping = new CommandMapping();
  readonly request: BlockRequest = new BlockRequest();
  readonly bio: Bio = new Bio();

  constructor(queue: SlotOwner, tag: number) {
    this.queue = queue;
    this.tag = tag;
  }

  /** The id of the current use. */
  get id(): number {
    return commandId(this.tag, this.#generation);
  }

  /** A new use: completions of earlier ones are stale from now on. */
  renew(): void {
    this.#generation = (this.#generation + 1) & 0xf;
  }
}
