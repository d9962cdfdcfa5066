/**
 * A simulated machine as a host: the machine, and what an operating system adds to it so that drivers can run.
 *
 * Idea: {@link SimulatedMachine} is hardware. What software owns is here: the IOMMU's driver and its address spaces, the
 * bounce pool, the register of peers' memory. The other value of {@link Host} is a Linux machine.
 * Promises: after {@link SimulatedHost.close} nothing of it is attached; `machine.leaks()` says what a driver left.
 */
import { Counters, type Observer, type PhysPage } from "../../base/index.ts";
import {
  Dma,
  type DmaMachine,
  type Host,
  type HostCapabilities,
  type OpenDevice,
  type OpenDeviceOptions,
} from "../../dma/index.ts";
import { DmaDomain, INTERRUPT_WINDOW, VirtioDmaDomain, VirtioIommuUnit, VtdUnit } from "../../iommu/index.ts";
import { type TableLayout, vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { P2pRouter, type P2pRouterOptions } from "../../p2p/index.ts";
import { Arena } from "../../pagetable/index.ts";
import type { PciBar, TranslationUnit } from "../../platform/index.ts";
import type { BouncePool } from "../../swiotlb/index.ts";
import { buildBouncePool, type PoolDescription } from "./bounce-memory.ts";
import type { VirtualClock } from "./clock.ts";
import type { DeviceModel, SimulatedPciDevice } from "./device.ts";
import { noDevice } from "./errors.ts";
import { type MachineOptions, SimulatedMachine } from "./machine.ts";
import type { SimulatedRam } from "./ram.ts";
import { SimulatedUnit } from "./units/tables-unit.ts";
import { SimulatedVirtioIommu } from "./units/virtio/index.ts";
import { SimulatedVtdUnit } from "./units/vtd/index.ts";

/** How devices are translated. */
export interface IommuDescription {
  /** `strict`: an unmap invalidates before it returns. `lazy`: ranges wait in a flush queue. Default `strict`. */
  readonly mode?: "strict" | "lazy";
  /** The format of page tables, for units that walk them. Default: VT-d second stage. */
  readonly layout?: TableLayout;
  /**
   * `tables`: a unit that is driven by calls and walks tables of any format. `vt-d`: the unit with its registers, queue and
   * structures in memory. `virtio`: a virtio-iommu, which keeps mappings itself and does not split them. Default `tables`.
   */
  readonly unit?: "tables" | "vt-d" | "virtio";
  /** The unit remembers absent entries, as those of virtual machines do. Default false; unit `tables` only. */
  readonly cachingMode?: boolean;
  /** The unit sets the dirty bits of leaves. Default false; unit `tables` only. */
  readonly dirty?: boolean;
}

/** A machine, and what software adds to it. */
export interface SimulatedHostOptions extends Omit<MachineOptions, "translator"> {
  /** undefined: devices reach memory without translation. */
  readonly iommu?: IommuDescription | undefined;
  /** A bounce pool below 3 GiB. Default: none. */
  readonly pool?: PoolDescription | undefined;
  /** How peers' memory is routed. */
  readonly peers?: P2pRouterOptions;
  /** Of the bounce pool, and of devices that are opened without their own. */
  readonly counters?: Counters;
  /** Told of each step of the stack on this host. */
  readonly observer?: Observer;
}

/** A device of a simulated machine, opened. */
export interface SimulatedOpenDevice extends OpenDevice {
  /** Its registers, interrupts and configuration space, and its place in the machine. */
  readonly device: SimulatedPciDevice;
  /** Its address space, if it has page tables: undefined if it is not translated, or by a virtio-iommu. */
  readonly domain: DmaDomain | undefined;
}

/** Table memory of a VT-d unit: above the RAM, within what its structures can point to. */
const TABLE_MEMORY = (2 ** 35) as PhysPage;

/** A simulated machine with drivers' software on it. */
export class SimulatedHost implements Host {
  /** The hardware. */
  readonly machine: SimulatedMachine;
  /** The IOMMU as its driver sees it; undefined without one. */
  readonly unit: TranslationUnit | undefined;
  /** The unit that is driven by calls, for who looks at its faults and walks; undefined if it is another, or none. */
  readonly tablesUnit: SimulatedUnit | undefined;
  /** The VT-d unit: its hardware and its driver. */
  readonly vtd:
    | {
        /** The unit. */
        readonly hardware: SimulatedVtdUnit;
        /** Its driver. */
        readonly unit: VtdUnit;
        /** Where its structures lie: root tables, queues. */
        readonly memory: Arena;
      }
    | undefined;
  /** The virtio-iommu: the device and its driver. */
  readonly virtio:
    | {
        /** The device. */
        readonly hardware: SimulatedVirtioIommu;
        /** Its driver. */
        readonly unit: VirtioIommuUnit;
      }
    | undefined;
  /** The bounce pool; undefined without. */
  readonly pool: BouncePool | undefined;
  /** Which memory is a device's, and the ways there. */
  readonly peers: P2pRouter;
  /** What a {@link Dma} of this machine is made with. */
  readonly dmaMachine: DmaMachine;
  readonly capabilities: HostCapabilities;
  readonly #options: SimulatedHostOptions;
  readonly #open = new Map<string, SimulatedOpenDevice>();
  readonly #virtioDomains: VirtioDmaDomain[] = [];
  #domains = 0;

  /** @throws DmaError as {@link SimulatedMachine}, and those of the bounce pool */
  constructor(options: SimulatedHostOptions = {}) {
    this.#options = options;
    this.machine = new SimulatedMachine(options);
    const { machine } = this;
    const { clock, memory, pages, ramEnd, caches, encryption } = machine;
    const { iommu, observer } = options;
    if (iommu?.unit === "vt-d") {
      const tables = new Arena({ basePage: TABLE_MEMORY });
      const hardware = new SimulatedVtdUnit({ memory: tables, clock });
      const unit = new VtdUnit({ registers: hardware, memory: tables, clock, ...(observer && { observer }) });
      this.vtd = { hardware, unit, memory: tables };
      this.unit = unit;
      machine.fabric.translator = hardware;
    } else if (iommu?.unit === "virtio") {
      const hardware = new SimulatedVirtioIommu();
      this.virtio = { hardware, unit: new VirtioIommuUnit(hardware) };
      machine.fabric.translator = hardware;
    } else if (iommu) {
      this.tablesUnit = new SimulatedUnit({ cachingMode: iommu.cachingMode ?? false, dirty: iommu.dirty ?? false });
      this.unit = this.tablesUnit;
      machine.fabric.translator = this.tablesUnit;
    }
    this.peers = new P2pRouter(options.peers);
    machine.watch("peer providers", () => this.peers.providers.length);
    this.pool = options.pool && buildBouncePool(machine, options.pool, options);
    const { pool, peers } = this;
    if (pool) machine.watch("bounce slots", () => pool.used);
    machine.rebase();
    this.dmaMachine = {
      memory,
      pages,
      ramEnd,
      peers,
      ...(pool && { pool }),
      ...(caches && { caches }),
      ...(encryption && { encryption }),
    };
    this.capabilities = {
      bounce: pool !== undefined,
      cacheControl: caches !== undefined,
      peerRoutes: true,
      lazy: iommu?.mode === "lazy",
      splits: iommu?.unit !== "virtio",
      physicalAddresses: true,
    };
  }

  get memory(): SimulatedRam {
    return this.machine.ram;
  }

  /** The machine's time: it moves only while {@link run} waits. */
  get clock(): VirtualClock {
    return this.machine.clock;
  }

  /** Plugs a device in, one model per function. @throws DmaError as {@link SimulatedMachine.plug} */
  plug(slot: string, ...models: readonly [DeviceModel, ...DeviceModel[]]): SimulatedPciDevice[] {
    return this.machine.plug(slot, ...models);
  }

  /**
   * Opens a device that is plugged in, with an address space of its own. Opened again it is the same one, whatever the options.
   *
   * @param name `ssss:bb:dd.f`
   * @throws DmaError ERR_DMA_SIM_DEVICE (ENODEV) if there is none of that name
   */
  openDevice(name: string, options: OpenDeviceOptions = {}): SimulatedOpenDevice {
    const before = this.#open.get(name);
    if (before && !before.device.removed) return before;
    const device = this.machine.devices.find((each) => each.name === name);
    if (device === undefined)
      throw noDevice(
        name,
        this.machine.devices.map((each) => each.name),
      );
    const counters = options.counters ?? this.#options.counters ?? new Counters();
    const observer = options.observer ?? this.#options.observer;
    const { iommu, coherent = true } = this.#options;
    const common = { clock: this.clock, mode: iommu?.mode ?? "strict", domainId: ++this.#domains, counters, observer };
    const virtio =
      this.virtio && new VirtioDmaDomain({ ...common, unit: this.virtio.unit, reserved: [INTERRUPT_WINDOW] });
    if (virtio) {
      this.virtio!.unit.attach(device.requester, virtio);
      this.#virtioDomains.push(virtio);
    }
    const domain =
      this.unit &&
      new DmaDomain({
        ...common,
        layout: iommu?.layout ?? vtdSecondStage(),
        unit: this.unit,
        ...(this.vtd && { tableMemory: this.vtd.memory }),
      });
    if (domain) this.unit!.attach(device.requester, domain.tables, { trusted: options.limits?.untrusted !== true });
    const space = domain ?? virtio;
    const dma = new Dma({
      coherent,
      ...options.limits,
      name: device.name,
      node: device.node,
      machine: this.dmaMachine,
      counters,
      ...(observer && { observer }),
      ...(space && { domain: space }),
      ...(options.debug && { debug: options.debug }),
    });
    const open = { device, dma, domain, barMemory: (index: number): PciBar | undefined => barOf(device, index) };
    this.#open.set(name, open);
    return open;
  }

  /** Moves the clock from event to event until `work` is done. @throws what the work throws; if it can never end, that */
  run<T>(work: Promise<T>): Promise<T> {
    return this.clock.run(work);
  }

  /** Requests that the IOMMU has refused. */
  get faults(): number {
    this.vtd?.unit.readFaults();
    this.virtio?.unit.readFaults();
    const queued = (this.vtd?.unit.faults.length ?? 0) + (this.virtio?.unit.faults.length ?? 0);
    return (this.tablesUnit?.faults.length ?? 0) + queued;
  }

  /** Every device is detached and its address space ends. */
  close(): void {
    for (const { device, domain } of this.#open.values()) {
      this.unit?.detach(device.requester);
      this.virtio?.unit.detach(device.requester);
      domain?.destroy();
    }
    for (const domain of this.#virtioDomains.splice(0)) domain.destroy();
    this.#open.clear();
  }

  /** As `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

const barOf = ({ node }: SimulatedPciDevice, index: number): PciBar | undefined =>
  node.bars.find((bar) => bar.index === index);
