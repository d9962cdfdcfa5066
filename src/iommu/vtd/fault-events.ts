/** What can go wrong at a VT-d unit, as events. */
import type { TranslationFault } from "./fault-record.ts";

/** One event of a VT-d unit. */
export type VtdFault = {
  /** When the driver noticed, ms of the clock it was given. */
  readonly timeMs: number;
} & (
  | ({
      /** A device's request was refused. */
      readonly kind: "translation";
    } & TranslationFault)
  | {
      /** Records were lost: there were more faults than registers for them. */
      readonly kind: "records-lost";
    }
  | {
      /**
       * A device did not answer an invalidation of its TLB, and is not waited for any more: what it has cached
       * is unknown, so detach it. `gone`: it has left the bus.
       */
      readonly kind: "device-given-up";
      /** Which device. */
      readonly requester: number;
      /** It has left the bus. */
      readonly gone: boolean;
    }
  | {
      /** The unit refused a descriptor (IQE): what it would have forgotten may still be cached. */
      readonly kind: "descriptor-refused";
      /** The descriptor, 32-bit words. */
      readonly words: readonly number[];
    }
  | {
      /** The unit got an answer from a device that it had not asked for (ICE). */
      readonly kind: "unexpected-completion";
    }
  | {
      /** The unit does not answer: from now on any cache may hold stale translations. */
      readonly kind: "unit-broken";
      /** Why it counts as broken, in a sentence. */
      readonly reason: string;
    }
);
