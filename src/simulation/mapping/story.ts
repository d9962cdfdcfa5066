/** A step, and the machine it happens on, in words. */
import { hex } from "../../base/index.ts";
import type { MappingConfig, Step } from "./plan.ts";

export function machineInWords(config: MappingConfig): string {
  const parts: string[] = [];
  if (config.mode === "direct") parts.push("no IOMMU");
  else parts.push(`${config.format} page tables, ${config.mode}`);
  if (config.cachingMode && config.mode !== "direct") parts.push("caching mode");
  if (config.ats) parts.push("device TLBs");
  if (config.untrusted) parts.push("untrusted devices");
  if (!config.coherent) parts.push("non-coherent devices");
  if (config.confidential) parts.push("confidential guest");
  if (config.forceBounce) parts.push("everything bounced");
  const faults = config.faults.length > 0 ? `; faults: ${config.faults.join(", ")}` : "";
  return `${config.devices} devices, ${parts.join(", ")}, mask ${hex(config.mask)}${faults}`;
}

export function stepInWords(step: Step): string {
  switch (step.do) {
    case "map":
      return (
        `map ${step.length} bytes at ${step.offset} of buffer ${step.buffer} for device ${step.device}, ` +
        `${step.way}, ${step.direction}${step.peer ? ", part of it in a peer's window" : ""}: mapping ${step.mapping}`
      );
    case "unmap":
      return `unmap mapping ${step.mapping}`;
    case "device writes":
      return `the device writes ${step.length} bytes at ${step.offset} of mapping ${step.mapping}`;
    case "device reads":
      return `the device reads mapping ${step.mapping}`;
    case "turn":
      return `sync mapping ${step.mapping} for the CPU, write as the CPU, sync it for the device`;
    case "fill":
      return `the CPU writes what it owns of buffer ${step.buffer}`;
    case "relink":
      return `unlink page ${step.page} of mapping ${step.mapping}${step.lazy ? " lazily" : ""} and link it again`;
    case "free buffer":
      return `free buffer ${step.buffer}, and poison it`;
    case "stale access":
      return `the device ${step.access}s through mapping number ${step.nth} of those that ended`;
    case "coherent":
      return `allocate ${step.length} bytes of coherent memory for device ${step.device}, use them, free them`;
    case "tick":
      return `${step.ms} ms pass`;
    case "lose doorbell":
      return `a doorbell for mapping ${step.mapping} is lost`;
    case "fill pool":
      return `the bounce pool fills up but for ${step.leave} slots`;
    case "empty pool":
      return "the bounce pool empties";
    case "fail table":
      return `allocation ${step.nth} of a page table from here on fails`;
    case "pull out":
      return `device ${step.device} is pulled out`;
    case "change ACS":
      return `the port of device ${step.port} gets access control bits ${hex(step.bits)}`;
    case "silence device":
      return `device ${step.device} does not answer invalidations any more`;
  }
}
