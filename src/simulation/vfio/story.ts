/** A step of a run of guests, and the hosts it happens on, in words. */
import type { VfioConfig, VfioStep } from "./plan.ts";

/** The hosts of a run. */
export function vfioInWords({ way, tables, isFile, blocks, blockPages, sparePages }: VfioConfig): string {
  const memory = `${blocks} blocks of ${blockPages} pages, ${isFile ? "a file" : "anonymous memory"}, ${sparePages} more may be locked`;
  return `a guest by ${way}; IOMMUs with ${tables.join(" and ")}; ${memory}`;
}

/** One step. */
export function vfioStepInWords(step: VfioStep): string {
  switch (step.do) {
    case "plug":
    case "unplug":
      return `${step.do} block ${step.block}`;
    case "device writes":
    case "device reads":
      return `device ${step.device + 1} ${step.do === "device writes" ? "writes" : "reads"} page ${step.page}`;
    case "processor writes":
      return `a processor writes page ${step.page}`;
    case "packets":
      return `${step.count} packets come`;
    case "cut a block":
      return `unmap a page of block ${step.block}, which is refused`;
    case "map too much":
      return "map more than may be locked, which is refused";
    case "fork":
      return "the process forks";
    case "child ends":
      return "a child ends";
    case "copy a page":
      return `the guest's IOMMU maps page ${step.page}`;
    case "drop the copies":
      return "the guest's IOMMU unmaps all";
    case "hand over":
      return "a successor takes the guest over";
    case "migrate":
      return step.cutAfterBytes === 0
        ? "move to another host"
        : `move to another host, cut off after ${step.cutAfterBytes} bytes`;
    default:
      return `${step.do.split(" ")[0]} the second device`;
  }
}
