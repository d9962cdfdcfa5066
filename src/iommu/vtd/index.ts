/** VT-d units, driven through their registers and table memory. */
export type { AtsTraits, AttachOptions } from "./attach-options.ts";
export { readCapabilities, type VtdCapabilities } from "./capabilities.ts";
export { FAULT_EVENT_LIMIT, FaultEvents, type VtdFault } from "./fault-events.ts";
export { decodeFaultRecord, type TranslationFault } from "./fault-record.ts";
export { BATCH, type InvalidationCounts, POLL_LIMIT } from "./invalidation-queue.ts";
export type {
  PageRequest,
  PageRequestGroup,
  PageRequestHandler,
  PageRequestQueue,
  PageResponseCode,
} from "./page-requests.ts";
export {
  PASID_LIMIT,
  PasidAllocator,
  type PasidCandidate,
  type PasidGroup,
  refusePasid,
} from "./pasids.ts";
export type { FirstStage } from "./translation-setup.ts";
export { VtdUnit, type VtdUnitOptions } from "./unit.ts";
export { VtdUnits } from "./units.ts";
