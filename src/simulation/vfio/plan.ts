/** What a run of guests with devices of their own will do, drawn from one seed: the host, the way devices are given, and every step. */
import { Random } from "../../base/index.ts";
import type { FormatName } from "../../layouts/pagetable/index.ts";
import type { SimulationPlan } from "../scenario.ts";

/** The hosts of a run, and how they give devices to the guest. */
export interface VfioConfig {
  /** `iommufd`; a VFIO container of type 3; the same by iommufd, with pages charged once. */
  readonly way: "iommufd" | "container" | "iommufd, charged once";
  /** Page tables of the first device's IOMMU, and of the second one's. */
  readonly tables: readonly [FormatName, FormatName];
  /** The guest's memory is a file, so that it can change hands. */
  readonly isFile: boolean;
  /** Pages of a block that can be plugged. */
  readonly blockPages: number;
  readonly blocks: number;
  /** Pages that may be locked beyond what the guest needs. */
  readonly sparePages: number;
}

/** A step. Blocks count from the start of the guest's memory. */
export type VfioStep =
  | { readonly do: "plug" | "unplug"; readonly block: number }
  /** Devices and processors, at pages of the guest, whether they are plugged or not. */
  | {
      readonly do: "device writes" | "device reads";
      readonly device: 0 | 1;
      readonly page: number;
      readonly seed: number;
    }
  | { readonly do: "processor writes"; readonly page: number; readonly seed: number }
  | { readonly do: "packets"; readonly count: number }
  /** Hot plug and unplug of the second device, and a surprise removal of it. */
  | { readonly do: "add device" | "remove device" | "pull device" }
  /** A map that the limit of locked memory refuses. */
  | { readonly do: "map too much" }
  /** An unmap that would cut a block. */
  | { readonly do: "cut a block"; readonly block: number }
  | { readonly do: "fork" | "child ends" }
  /** The guest's own IOMMU: pages of it elsewhere, by copy, and away again. */
  | { readonly do: "copy a page" | "drop the copies"; readonly page: number }
  /** A successor takes the memory over: needs a file. */
  | { readonly do: "hand over" }
  /** To another host; the link is cut after so many bytes, or is good (0). */
  | { readonly do: "migrate"; readonly cutAfterBytes: number };

/** A run of guests. */
export type VfioPlan = SimulationPlan<VfioConfig, VfioStep>;

/** Draws a run from its seed. */
export function vfioPlan(seed: number): VfioPlan {
  const random = Random.fromSeed(seed);
  const [machine, load] = [random.fork("vfio machine"), random.fork("vfio load")];
  const blocks = 4 + machine.below(5);
  const blockPages = machine.pick([4, 16, 32]);
  const config: VfioConfig = {
    way: machine.pick(["iommufd", "iommufd", "container", "iommufd, charged once"] as const),
    tables: [machine.pick(TABLES), machine.pick(TABLES)],
    isFile: machine.chance(1, 2),
    blockPages,
    blocks,
    sparePages: machine.below(8),
  };
  const steps = Array.from({ length: 40 + load.below(60) }, () => stepOf(load, blocks, blockPages));
  return { scenario: "vfio", seed, config, steps };
}

/** Names of page-table formats that hosts have. */
const TABLES = ["vtd-second-stage", "amd-v1", "x86-64", "riscv-sv48"] as const;

function stepOf(random: Random, blocks: number, blockPages: number): VfioStep {
  const block = random.below(blocks);
  const page = random.below(blocks * blockPages);
  const seed = random.below(65_536);
  const kind = random.below(100);
  if (kind < 14) return { do: "plug", block };
  if (kind < 22) return { do: "unplug", block };
  if (kind < 40) return { do: "device writes", device: random.chance(1, 3) ? 1 : 0, page, seed };
  if (kind < 52) return { do: "device reads", device: random.chance(1, 3) ? 1 : 0, page, seed };
  if (kind < 62) return { do: "processor writes", page, seed };
  if (kind < 68) return { do: "packets", count: 1 + random.below(12) };
  if (kind < 72) return { do: "add device" };
  if (kind < 74) return { do: "remove device" };
  if (kind < 76) return { do: "pull device" };
  if (kind < 78) return { do: "map too much" };
  if (kind < 81) return { do: "cut a block", block };
  if (kind < 84) return { do: "fork" };
  if (kind < 86) return { do: "child ends" };
  if (kind < 92) return { do: "copy a page", page };
  if (kind < 94) return { do: "drop the copies", page };
  if (kind < 96) return { do: "hand over" };
  return { do: "migrate", cutAfterBytes: random.chance(1, 2) ? 1 + random.below(200_000) : 0 };
}
