/**
 * The PCI tree of a simulated machine: host bridges, root ports, switches, slots, and the devices in them.
 *
 * Idea: ports are built from a description and stay; devices come and go. Buses are numbered depth first, as firmware
 * does, so a description alone fixes every requester id. A device that was pulled out keeps its node, marked absent, for
 * those who still hold it; what is plugged in afterwards is a new node.
 * Promises: writes to an access control register keep only the bits that the port has.
 * Not for: moving data (fabric.ts) or BAR addresses (machine.ts).
 */

import { requesterName } from "../../layouts/pci/index.ts";
import type { HostBridge, PciBar, PciNode } from "../../platform/index.ts";
import { slotTaken, unknownSlot } from "./errors.ts";

/** Every bit that the ACS control register has. */
const ALL_ACS = 0x7f;

/** A port, as described: what may be below it, and how it treats peer traffic. */
export interface PortDescription {
  /** Bits of the ACS capability: those that can be set. All unless said; 0 for a port without it. */
  readonly acsCapability?: number;
  /** ACS control register at start. 0 unless said. */
  readonly acsControl?: number;
  /** Firmware says that anybody may plug in here. */
  readonly externalFacing?: boolean;
  /** A switch is soldered to this port, with these ports of its own; otherwise the port is a slot for a device. */
  readonly switch?: readonly PortDescription[];
}

/** A root complex. */
export interface BridgeDescription {
  /** PCI segment, 0 to 65535; 0 unless said. */
  readonly segment?: number;
  /** 0x8086 unless said. */
  readonly vendorId?: number;
  /** 0x29c0 unless said. */
  readonly deviceId?: number;
  /** The processor; Intel, family 6, unless said. */
  readonly cpu?: {
    /** `AMD` is the one that matters; any other is taken as it is. */
    readonly vendor: string;
    /** As CPUID reports it, extended family added. */
    readonly family: number;
  };
  /** It passes requests on between its root ports. Unless said, AMD processors from family 0x17 on do. */
  readonly routesPeers?: boolean;
  /** What its buses subtract from CPU addresses of BARs. 0 unless said. */
  readonly busOffset?: number;
  /** Its root ports, in order of their device numbers. None unless said. */
  readonly rootPorts?: readonly PortDescription[];
}

/** A root complex: where the PCI tree ends and the processor begins. */
export class SimulatedHostBridge implements HostBridge {
  readonly segment: number;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly cpu: {
    /** As it was described. */
    readonly vendor: string;
    /** As it was described. */
    readonly family: number;
  };
  /** It passes requests on between its root ports. */
  readonly routesPeers: boolean;
  /** Bus address less CPU address, for all memory behind it. */
  readonly busOffset: number;
  /** The bus below it. */
  readonly bus: number;

  constructor(description: BridgeDescription, bus: number) {
    this.segment = description.segment ?? 0;
    this.vendorId = description.vendorId ?? 0x8086;
    this.deviceId = description.deviceId ?? 0x29c0;
    this.cpu = description.cpu ?? { vendor: "Intel", family: 6 };
    this.routesPeers = description.routesPeers ?? (this.cpu.vendor === "AMD" && this.cpu.family >= 0x17);
    this.busOffset = description.busOffset ?? 0;
    this.bus = bus;
  }
}

/** A place in the simulated PCI tree. Bits may change, devices may go. */
export class SimulatedPciNode implements PciNode {
  readonly requester: number;
  readonly kind: PciNode["kind"];
  readonly parent: SimulatedPciNode | undefined;
  readonly hostBridge: SimulatedHostBridge;
  readonly externalFacing: boolean;
  /** Bits of the ACS control register that exist. */
  readonly acsCapability: number;
  /** What is below, ports and devices; empty for a device. */
  readonly children: SimulatedPciNode[] = [];
  /** Its memory BARs, where they lie now. */
  readonly bars: PciBar[] = [];
  /** It may start requests. Ports always do. */
  busMaster: boolean;
  /** It listens to the addresses of its BARs. */
  decodesMemory = true;
  /** Inside the trust boundary of a confidential guest. */
  trusted = false;
  #acsControl = 0;
  #present = true;

  constructor(
    place: {
      readonly kind: PciNode["kind"];
      readonly bus: number;
      readonly device: number;
      readonly fn?: number;
      readonly parent: SimulatedPciNode | undefined;
      readonly hostBridge: SimulatedHostBridge;
    },
    description: PortDescription = {},
  ) {
    const { kind, bus, device, fn = 0, parent, hostBridge } = place;
    this.requester = hostBridge.segment * 65_536 + bus * 256 + device * 8 + fn;
    this.kind = kind;
    this.parent = parent;
    this.hostBridge = hostBridge;
    this.externalFacing = description.externalFacing ?? false;
    this.acsCapability = description.acsCapability ?? ALL_ACS;
    this.busMaster = kind !== "endpoint" && kind !== "root-endpoint";
    this.acsControl = description.acsControl ?? 0;
    parent?.children.push(this);
  }

  /** `ssss:bb:dd.f` */
  get name(): string {
    return requesterName(this.requester);
  }

  get acsControl(): number {
    return this.#acsControl;
  }

  set acsControl(bits: number) {
    this.#acsControl = bits & this.acsCapability;
  }

  get present(): boolean {
    return this.#present;
  }

  /** Firmware calls some port above external-facing: the device may be anybody's. */
  get untrusted(): boolean {
    return this.parent !== undefined && (this.parent.externalFacing || this.parent.untrusted);
  }

  /** Pulled out, with everything below. Only the tree does this. */
  markAbsent(): void {
    this.#present = false;
    for (const child of this.children) child.markAbsent();
  }
}

/** Where a device can be: a root bus, or the bus below a port. */
interface Slot {
  readonly hostBridge: SimulatedHostBridge;
  readonly port: SimulatedPciNode | undefined;
  readonly bus: number;
}

/** Root complexes, ports, switches and slots. */
export class SimulatedPciTree {
  /** In the order of their descriptions. */
  readonly hostBridges: SimulatedHostBridge[] = [];
  /** Ports of root buses, and devices on them. */
  readonly #rootNodes: SimulatedPciNode[] = [];
  readonly #slots = new Map<string, Slot>();
  readonly #byRequester = new Map<number, SimulatedPciNode>();
  /** By segment. */
  readonly #nextBus = new Map<number, number>();
  readonly #nextRootDevice = new Map<SimulatedHostBridge, number>();

  /** Builds all ports and numbers their buses; slots are empty. */
  constructor(bridges: readonly BridgeDescription[]) {
    bridges.forEach((description, i) => {
      const hostBridge = new SimulatedHostBridge(description, this.#takeBus(description.segment ?? 0));
      this.hostBridges.push(hostBridge);
      this.#slots.set(`${i}`, { hostBridge, port: undefined, bus: hostBridge.bus });
      this.#nextRootDevice.set(hostBridge, 1);
      (description.rootPorts ?? []).forEach((port, at) => {
        const device = this.#takeRootDevice(hostBridge);
        const place = { kind: "root-port", bus: hostBridge.bus, device, parent: undefined, hostBridge } as const;
        this.#addPort(`${i}.${at}`, this.#add(new SimulatedPciNode(place, port)), port);
      });
    });
  }

  /**
   * Puts a device with `functions` functions into a slot: `"0"` is the first host bridge's own bus, `"0.1"` the slot at its
   * second root port, `"0.1.2"` that at the third port of the switch there, and so on. The functions' nodes.
   *
   * @throws DmaError ERR_DMA_SIM_NO_SLOT (ENODEV), ERR_DMA_SIM_SLOT_TAKEN (EBUSY)
   */
  plug(slot: string, functions = 1): SimulatedPciNode[] {
    const place = this.#slots.get(slot);
    if (!place) throw unknownSlot(slot, [...this.#slots.keys()]);
    const { hostBridge, port: parent, bus } = place;
    if (parent && parent.children.length > 0) throw slotTaken(slot, parent.children[0]!.name);
    const device = parent ? 0 : this.#takeRootDevice(hostBridge);
    const kind = parent ? "endpoint" : "root-endpoint";
    return Array.from({ length: functions }, (_, fn) =>
      this.#add(new SimulatedPciNode({ kind, bus, device, fn, parent, hostBridge })),
    );
  }

  /**
   * Pulls a device out, all its functions at once and with everything below, whatever it was doing. Who went; nobody the
   * second time.
   */
  unplug(node: SimulatedPciNode): SimulatedPciNode[] {
    const siblings = node.parent ? node.parent.children : this.#rootNodes;
    const pulled = siblings.filter((each) => each.requester >>> 3 === node.requester >>> 3 && each.present);
    const gone: SimulatedPciNode[] = [];
    const take = (each: SimulatedPciNode): void => {
      gone.push(each);
      this.#byRequester.delete(each.requester);
      for (const child of each.children) take(child);
    };
    for (const each of pulled) {
      siblings.splice(siblings.indexOf(each), 1);
      take(each);
      each.markAbsent();
    }
    for (const [name, { port }] of this.#slots) if (port && !port.present) this.#slots.delete(name);
    return gone;
  }

  /** Who is called `requester` now. */
  node(requester: number): SimulatedPciNode | undefined {
    return this.#byRequester.get(requester);
  }

  /** All that are present, ports included. */
  nodes(): IterableIterator<SimulatedPciNode> {
    return this.#byRequester.values();
  }

  /** Names of the places for devices. */
  get slots(): readonly string[] {
    return [...this.#slots.keys()];
  }

  /** The bus below `port`, and what is soldered to it. */
  #addPort(name: string, port: SimulatedPciNode, description: PortDescription): void {
    const { hostBridge } = port;
    const bus = this.#takeBus(hostBridge.segment);
    if (!description.switch) {
      this.#slots.set(name, { hostBridge, port, bus });
      return;
    }
    // The switch's own upstream port has no redirection to do: the ports below it decide.
    const upstream = new SimulatedPciNode(
      { kind: "upstream-port", bus, device: 0, parent: port, hostBridge },
      { acsCapability: 0 },
    );
    this.#add(upstream);
    const inside = this.#takeBus(hostBridge.segment);
    description.switch.forEach((below, device) => {
      const place = { kind: "downstream-port", bus: inside, device, parent: upstream, hostBridge } as const;
      this.#addPort(`${name}.${device}`, this.#add(new SimulatedPciNode(place, below)), below);
    });
  }

  #add(node: SimulatedPciNode): SimulatedPciNode {
    this.#byRequester.set(node.requester, node);
    if (!node.parent) this.#rootNodes.push(node);
    return node;
  }

  #takeBus(segment: number): number {
    const bus = this.#nextBus.get(segment) ?? 0;
    this.#nextBus.set(segment, bus + 1);
    return bus;
  }

  #takeRootDevice(hostBridge: SimulatedHostBridge): number {
    const device = this.#nextRootDevice.get(hostBridge)!;
    this.#nextRootDevice.set(hostBridge, device + 1);
    return device;
  }
}
