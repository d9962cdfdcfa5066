/** All that must hold on any host. */
import type { Case } from "./any-host.ts";
import { loadCases } from "./any-host-load.ts";
import { oneShotCases } from "./any-host-one-shot.ts";
import { twoStepCases } from "./any-host-two-steps.ts";

export const anyHostCases: readonly Case[] = [...oneShotCases, ...twoStepCases, ...loadCases];
