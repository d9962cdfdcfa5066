/**
 * A scenario: one kind of random run, as an interface, so that running seeds, cutting failures down and describing them in
 * words is one code for all.
 */

import type { Observer } from "../base/index.ts";
import type { MigratingBuffer } from "../consumers/dmabuf/index.ts";
import type { Iommufd } from "../consumers/iommufd/index.ts";
import type { DirtySource, Type1Container } from "../consumers/vfio/index.ts";
import type { DmaMachine } from "../dma/index.ts";
import type { Rnic, SimulatedGpu } from "../hosts/simulated/index.ts";
import type { Frames } from "../hosts/simulated/process/index.ts";
import type { TeeMachine } from "../hosts/simulated/tee/index.ts";
import type { DmaDomain } from "../iommu/index.ts";
import type { TranslationUnit } from "../platform/index.ts";
import type { BouncePool } from "../swiotlb/index.ts";

/** What a run will do: drawn from its seed before anything happens. Any subset of the steps is a run too. */
export interface SimulationPlan<Config = unknown, Step = unknown> {
  /** Name of the scenario that can run it. */
  readonly scenario: string;
  /** What it was drawn from. */
  readonly seed: number;
  /** The machine. */
  readonly config: Config;
  /** What happens, in order. */
  readonly steps: readonly Step[];
}

/** A promise that was broken. */
export interface Violation {
  /** Which oracle found it. */
  readonly oracle: "bytes" | "teardown" | "leak" | "poison" | "secret" | "trust" | "crash";
  /** What was promised and what was found, with the numbers. */
  readonly message: string;
  /** Index of the step; the number of steps if it was found at the end. */
  readonly step: number;
}

/** What a run did, and the promise that it found broken. */
export interface RunResult {
  /** Steps that did something. */
  readonly events: number;
  /** The promise that was broken; undefined: every one was kept. */
  readonly violation: Violation | undefined;
  /** Bytes that devices moved. */
  readonly bytesMoved: number;
}

/** Parts that a test may replace by defective ones. A scenario that has no such part leaves it out. */
export interface PlantedParts {
  /** Stands in for the IOMMU. */
  readonly unit?: (unit: TranslationUnit) => TranslationUnit;
  /** Stands in for the domain that devices share. */
  readonly domain?: (domain: DmaDomain) => DmaDomain;
  /** Stands in for the bounce pool. */
  readonly pool?: (pool: BouncePool) => BouncePool;
  /** Stands in for what the DMA API knows of the machine. */
  readonly machine?: (machine: DmaMachine) => DmaMachine;
  /** Changes a buffer that devices share, before it begins. */
  readonly buffer?: (migrating: MigratingBuffer) => void;
  /** Changes hardware, firmware or hosts of a machine with trusted devices, before it begins. */
  readonly trust?: (world: { readonly tee: TeeMachine }) => void;
  /** Changes a guest that devices are given to, before it begins. */
  readonly guest?: (guest: {
    readonly iommufd: Iommufd;
    readonly container: Type1Container | undefined;
    readonly frames: Frames;
  }) => void;
  /** Stands in for what the monitor hears of writes while a guest moves. */
  readonly dirty?: (source: DirtySource) => DirtySource;
  /** Changes an RDMA adapter, before it is plugged in. */
  readonly adapter?: (adapter: Rnic) => void;
  /** Changes a GPU, before it is plugged in. */
  readonly gpu?: (gpu: SimulatedGpu) => void;
}

/** What is planted into a run, and who watches it. */
export interface RunOptions {
  /** Hears everything that the stack announces. */
  readonly observer?: Observer;
  /** Defects, for the tests of the tests. */
  readonly parts?: PlantedParts;
}

/** A kind of run: plans drawn from a seed, and how one is run. */
export interface Scenario<Config = unknown, Step = unknown> {
  /** What the command line calls it. */
  readonly name: string;
  /** What it tries, in a line. */
  readonly summary: string;
  /** The machine and the steps that `seed` stands for; always the same. */
  plan(seed: number): SimulationPlan<Config, Step>;
  /** Runs a plan, or any part of one, and checks every promise. Rejects only for a defect of the scenario itself. */
  run(plan: SimulationPlan<Config, Step>, options?: RunOptions): Promise<RunResult>;
  /** The machine, in one line for people. */
  machineInWords(config: Config): string;
  /** A step, in one line for people. */
  stepInWords(step: Step): string;
}

/** A broken promise on its way up. */
export class Broken extends Error {
  readonly oracle: Violation["oracle"];

  constructor(oracle: Violation["oracle"], message: string) {
    super(message);
    this.oracle = oracle;
  }
}

/** What stopped a run, as a violation. */
export function violationOf(error: unknown, step: number): Violation {
  if (error instanceof Broken) return { oracle: error.oracle, message: error.message, step };
  return { oracle: "crash", message: (error as Error).stack ?? String(error), step };
}
