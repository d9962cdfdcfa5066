/**
 * Heterogeneous memory management: a device mirrors the memory of a process, and maps it in one reserved range.
 *
 * @module dmalink/hmm
 */
export {
  HMM,
  HmmDmaMap,
  type HmmDmaMapOptions,
  LOOKED_UP,
  Mirror,
  type MirrorDriver,
  type MirrorOptions,
  ORDER_MASK,
  PfnWords,
  type RangeFault,
  rangeFault,
  STICKY,
} from "../consumers/hmm/index.ts";
