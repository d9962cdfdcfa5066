/** What a run of NVMe disks will do, drawn from one seed: the machine, the disks' manners, and every step. */
import { Random } from "../../base/index.ts";
import type { SimulationPlan } from "../scenario.ts";

const NVME_FAULTS = [
  "lost completion",
  "late completion",
  "slow command",
  "bad status",
  "transfer error",
  "duplicate completion",
  "surprise removal",
  "reset under load",
  "IOVA exhaustion",
] as const;
type NvmeFaultName = (typeof NVME_FAULTS)[number];

export interface NvmeConfig {
  readonly mode: "strict" | "lazy" | "direct" | "bounced" | "non-coherent";
  readonly disks: number;
  /** Largest transfer: 2^n pages of 4 KiB. */
  readonly transferShift: number;
  /** Scatter-gather descriptors besides page lists. */
  readonly sgls: boolean;
  /** The first disk has memory for others. */
  readonly lendsMemory: boolean;
  readonly queues: number;
  readonly faults: readonly NvmeFaultName[];
}

export type NvmeStep =
  | {
      readonly do: "write";
      readonly disk: number;
      readonly block: number;
      readonly blocks: number;
      readonly seed: number;
      readonly ragged: boolean;
    }
  | {
      readonly do: "read";
      readonly disk: number;
      readonly block: number;
      readonly blocks: number;
      readonly ragged: boolean;
    }
  | { readonly do: "zero"; readonly disk: number; readonly block: number; readonly blocks: number }
  | { readonly do: "flush"; readonly disk: number }
  | { readonly do: "copy"; readonly block: number; readonly to: number; readonly blocks: number }
  | { readonly do: "give up"; readonly nth: number }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "settle" }
  | { readonly do: "reset"; readonly disk: number }
  | { readonly do: "pull out"; readonly disk: number };

export type NvmePlan = SimulationPlan<NvmeConfig, NvmeStep>;

/** Bytes of a block. */
export const BLOCK = 512;
/** Blocks that the steps are about. */
export const DISK_BLOCKS = 8192;

export function nvmePlan(seed: number): NvmePlan {
  const random = Random.fromSeed(seed);
  const [machine, faults, load] = [random.fork("nvme machine"), random.fork("nvme faults"), random.fork("nvme load")];
  const enabled = NVME_FAULTS.filter(() => faults.chance(1, 3));
  const config: NvmeConfig = {
    mode: machine.pick(["strict", "strict", "lazy", "direct", "bounced", "non-coherent"] as const),
    disks: 1 + machine.below(2),
    transferShift: 3 + machine.below(6),
    sgls: machine.chance(1, 2),
    lendsMemory: machine.chance(1, 2),
    queues: 1 + machine.below(3),
    faults: enabled,
  };
  const steps = Array.from({ length: 30 + load.below(60) }, () => stepOf(config, load));
  return { scenario: "nvme", seed, config, steps };
}

function stepOf(config: NvmeConfig, random: Random): NvmeStep {
  const disk = random.below(config.disks);
  const blocks = 1 + random.below(random.pick([8, 64, 512]));
  const block = random.below(DISK_BLOCKS - blocks);
  const kind = random.below(100);
  if (kind < 30) return { do: "write", disk, block, blocks, seed: random.below(251), ragged: random.chance(1, 4) };
  if (kind < 60) return { do: "read", disk, block, blocks, ragged: random.chance(1, 4) };
  if (kind < 64) return { do: "zero", disk, block, blocks };
  if (kind < 67) return { do: "flush", disk };
  if (kind < 73) return { do: "copy", block, to: random.below(DISK_BLOCKS - blocks), blocks: Math.min(blocks, 256) };
  if (kind < 77) return { do: "give up", nth: random.below(4) };
  if (kind < 88) return { do: "wait", ms: random.pick([0.01, 0.1, 1, 20]) };
  if (kind < 94) return { do: "settle" };
  if (kind < 97 && config.faults.includes("reset under load")) return { do: "reset", disk };
  if (config.faults.includes("surprise removal")) return { do: "pull out", disk };
  return { do: "wait", ms: 0.5 };
}
