/** All lessons, in the order in which they build on each other. */
import { bounce } from "./bounce.ts";
import { fault } from "./fault.ts";
import { lazy } from "./lazy.ts";
import type { Lesson } from "./lesson.ts";
import { migration } from "./migration.ts";
import { peers } from "./peers.ts";
import { twoSteps } from "./two-steps.ts";
import { userPointer } from "./user-pointer.ts";

export const LESSONS: readonly Lesson[] = [twoSteps, lazy, bounce, peers, fault, userPointer, migration];
