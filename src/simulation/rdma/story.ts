/** A step of a run of RDMA, and the machines it happens on, in words. */
import type { RdmaConfig, RdmaStep } from "./plan.ts";

/** The machines of a run. */
export function rdmaInWords({ iommu, memory, oneByOne, wire, mtuBytes }: RdmaConfig): string {
  const space = iommu === "none" ? "without an IOMMU" : `with an IOMMU, ${iommu}`;
  const { lost, late, doubled, damaged } = wire;
  const isGood = lost + late + doubled + damaged === 0;
  const packets = isGood
    ? "a good wire"
    : `of 1000 packets ${lost} lost, ${late} late, ${doubled} doubled, ${damaged} damaged`;
  const each = oneByOne ? ", invalidated page by page" : "";
  return `two machines ${space}; memory ${memory}${each}; packets of ${mtuBytes} bytes; ${packets}`;
}

/** One step. */
export function rdmaStepInWords(step: RdmaStep): string {
  switch (step.do) {
    case "write":
    case "read":
    case "send":
      return `${step.do} ${step.bytes} bytes at page ${step.page}`;
    case "count":
      return `one more in the word at page ${step.page}`;
    case "wrong key":
      return `write to page ${step.page} by a key of another variant`;
    case "fork":
      return "the process forks";
    case "child ends":
      return "a child ends";
    case "advise":
      return `bring ${step.pages} pages from ${step.page} on, to be ${step.write ? "written" : "read"}`;
    case "register again":
      return "the region is deregistered, and registered again";
    default:
      return `the process: ${step.do}, ${step.pages} pages from ${step.page} on`;
  }
}
