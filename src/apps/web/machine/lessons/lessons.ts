/** All lessons, in the order in which they build on each other. */
import { lazy } from "./lazy.ts";
import type { Lesson } from "./lesson.ts";
import { twoSteps } from "./two-steps.ts";

export const LESSONS: readonly Lesson[] = [twoSteps, lazy];
