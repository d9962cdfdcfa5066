/** VT-d units, driven through their registers and table memory. */
export { readCapabilities, type VtdCapabilities } from "./capabilities.ts";
export type { VtdFault } from "./fault-events.ts";
export { decodeFaultRecord, type TranslationFault } from "./fault-record.ts";
export { type InvalidationCounts, POLL_LIMIT } from "./invalidation-queue.ts";
export type { PageRequestQueue } from "./page-requests.ts";
export { VtdUnit, type VtdUnitOptions } from "./unit.ts";
export { VtdUnits } from "./units.ts";
