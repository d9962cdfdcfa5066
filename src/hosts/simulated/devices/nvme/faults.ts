/**
 * What may go wrong in a simulated NVMe controller, on purpose.
 *
 * Idea: a plan is asked once per command and answers with one fault or none; a plan made from a random stream makes a run that
 * its seed repeats.
 */
import type { Random } from "../../../../base/index.ts";

/** A command, as a fault plan is asked about it. */
export interface CommandSeen {
  /** Submission queue; 0 is the admin queue. */
  readonly queue: number;
  /** Of an admin or an I/O command, by `queue`. */
  readonly opcode: number;
  /** Command identifier, as the driver gave it. */
  readonly id: number;
  /** What part of its namespace an I/O command is about; of others nothing. */
  readonly firstBlock: number;
  /** Blocks that an I/O command is about, from `firstBlock` on; of others 0. */
  readonly blocks: number;
}

/** What can go wrong with a command. */
export type NvmeFault =
  | {
      /** It is done, and nobody is told. */
      readonly kind: "lost";
    }
  | {
      /** It takes `ms` longer. */
      readonly kind: "slow";
      /** Milliseconds. */
      readonly ms: number;
    }
  | {
      /** It is done at once, before anything else, and told `ms` later. */
      readonly kind: "held";
      /** Milliseconds. */
      readonly ms: number;
    }
  | {
      /**
       * It is done `ms` later, even if the controller was reset or removed meanwhile: a device that does not let
       * go.
       */
      readonly kind: "late";
      /** Milliseconds. */
      readonly ms: number;
    }
  | {
      /** It fails with this status (type << 8 | code), and moves no data. */
      readonly kind: "status";
      /** Status code type << 8 | status code. */
      readonly status: number;
    }
  | {
      /** The link breaks down in the middle of the data. */
      readonly kind: "transfer-error";
    }
  | {
      /** It is told twice. */
      readonly kind: "duplicate";
    }
  | {
      /** It is told under another id first. */
      readonly kind: "wrong-id";
      /** The wrong command identifier. */
      readonly id: number;
    };

/** Decides for each command what goes wrong with it; undefined: nothing. */
export type FaultPlan = (command: CommandSeen) => NvmeFault | undefined;

/** Each fault on I/O commands with the odds of `perThousand` of it. */
export function randomFaults(
  random: Random,
  perThousand: Readonly<Partial<Record<NvmeFault["kind"], number>>>,
): FaultPlan {
  return ({ queue, id }) => {
    if (queue === 0) return undefined;
    for (const kind of Object.keys(perThousand) as NvmeFault["kind"][]) {
      if (!random.chance(perThousand[kind] ?? 0, 1000)) continue;
      if (kind === "slow" || kind === "held" || kind === "late") return { kind, ms: 1 + random.below(100) };
      if (kind === "status") return { kind, status: random.pick([0x004, 0x006, 0x281]) };
      // Another generation of the same tag: an id that is never in flight, so the lie can be seen through.
      if (kind === "wrong-id") return { kind, id: id ^ (1 << random.between(12, 15)) };
      return { kind };
    }
    return undefined;
  };
}
