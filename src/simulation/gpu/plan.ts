/** What a run of GPUs in a process will do, drawn from one seed: the machine, how memory is shared, and every step of eight threads. */
import { KiB, MiB, Random } from "../../base/index.ts";
import type { ReservationPolicy } from "../../consumers/gpu/index.ts";
import type { SimulationPlan } from "../scenario.ts";

/** The machine of a run, and how GPUs share memory on it. */
export interface GpuConfig {
  /** `none`: no IOMMU. */
  readonly iommu: "strict" | "lazy" | "none";
  readonly gpus: 1 | 2;
  /** The GPUs are on one interconnect and leave each other's pages where they are. */
  readonly linked: boolean;
  readonly gpuMemoryBytes: number;
  /** Pages of each of the eight threads. */
  readonly threadPages: number;
  /** Pages of the user pointer. */
  readonly pointerPages: number;
  readonly chunks: readonly number[];
  readonly notifierBytes: number;
  readonly policy: ReservationPolicy;
  readonly leaves: "small" | "large";
  readonly allowMixed: boolean;
  /** The user pointer goes whole at any change, as in Linux 7.2. */
  readonly wholePointer: boolean;
  readonly hugePages: "always" | "never";
  /** Watchers hear of borders only where a huge entry is cut. */
  readonly quietSplits: boolean;
  /** Faults of ten that want the range in the GPU's memory. */
  readonly moves: number;
  /** The GPU's time alone with what came to it, ms; 0: none. */
  readonly timesliceMs: number;
}

/** Threads; one more works on the user pointer. */
export const THREADS = 8;
/** The thread of the user pointer. */
export const POINTER: number = THREADS;

/** A step of one thread. Pages count from the start of what is the thread's own. */
export type GpuStep = { readonly thread: number } & (
  | { readonly do: "GPU writes"; readonly page: number; readonly pages: number; readonly seed: number }
  | { readonly do: "CPU writes"; readonly page: number; readonly pages: number; readonly seed: number }
  | { readonly do: "CPU reads"; readonly page: number; readonly pages: number }
  | { readonly do: "GPU adds"; readonly page: number; readonly pages: number; readonly value: number }
  | { readonly do: "GPU copies"; readonly page: number; readonly to: number; readonly pages: number }
  | {
      readonly do: "unmap" | "map" | "drop" | "forbid writing" | "allow writing" | "move to GPU";
      readonly page: number;
      readonly pages: number;
    }
  | { readonly do: "fork" | "evict" }
);

/** A run of GPUs. */
export type GpuPlan = SimulationPlan<GpuConfig, GpuStep>;

/** Draws a run from its seed. */
export function gpuPlan(seed: number): GpuPlan {
  const random = Random.fromSeed(seed);
  const [machine, load] = [random.fork("gpu machine"), random.fork("gpu load")];
  const gpus = machine.pick([1, 1, 2] as const);
  const isLarge = machine.chance(1, 4);
  const config: GpuConfig = {
    iommu: machine.pick(["strict", "strict", "lazy", "none"] as const),
    gpus,
    linked: gpus === 2 && machine.chance(1, 2),
    gpuMemoryBytes: 2 * MiB,
    threadPages: isLarge ? 128 : 32,
    pointerPages: 48,
    chunks: isLarge
      ? [2 * MiB, 64 * KiB, 4 * KiB]
      : machine.pick([
          [64 * KiB, 4 * KiB],
          [128 * KiB, 16 * KiB, 4 * KiB],
        ]),
    notifierBytes: machine.pick([512 * MiB, 2 * MiB]),
    policy: machine.pick(["chunk", "chunk", "area", "linux-7.2"] as const),
    leaves: machine.pick(["small", "large"] as const),
    allowMixed: machine.chance(1, 2),
    wholePointer: machine.chance(1, 4),
    hugePages: machine.pick(["always", "never"] as const),
    quietSplits: machine.chance(1, 2),
    moves: machine.pick([0, 3, 6, 10]),
    timesliceMs: machine.pick([0, 0, 5]),
  };
  const steps = Array.from({ length: 60 + load.below(60) }, () => stepOf(load, config));
  return { scenario: "gpu", seed, config, steps };
}

/**
 * The storm of migrations: 64 MiB of eight threads, 16 MiB of the GPU's memory, a user pointer of 32 MiB, `count` steps. For long tests
 * and for figures.
 */
export function stormPlan(seed: number, count: number, part: Partial<GpuConfig> = {}): GpuPlan {
  const config: GpuConfig = {
    iommu: "strict",
    gpus: 1,
    linked: false,
    gpuMemoryBytes: 16 * MiB,
    threadPages: 2048,
    pointerPages: 8192,
    chunks: [2 * MiB, 64 * KiB, 4 * KiB],
    notifierBytes: 64 * MiB,
    policy: "chunk",
    leaves: "large",
    allowMixed: false,
    wholePointer: false,
    hugePages: "never",
    quietSplits: false,
    moves: 5,
    timesliceMs: 0,
    ...part,
  };
  const load = Random.fromSeed(seed).fork("gpu storm");
  return { scenario: "gpu", seed, config, steps: Array.from({ length: count }, () => stepOf(load, config)) };
}

function stepOf(random: Random, { threadPages, pointerPages }: GpuConfig): GpuStep {
  const thread = random.below(THREADS + 1);
  const all = thread === POINTER ? pointerPages : threadPages;
  // From a page to 1 MiB, small ones more often.
  const most = Math.min(all / 4, random.pick([1, 2, 8, 256]));
  const pages = 1 + random.below(Math.max(1, Math.floor(most)));
  const page = random.below(all - pages + 1);
  const kind = random.below(100);
  const seed = random.below(251);
  if (kind < 28) return { thread, do: "GPU writes", page, pages, seed };
  if (kind < 36) return { thread, do: "GPU adds", page, pages, value: random.below(65_536) };
  if (kind < 42) {
    const half = Math.floor(all / 2);
    const few = Math.min(pages, half);
    return {
      thread,
      do: "GPU copies",
      page: random.below(half - few + 1),
      to: half + random.below(half - few + 1),
      pages: few,
    };
  }
  if (kind < 56) return { thread, do: "CPU writes", page, pages, seed };
  if (kind < 64) return { thread, do: "CPU reads", page, pages };
  if (kind < 72) return { thread, do: "move to GPU", page, pages };
  if (kind < 75) return { thread, do: "evict" };
  if (kind < 81) return { thread, do: "unmap", page, pages };
  if (kind < 88) return { thread, do: "map", page, pages };
  if (kind < 91) return { thread, do: "drop", page, pages };
  if (kind < 94) return { thread, do: "forbid writing", page, pages };
  if (kind < 97) return { thread, do: "allow writing", page, pages };
  return { thread, do: "fork" };
}
