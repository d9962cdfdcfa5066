/** What can go wrong at a VT-d unit, as events. */
import type { TranslationFault } from "./fault-record.ts";

/** One event of a VT-d unit. */
export type VtdFault =
  /** A device's request was refused. */
  | ({ readonly kind: "translation"; readonly timeMs: number } & TranslationFault)
  /** Records were lost: there were more faults than registers for them. */
  | { readonly kind: "records-lost"; readonly timeMs: number }
  /**
   * A device did not answer an invalidation of its TLB, and is not waited for any more: what it has cached is unknown, so
   * detach it. `gone`: it has left the bus.
   */
  | { readonly kind: "device-given-up"; readonly timeMs: number; readonly requester: number; readonly gone: boolean }
  /** The unit refused a descriptor (IQE): what it would have forgotten may still be cached. */
  | { readonly kind: "descriptor-refused"; readonly timeMs: number; readonly words: readonly number[] }
  /** The unit got an answer from a device that it had not asked for (ICE). */
  | { readonly kind: "unexpected-completion"; readonly timeMs: number }
  /** The unit does not answer: from now on any cache may hold stale translations. */
  | { readonly kind: "unit-broken"; readonly timeMs: number; readonly reason: string };
