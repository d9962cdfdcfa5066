/** The hardware of a run, as its configuration says: machine, VT-d unit, page-table format. */

import type { Observer } from "../../base/index.ts";
import { SimulatedHost, type SimulatedMachine } from "../../hosts/simulated/index.ts";
import { SimulatedVtdUnit } from "../../hosts/simulated/units/vtd/index.ts";
import { VtdUnit } from "../../iommu/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import type { MappingConfig } from "./plan.ts";

export function buildHost(seed: number, config: MappingConfig, observer: Observer | undefined): SimulatedHost {
  return new SimulatedHost({
    seed,
    memoryBytes: 2 ** 30,
    // Two devices behind one switch, so that peers can meet below the root, and one port of its own.
    bridges: [
      {
        cpu: { vendor: "AMD", family: 0x19 },
        rootPorts: [{ externalFacing: config.untrusted, switch: [{}, {}] }, { externalFacing: config.untrusted }],
      },
    ],
    coherent: config.coherent,
    scattered: true,
    peers: { followAcs: true },
    ...(config.confidential && { confidential: "refused" as const }),
    ...(config.poolSlots > 0 && { pool: { slots: config.poolSlots } }),
    ...(observer && { observer }),
  });
}

export function buildVtd(
  machine: SimulatedMachine,
  memory: Arena,
  config: MappingConfig,
  observer: Observer | undefined,
): { hardware: SimulatedVtdUnit; unit: VtdUnit } {
  const scalableMode = config.format === "x86-64";
  const hardware = new SimulatedVtdUnit({
    memory,
    clock: machine.clock,
    scalableMode,
    cachingMode: config.cachingMode && !scalableMode,
    deviceTlb: config.ats,
    faultRecords: 8,
  });
  const unit = new VtdUnit({
    registers: hardware,
    memory,
    clock: machine.clock,
    scalable: scalableMode,
    isGone: (requester) => machine.tree.node(requester)?.present !== true,
    ...(observer && { observer }),
  });
  return { hardware, unit };
}
