/** A recorded load, run on a machine under each mapping strategy. */
export * from "./compare.ts";
export { type Load, loadOf, type MappedLoad, STRATEGIES, type Strategy } from "./strategies.ts";
export { describeMismatch, type Mismatch } from "./verifier.ts";
