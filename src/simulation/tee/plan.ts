/** What a run of trusted devices will do, drawn from one seed: the machine, who attacks how, and every step. */
import { Random } from "../../base/index.ts";
import type { SimulationPlan } from "../scenario.ts";

/** Attacks, and misfortune that looks like one. */
const TEE_ATTACKS = [
  "move a BAR",
  "bus mastering off",
  "stream off",
  "reset",
  "unbind",
  "disconnect",
  "pull out",
  "change packets",
  "send in its name",
  "rogue function",
  "host reads",
  "change evidence",
  "change firmware",
  "flip mailbox",
  "lose mailbox",
  "repeat mailbox",
  "stale address",
  "MSI-X table",
] as const;

/** An attack, by name. */
export type TeeAttack = (typeof TEE_ATTACKS)[number];

/** The machine of a run. */
export interface TeeConfig {
  /** Devices below one switch, so that they can be peers, or each at a root port. */
  readonly hasSwitch: boolean;
  readonly devices: number;
  /** Each device belongs to one of them. */
  readonly guests: number;
  /** Packets that a key of a stream may seal; 0: as many as may be. */
  readonly packetsPerKey: number;
  readonly attacks: readonly TeeAttack[];
}

/** How memory is mapped. */
export type TeeWay = "one-shot" | "two-step" | "vectors" | "shared" | "shared two-step";

/** A step. */
export type TeeStep =
  | { readonly do: "bind"; readonly device: number }
  | { readonly do: "start"; readonly device: number; readonly wait: boolean }
  | { readonly do: "stop"; readonly device: number; readonly wait: boolean }
  | { readonly do: "map"; readonly device: number; readonly pages: number; readonly way: TeeWay }
  | { readonly do: "old door"; readonly device: number; readonly pages: number }
  | { readonly do: "transfer"; readonly nth: number; readonly write: boolean; readonly seed: number }
  | { readonly do: "unmap"; readonly nth: number }
  | { readonly do: "convert"; readonly guest: number }
  | { readonly do: "keep in device"; readonly device: number }
  | { readonly do: "bind peers"; readonly device: number; readonly peer: number }
  | { readonly do: "read peer"; readonly device: number; readonly peer: number }
  | { readonly do: "check"; readonly device: number }
  | { readonly do: "refresh keys"; readonly device: number }
  | { readonly do: "attack"; readonly device: number; readonly how: TeeAttack; readonly seed: number }
  | { readonly do: "wait"; readonly ms: number };

/** A run of trusted devices. */
export type TeePlan = SimulationPlan<TeeConfig, TeeStep>;

/** Draws a run from its seed. */
export function teePlan(seed: number): TeePlan {
  const random = Random.fromSeed(seed);
  const [machine, attacks, load] = [random.fork("tee machine"), random.fork("tee attacks"), random.fork("tee load")];
  const config: TeeConfig = {
    hasSwitch: machine.chance(1, 2),
    devices: 1 + machine.below(3),
    guests: 1 + machine.below(2),
    packetsPerKey: machine.chance(1, 4) ? 60 + machine.below(200) : 0,
    attacks: TEE_ATTACKS.filter(() => attacks.chance(1, 3)),
  };
  // Everybody is bound at first, and most of the time somebody is inside.
  const steps: TeeStep[] = Array.from({ length: config.devices }, (_, device) => ({ do: "bind", device }));
  for (let device = 0; device < config.devices; device++)
    if (load.chance(3, 4)) steps.push({ do: "start", device, wait: load.chance(3, 4) });
  const count = 50 + load.below(60);
  while (steps.length < count) steps.push(stepOf(config, load));
  return { scenario: "tee", seed, config, steps };
}

function stepOf(config: TeeConfig, random: Random): TeeStep {
  const device = random.below(config.devices);
  const peer = random.below(config.devices);
  const kind = random.below(100);
  if (kind < 12) return { do: "start", device, wait: random.chance(2, 3) };
  if (kind < 15) return { do: "stop", device, wait: random.chance(2, 3) };
  if (kind < 33) {
    const way = random.pick(["one-shot", "two-step", "vectors", "shared", "shared two-step"] as const);
    return { do: "map", device, pages: 1 + random.below(4), way };
  }
  if (kind < 36) return { do: "old door", device, pages: 1 + random.below(3) };
  if (kind < 54) return { do: "transfer", nth: random.below(64), write: random.chance(1, 2), seed: random.below(251) };
  if (kind < 63) return { do: "unmap", nth: random.below(64) };
  if (kind < 66) return { do: "convert", guest: random.below(config.guests) };
  if (kind < 70) return { do: "keep in device", device };
  if (kind < 74) return { do: "bind peers", device, peer };
  if (kind < 79) return { do: "read peer", device, peer };
  if (kind < 81) return { do: "check", device };
  if (kind < 83) return { do: "refresh keys", device };
  if (kind < 86) return { do: "bind", device };
  if (kind < 97 && config.attacks.length > 0)
    return { do: "attack", device, how: random.pick(config.attacks), seed: random.below(65_536) };
  return { do: "wait", ms: random.pick([0.02, 0.1, 0.3, 2]) };
}
