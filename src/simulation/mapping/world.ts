/**
 * The machine of a run: memory, tree, unit, devices with their front doors, and a watch on every access.
 *
 * Idea: nothing here knows what a step is, nor what is right. It builds what the plan's configuration says, lets devices be
 * pulled out and plugged in again, and tells whoever judges of every access and every flush.
 * Parts can be replaced before anything is built on them, so that tests can plant a defect in any of them and see it found.
 */
import { Counters, type DmaAddr, type IovaPage, type Observer, type PhysPage } from "../../base/index.ts";
import { ConfidentialMemory, Dma, type DmaMachine, type PhysVec } from "../../dma/index.ts";
import {
  DmaEngine,
  type SimulatedHost,
  type SimulatedMachine,
  type SimulatedPciDevice,
  SimulatedUnit,
} from "../../hosts/simulated/index.ts";
import type { SimulatedVtdUnit } from "../../hosts/simulated/units/vtd/index.ts";
import { DmaDomain, type VtdUnit } from "../../iommu/index.ts";
import { layoutNamed } from "../../layouts/pagetable/index.ts";
import type { P2pProvider } from "../../p2p/index.ts";
import { Arena } from "../../pagetable/index.ts";
import type { Requester, TranslationUnit } from "../../platform/index.ts";
import type { BouncePool } from "../../swiotlb/index.ts";
import { readPieces, writePieces } from "../bytes.ts";
import { methodsOf } from "../observers.ts";
import type { PlantedParts, RunOptions } from "../scenario.ts";
import { buildHost, buildVtd } from "./hardware.ts";
import type { MappingConfig } from "./plan.ts";

/** A device in its slot, with its driver's front door. */
export interface WorldDevice {
  readonly slot: string;
  readonly engine: DmaEngine;
  readonly pci: SimulatedPciDevice;
  readonly dma: Dma;
  readonly domain: DmaDomain | undefined;
  readonly counters: Counters;
  /** Its window, as other devices know it. */
  readonly provider: P2pProvider;
  /** Pulled out, or given up by the unit: it moves nothing any more, and that is right. */
  dead: boolean;
}

const PEER_BYTES = 64 * 1024;
const TABLE_MEMORY = (2 ** 35) as PhysPage;

export class World {
  readonly host: SimulatedHost;
  /** The hardware of {@link host}. */
  readonly machine: SimulatedMachine;
  readonly devices: WorldDevice[] = [];
  readonly arena: Arena;
  /** The bounce pool as devices' front doors see it. */
  readonly pool: BouncePool | undefined;
  readonly vtd: { readonly hardware: SimulatedVtdUnit; readonly unit: VtdUnit } | undefined;
  /** Called for every access that a unit let through. */
  watch: (requester: Requester, page: IovaPage, access: "read" | "write") => void = () => {};
  /** Called for every flush of a whole domain, with the number of its device. */
  onFlush: (device: number) => void = () => {};
  readonly #config: MappingConfig;
  readonly #observer: Observer | undefined;
  readonly #parts: PlantedParts;
  readonly #unit: TranslationUnit | undefined;
  readonly #dmaMachine: DmaMachine;
  #domains = 0;

  constructor(seed: number, config: MappingConfig, { observer, parts = {} }: RunOptions) {
    this.#config = config;
    this.#observer = observer;
    this.#parts = parts;
    this.host = buildHost(seed, config, observer);
    this.machine = this.host.machine;
    this.arena = new Arena({ basePage: TABLE_MEMORY });
    const { pool } = this.host;
    this.pool = pool && (parts.pool?.(pool) ?? pool);
    if (config.mode !== "direct") {
      let inner: { translate: SimulatedUnit["translate"] };
      if (config.format === "vtd-second-stage" || config.format === "x86-64") {
        this.vtd = buildVtd(this.machine, this.arena, config, observer);
        inner = this.vtd.hardware;
        this.#unit = parts.unit?.(this.vtd.unit) ?? this.vtd.unit;
      } else {
        const unit = new SimulatedUnit({ cachingMode: config.cachingMode });
        inner = unit;
        this.#unit = parts.unit?.(unit) ?? unit;
      }
      this.machine.fabric.translator = {
        translate: (requester, page, access) => {
          const found = inner.translate(requester, page, access);
          if (found >= 0) this.watch(requester, page, access);
          return found;
        },
      };
    }
    const encryption = this.machine.encryption && new ConfidentialMemory(this.machine.encryption);
    const dmaMachine: DmaMachine = {
      memory: this.machine.memory,
      pages: this.machine.pages,
      peers: this.host.peers,
      ramEnd: this.machine.ramEnd,
      ...(this.pool && { pool: this.pool }),
      ...(this.machine.caches && { caches: this.machine.caches }),
      ...(encryption && { encryption }),
    };
    this.#dmaMachine = parts.machine?.(dmaMachine) ?? dmaMachine;
    for (let i = 0; i < config.devices; i++) this.#plug(i, SLOTS[i]!);
    for (let i = 0; i < config.devices; i++) this.machine.watch(`device ${i}`, () => this.held(i));
  }

  /** What a device's front door holds: reservations and leaves. */
  held(index: number): number {
    const { counters } = this.devices[index]!;
    const leaves = counters.leavesWritten - counters.leavesCleared;
    return counters.iovaAllocations - counters.iovaFrees + leaves;
  }

  /** Everything that a call may leave behind. */
  state(device: WorldDevice): string {
    const { encryption, ram } = this.machine;
    const confidential = encryption ? `, ${encryption.sharedPages} shared pages` : "";
    const held = this.held(this.devices.indexOf(device));
    return `${held} held, ${this.pool?.used ?? 0} slots, ${ram.pagesInUse} pages${confidential}`;
  }

  /** Devices that did not answer an invalidation have lost the unit's trust: what they do is not judged any more. */
  noticeGivenUp(): void {
    for (const fault of this.vtd?.unit.faults.drain() ?? []) {
      if (fault.kind !== "device-given-up") continue;
      for (const device of this.devices) if (device.pci.requester === fault.requester) device.dead = true;
    }
  }

  /** A device is gone. What it had mapped stays to be unmapped; then another one of its kind may take its slot. */
  pullOut(index: number): void {
    const old = this.devices[index]!;
    this.host.peers.remove(old.provider);
    this.machine.unplug(old.pci.node);
    old.dead = true;
  }

  /** The new device of a slot whose old one is gone and has nothing mapped. */
  plugAgain(index: number): void {
    const old = this.devices[index]!;
    this.#detach(old);
    this.#plug(index, old.slot);
  }

  /** The end: everything is given back. */
  close(): void {
    for (const device of this.devices) this.#detach(device);
    this.vtd?.unit.destroy();
  }

  #detach(device: WorldDevice): void {
    if (!device.domain) return;
    this.#unit!.detach(device.pci.requester);
    device.domain.destroy();
  }

  #plug(index: number, slot: string): void {
    const config = this.#config;
    const engine = new DmaEngine({ memoryBytes: PEER_BYTES });
    const [pci] = this.machine.plug(slot, engine) as [SimulatedPciDevice];
    pci.setBusMaster(true);
    const counters = new Counters();
    let domain: DmaDomain | undefined;
    if (this.#unit) {
      domain = new DmaDomain({
        layout: layoutNamed(config.format),
        unit: this.#unit,
        clock: this.machine.clock,
        mode: config.mode === "lazy" ? "lazy" : "strict",
        domainId: 1 + this.#domains++,
        tableMemory: this.arena,
        counters,
        observer: {
          ...methodsOf(this.#observer),
          domainInvalidated: () => {
            this.#observer?.domainInvalidated?.();
            this.onFlush(index);
          },
        },
      });
      domain = this.#parts.domain?.(domain) ?? domain;
      if (this.vtd && config.ats) {
        this.vtd.hardware.addDeviceTlb(pci.requester);
        this.vtd.unit.attach(pci.requester, domain.tables, { ats: { queueDepth: 8, stu: 0 } });
      } else this.#unit.attach(pci.requester, domain.tables);
    }
    const dma = new Dma({
      name: pci.name,
      node: pci.node,
      machine: this.#dmaMachine,
      coherent: config.coherent,
      untrusted: config.untrusted,
      forceBounce: config.forceBounce,
      mask: config.mode === "direct" ? 2 ** 48 - 1 : config.mask,
      minAlignMask: config.minAlignMask,
      maxSegmentSize: config.maxSegmentSize,
      counters,
      ...(domain && { domain }),
      ...(this.#observer && { observer: this.#observer }),
    });
    const bar = pci.node.bars[0]!;
    const provider = this.host.peers.add(pci.node, bar);
    this.devices[index] = { slot, engine, pci, dma, domain, counters, provider, dead: false };
  }

  cpuWrite(pieces: readonly PhysVec[], bytes: Uint8Array): void {
    writePieces(this.machine.memory, pieces, bytes);
  }

  cpuRead(pieces: readonly PhysVec[], into: Uint8Array): void {
    readPieces(this.machine.memory, pieces, into);
  }

  deviceRead(device: WorldDevice, address: number, into: Uint8Array): boolean {
    return device.engine.read(address as DmaAddr, into);
  }

  deviceWrite(device: WorldDevice, address: number, from: Uint8Array): boolean {
    return device.engine.write(address as DmaAddr, from);
  }
}

/** Two below one switch, one below a root port of its own. */
const SLOTS = ["0.0.0", "0.0.1", "0.1"] as const;
