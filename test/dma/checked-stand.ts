/** Devices under checked mode: behind an IOMMU or without one, below a switch, in a confidential guest. */
import { MiB, PhysAddr, PhysPage } from "../../src/base/index.ts";
import { Dma, type DmaOptions } from "../../src/dma/index.ts";
import { DmaDebug, type DmaDebugOptions } from "../../src/dma-debug/index.ts";
import {
  DmaEngine,
  SimulatedHost,
  type SimulatedMachine,
  SimulatedMemory,
  type SimulatedPciNode,
  SimulatedUnit,
  VirtualClock,
} from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { ACS } from "../../src/layouts/pci/index.ts";
import type { PciBar } from "../../src/platform/index.ts";

export const KiB4 = 4096;
export const RAM: PhysAddr = PhysAddr(0x2000_1000);
export const REQUESTER = 0x100;

/** What {@link setUp} gives: the device, the engine that plays it, and the codes of the findings so far. */
export interface CheckedDevice {
  readonly debug: DmaDebug;
  readonly dma: Dma;
  readonly engine: DmaEngine;
  readonly unit: SimulatedUnit;
  readonly domain: DmaDomain;
  readonly codes: () => string[];
}

/** Two devices below one switch, the one with memory that the other reaches. */
export interface CheckedPeers {
  readonly machine: SimulatedMachine;
  readonly debug: DmaDebug;
  readonly dma: Dma;
  readonly client: { readonly engine: DmaEngine; readonly node: SimulatedPciNode };
  /** From now on peers' requests go up to the root. */
  readonly redirect: () => void;
  readonly bar: PciBar;
}

/** A confidential guest with a device outside its trust. */
export interface CheckedGuest {
  readonly machine: SimulatedMachine;
  readonly engine: DmaEngine;
  readonly debug: DmaDebug;
  readonly dma: Dma;
  /** A private page. */
  readonly page: PhysPage;
  readonly phys: PhysAddr;
}

/** A device behind an IOMMU, or without one, and an engine that plays it. */
export function setUp(
  options: DmaDebugOptions = {},
  device: DmaOptions & { direct?: boolean; mode?: "strict" | "lazy" } = {},
): CheckedDevice {
  const debug = new DmaDebug({ print: "none", ...options });
  const unit = new SimulatedUnit();
  const memory = new SimulatedMemory();
  const { direct, mode = "strict", ...rest } = device;
  const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock: new VirtualClock(), mode });
  unit.attach(REQUESTER, domain.tables);
  const dma = new Dma({ name: "0000:01:00.0", ...(!direct && { domain }), debug, ...rest });
  const engine = new DmaEngine(REQUESTER, unit, memory);
  debug.knowAs(dma.device, REQUESTER);
  engine.onAccess = debug.accessed;
  const codes = (): string[] => debug.report().map(({ code }) => code);
  return { debug, dma, engine, unit, domain, codes };
}

export const bytes = (length = 64): Uint8Array => new Uint8Array(length);
/** A machine whose two devices are below one switch, translated by a unit. */
export function peers(): CheckedPeers {
  const host = new SimulatedHost({
    memoryBytes: 64 * MiB,
    bridges: [{ rootPorts: [{ switch: [{}, {}] }] }],
    iommu: {},
  });
  const { machine } = host;
  const plug = (slot: string) => {
    const engine = new DmaEngine({ memoryBytes: 0x1_0000 });
    const device = machine.plug(slot, engine)[0]!;
    device.setBusMaster(true);
    return { engine, node: device.node };
  };
  const [client, owner] = [plug("0.0.0"), plug("0.0.1")];
  host.peers.add(owner.node, owner.node.bars[0]!);
  const debug = new DmaDebug({ print: "none" });
  machine.fabric.onAccess = debug.accessed;
  const { dma } = host.openDevice(client.node.name, { debug });
  const redirect = (): void => {
    for (const { node } of [client, owner]) node.parent!.acsControl = ACS.requestRedirect | ACS.completionRedirect;
  };
  return { machine, debug, dma, client, redirect, bar: owner.node.bars[0]! };
}

/** A device of a confidential guest, outside its trust. */
export function confidential(direct = false): CheckedGuest {
  const host = new SimulatedHost({
    memoryBytes: 64 * MiB,
    confidential: "refused",
    pool: { slots: 128 },
    iommu: direct ? undefined : {},
  });
  const { machine } = host;
  const engine = new DmaEngine();
  const device = machine.plug("0.0", engine)[0]!;
  device.setBusMaster(true);
  const debug = new DmaDebug({ print: "none" });
  machine.fabric.onAccess = debug.accessed;
  const { dma } = host.openDevice(device.name, { debug, limits: { forceBounce: direct } });
  const page = machine.ram.allocatePages(1)!;
  return { machine, engine, debug, dma, page, phys: PhysPage.start(page) };
}
