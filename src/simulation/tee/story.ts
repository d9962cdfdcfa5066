/** A step of a run of trusted devices, and the machine it happens on, in words. */
import type { TeeConfig, TeeStep } from "./plan.ts";

const plural = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

/** The machine of a run. */
export function teeInWords(config: TeeConfig): string {
  const place = config.hasSwitch ? "below one switch" : "each at a root port";
  const keys = config.packetsPerKey > 0 ? `; keys are used up after ${config.packetsPerKey} packets` : "";
  const attacks = config.attacks.length > 0 ? `; attacks: ${config.attacks.join(", ")}` : "";
  return `${plural(config.devices, "device")} ${place}, ${plural(config.guests, "guest")}${keys}${attacks}`;
}

/** One step. */
export function teeStepInWords(step: TeeStep): string {
  switch (step.do) {
    case "bind":
      return `the host mends, connects and binds device ${step.device}`;
    case "start":
      return `the guest takes device ${step.device} in${step.wait ? "" : ", and does not wait"}`;
    case "stop":
      return `the guest lets device ${step.device} go${step.wait ? "" : ", and does not wait"}`;
    case "map":
      return `map ${plural(step.pages, "page")} for device ${step.device}: ${step.way}`;
    case "old door":
      return `try to map ${plural(step.pages, "page")} of secrets by a door of before, for device ${step.device}`;
    case "transfer":
      return `a device ${step.write ? "writes" : "reads"} one of the mappings (${step.nth})`;
    case "unmap":
      return `unmap one of the mappings (${step.nth})`;
    case "convert":
      return `guest ${step.guest} converts a page`;
    case "keep in device":
      return `the guest puts a secret into device ${step.device}`;
    case "bind peers":
      return `bind devices ${step.device} and ${step.peer} to each other`;
    case "read peer":
      return `device ${step.device} reads memory of device ${step.peer}`;
    case "check":
      return `the guest asks device ${step.device} for its state`;
    case "refresh keys":
      return `new keys for the stream of device ${step.device}`;
    case "attack":
      return `attack on device ${step.device}: ${step.how}`;
    case "wait":
      return `${step.ms} ms pass`;
  }
}
