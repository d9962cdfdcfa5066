/** What a run of shared buffers will do, drawn from one seed: the machine, who shares how, and every step. */
import { Random } from "../../base/index.ts";
import type { Place } from "../../consumers/dmabuf/index.ts";
import type { SimulationPlan } from "../scenario.ts";

const KINDS = ["in place", "maps again", "late", "static", "pinned"] as const;

/** What an importer promises, and how it behaves: a late one does not let go before it has to. */
export type SharerKind = (typeof KINDS)[number];

/** The machine of a run. */
export interface DmabufConfig {
  /** `none`: there is no IOMMU. */
  readonly mode: "strict" | "lazy" | "none";
  /** The processor routes peers between root ports. */
  readonly routes: boolean;
  /** Devices besides the owner; the first one stands below its switch. */
  readonly sharers: number;
  /** Of the buffer. */
  readonly pages: number;
}

/** A step. */
export type DmabufStep =
  | { readonly do: "attach"; readonly device: number; readonly kind: SharerKind }
  | { readonly do: "detach" | "map" | "unmap" | "pin" | "unpin" | "reach back"; readonly device: number }
  | {
      readonly do: "read" | "write";
      readonly device: number;
      readonly page: number;
      readonly pages: number;
      readonly seed: number;
    }
  | { readonly do: "CPU reads" | "CPU writes"; readonly page: number; readonly pages: number; readonly seed: number }
  | { readonly do: "migrate"; readonly page: number; readonly pages: number; readonly to: Place }
  | { readonly do: "revoke" | "restore" };

/** A run of shared buffers. */
export type DmabufPlan = SimulationPlan<DmabufConfig, DmabufStep>;

/** Draws a run from its seed. */
export function dmabufPlan(seed: number): DmabufPlan {
  const random = Random.fromSeed(seed);
  const [machine, load] = [random.fork("dmabuf machine"), random.fork("dmabuf load")];
  const config: DmabufConfig = {
    mode: machine.pick(["strict", "lazy", "lazy", "none"]),
    routes: machine.chance(3, 4),
    sharers: 1 + machine.below(4),
    pages: 2 + machine.below(31),
  };
  const steps: DmabufStep[] = [];
  for (let device = 0; device < config.sharers; device++) {
    steps.push({ do: "attach", device, kind: load.pick(KINDS) }, { do: "map", device });
  }
  const count = 40 + load.below(60);
  while (steps.length < count) steps.push(stepOf(config, load));
  return { scenario: "dmabuf", seed, config, steps };
}

function stepOf({ sharers, pages }: DmabufConfig, random: Random): DmabufStep {
  const device = random.below(sharers);
  const page = random.below(pages);
  const part = { page, pages: 1 + random.below(pages - page), seed: random.below(250) };
  const draw = random.below(100);
  if (draw < 25) return { do: random.chance(1, 2) ? "read" : "write", device, ...part };
  if (draw < 35) return { do: random.chance(1, 2) ? "CPU reads" : "CPU writes", ...part };
  if (draw < 55) return { do: "migrate", page, pages: part.pages, to: random.chance(1, 2) ? "device" : "system" };
  if (draw < 70) return { do: random.chance(2, 3) ? "map" : "unmap", device };
  if (draw < 78) return { do: "reach back", device };
  if (draw < 84) return { do: random.chance(1, 2) ? "pin" : "unpin", device };
  if (draw < 92)
    return random.chance(1, 2) ? { do: "detach", device } : { do: "attach", device, kind: random.pick(KINDS) };
  return { do: random.chance(1, 3) ? "revoke" : "restore" };
}
