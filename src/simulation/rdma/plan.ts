/** What a run of two RDMA machines will do, drawn from one seed: machines, wire, regions, and every step. */
import { Random } from "../../base/index.ts";
import type { SimulationPlan } from "../scenario.ts";

/** The machines of a run. */
export interface RdmaConfig {
  /** `none`: no IOMMU. */
  readonly iommu: "strict" | "lazy" | "none";
  /** How the second machine's memory is registered. */
  readonly memory: "pinned" | "on demand" | "all of it, on demand";
  /** Invalidations take pages one by one, as Linux does. */
  readonly oneByOne: boolean;
  /** Packets of a thousand that are lost, late, doubled, damaged. */
  readonly wire: { readonly lost: number; readonly late: number; readonly doubled: number; readonly damaged: number };
  readonly mtuBytes: number;
}

/** A step. Pages count from the start of the region. */
export type RdmaStep =
  | { readonly do: "write" | "read" | "send"; readonly page: number; readonly bytes: number; readonly seed: number }
  | { readonly do: "count"; readonly page: number }
  | { readonly do: "wrong key"; readonly page: number }
  /** The process of the second machine. */
  | { readonly do: "fork" | "child ends" }
  | { readonly do: "drop" | "protect" | "unmap and map" | "touch"; readonly page: number; readonly pages: number }
  | { readonly do: "advise"; readonly page: number; readonly pages: number; readonly write: boolean }
  | { readonly do: "register again" };

/** A run of RDMA. */
export type RdmaPlan = SimulationPlan<RdmaConfig, RdmaStep>;

/** Pages of the region. */
export const REGION_PAGES = 48;

/** Draws a run from its seed. */
export function rdmaPlan(seed: number): RdmaPlan {
  const random = Random.fromSeed(seed);
  const [machine, load] = [random.fork("rdma machine"), random.fork("rdma load")];
  const isBad = machine.chance(2, 3);
  const per = (most: number): number => (isBad ? machine.below(most) : 0);
  const config: RdmaConfig = {
    iommu: machine.pick(["strict", "strict", "lazy", "none"] as const),
    memory: machine.pick(["pinned", "on demand", "on demand", "all of it, on demand"] as const),
    oneByOne: machine.chance(1, 4),
    wire: { lost: per(40), late: per(40), doubled: per(20), damaged: per(20) },
    mtuBytes: machine.pick([256, 1024, 4096]),
  };
  const steps = Array.from({ length: 30 + load.below(40) }, () => stepOf(load));
  return { scenario: "rdma", seed, config, steps };
}

function stepOf(random: Random): RdmaStep {
  const page = random.below(REGION_PAGES - 4);
  const pages = 1 + random.below(4);
  const kind = random.below(100);
  if (kind < 45) {
    const work = random.pick(["write", "write", "read", "read", "send"] as const);
    return { do: work, page, bytes: 1 + random.below(4 * 4096), seed: random.below(65_536) };
  }
  if (kind < 53) return { do: "count", page };
  if (kind < 56) return { do: "wrong key", page };
  if (kind < 62) return { do: "fork" };
  if (kind < 66) return { do: "child ends" };
  if (kind < 74) return { do: "drop", page, pages };
  if (kind < 80) return { do: "protect", page, pages };
  if (kind < 85) return { do: "unmap and map", page, pages };
  if (kind < 90) return { do: "touch", page, pages };
  if (kind < 97) return { do: "advise", page, pages, write: random.chance(1, 2) };
  return { do: "register again" };
}
