/**
 * The seed of every property test, set before each file: the same each time, so that a change is judged by the same
 * cases as the commit before it. `DMALINK_SEED=random` (or a number) draws others; a failure prints the seed it had.
 */
import fc from "fast-check";

const asked = process.env.DMALINK_SEED ?? "1";
if (asked !== "random") fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(asked) | 0 });
