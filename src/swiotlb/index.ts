/** Bounce buffers: the pool, the copies, and the slots they are in. */
export * from "./errors.ts";
export {
  type BounceGrowth,
  type BounceLimits,
  BouncePool,
  type BouncePoolOptions,
  maxBounceSize,
} from "./pool.ts";
export { BOUNCE_LIMIT, BOUNCE_SET, BOUNCE_SLOT, type SlotState } from "./slots.ts";
