/** A step of an NVMe run, and the machine it happens on, in words. */
import type { NvmeConfig, NvmeStep } from "./plan.ts";

export function nvmeInWords(config: NvmeConfig): string {
  const disks = `${config.disks} disk${config.disks === 1 ? "" : "s"}`;
  const parts = [config.mode, `${4 * 2 ** config.transferShift} KiB a command`, `${config.queues} queues`];
  if (config.sgls) parts.push("SGLs");
  if (config.lendsMemory) parts.push("controller memory");
  const faults = config.faults.length > 0 ? `; faults: ${config.faults.join(", ")}` : "";
  return `${disks}, ${parts.join(", ")}${faults}`;
}

export function nvmeStepInWords(step: NvmeStep): string {
  switch (step.do) {
    case "write":
      return `write ${step.blocks} blocks from ${step.block} of disk ${step.disk}${step.ragged ? ", from ragged memory" : ""}`;
    case "read":
      return `read ${step.blocks} blocks from ${step.block} of disk ${step.disk}${step.ragged ? ", into ragged memory" : ""}`;
    case "zero":
      return `write zeroes over ${step.blocks} blocks from ${step.block} of disk ${step.disk}`;
    case "flush":
      return `flush disk ${step.disk}`;
    case "copy":
      return `copy ${step.blocks} blocks from ${step.block} of disk 0 to ${step.to} of disk 1, through memory of disk 0`;
    case "give up":
      return `give up transfer number ${step.nth} of those under way`;
    case "wait":
      return `${step.ms} ms pass`;
    case "settle":
      return "wait until nothing is under way";
    case "reset":
      return `reset disk ${step.disk}`;
    case "pull out":
      return `disk ${step.disk} is pulled out, and a new one plugged in`;
  }
}
