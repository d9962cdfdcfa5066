/**
 * Heterogeneous memory management: a device mirrors the memory of a process, and maps it in one reserved range.
 *
 * @module dmalink/hmm
 */
export {
  HMM,
  ORDER_MASK,
  PfnWords,
  type RangeFault,
  rangeFault,
  rangeOutOfReach,
  rangeReadOnly,
  STICKY,
} from "../consumers/hmm/index.ts";
