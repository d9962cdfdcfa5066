/** Addresses, errors, counters and chance: what every floor above speaks. */
export * from "./addresses.ts";
export * from "./attributes.ts";
export * from "./counters.ts";
export { crc32 } from "./crc32.ts";
export * from "./direction.ts";
export { eachPage } from "./each-page.ts";
export * from "./errors.ts";
export type { DmaEvent, DmaEventName, Observer, TwoStepEvent } from "./observer.ts";
export * from "./random.ts";
export * from "./wording.ts";
