/**
 * A simulated machine with confidential guests and devices that can enter their trust.
 *
 * Idea: a {@link SimulatedMachine} and what hardware adds to it: owners of pages, the rules of the T bit, IDE at the root ports, the
 * firmware of a security manager, and a vendor whose devices prove who they are. Software is not in here: the host's link core
 * and the guest's contract are consumers/tee.
 * Promises: {@link TeeMachine.leaks} says what is not as it was at the start.
 */
import { GiB, PAGE_SIZE, type PhysAddr, PhysPage, type Random } from "../../../base/index.ts";
import type { DmaMachine } from "../../../dma/index.ts";
import type {
  Clock,
  MemoryEncryption,
  PciBar,
  SecurityFunction,
  TranslationUnit,
  TrustedInterface,
} from "../../../platform/index.ts";
import type { DeviceModel } from "../device.ts";
import { type MachineOptions, SimulatedMachine } from "../machine.ts";
import type { SimulatedPciNode } from "../pci.ts";
import { isRam as hasRam } from "../ram.ts";
import { Vendor } from "./certificates.ts";
import { SimulatedFirmware } from "./firmware.ts";
import { TrustGate } from "./gate.ts";
import { GuestPciDevice } from "./guest-device.ts";
import type { GuestInterface } from "./guest-interface.ts";
import { GuestPages } from "./guest-pages.ts";
import { IdeEnd, type IdeEndOptions } from "./ide-end.ts";
import { IdealKeys, randomBytes } from "./keys.ts";
import { SecureDevice, type SecureDeviceOptions, type SecureFunction } from "./secure-device.ts";
import { Tvm, type TvmOptions } from "./tvm.ts";
import { Wire } from "./wire.ts";

/** A machine's own options, and those of its root ports. */
export interface TeeMachineOptions extends Omit<MachineOptions, "confidential"> {
  /** The streams of its root ports, where they differ from the defaults. */
  readonly rootIde?: Omit<IdeEndOptions, "requester" | "onInsecure">;
}

/** What is said of a device when it is plugged in. */
export type PlugOptions = Partial<
  Pick<SecureDeviceOptions, "vendor" | "measurements" | "ranges" | "ide" | "hasTee" | "mailboxMs">
>;

/** What a guest's software is made on. */
export interface GuestSide {
  /** Memory, pool and page book of the guest. */
  readonly machine: DmaMachine & {
    /** Which pages are private: the guest's own book. */
    readonly encryption: MemoryEncryption;
  };
  /** Translates requests inside the trust, by tables that the guest writes. */
  readonly unit: TranslationUnit;
  /** The machine's time. */
  readonly clock: Clock;
  /** True for pages that are RAM, not memory of a device. */
  readonly isRam: (page: PhysPage) => boolean;
  /** 32 bytes by chance. */
  readonly nonce: () => Uint8Array;
}

/** A function in a guest. */
export interface AssignedFunction {
  /** As the guest's driver sees it. */
  readonly device: GuestPciDevice;
  /** Its place in the machine's tree. */
  readonly node: SimulatedPciNode;
  /** The way to its trusted interface; undefined where the device has none or is not bound to this guest. */
  readonly interface: () => TrustedInterface | undefined;
  /** Its memory BARs as the guest sees them now. */
  readonly bars: () => readonly PciBar[];
}

/** A port, as the link core looks at it. */
class SecurePort implements SecurityFunction {
  readonly node: SimulatedPciNode;
  readonly ide: IdeEnd | undefined;
  readonly parent: SecurityFunction | undefined;
  readonly hasTee = false;

  constructor(node: SimulatedPciNode, ide: IdeEnd | undefined, parent: SecurityFunction | undefined) {
    this.node = node;
    this.ide = ide;
    this.parent = parent;
  }

  get name(): string {
    return this.node.name;
  }

  get requester(): number {
    return this.node.requester;
  }

  get kind(): SecurityFunction["kind"] {
    return this.node.kind;
  }

  get hasIde(): boolean {
    return this.ide !== undefined;
  }
}

/** A simulated machine with confidential guests, and devices that can enter their trust. */
export class TeeMachine {
  /** The machine without its trust: memory, tree, devices, time. */
  readonly machine: SimulatedMachine;
  /** What all its chance is drawn from. */
  readonly random: Random;
  /** What stands for cryptography, for all of the machine. */
  readonly keys: IdealKeys = new IdealKeys();
  /** Who owns each page. */
  readonly pages: GuestPages;
  /** What crosses between ports, to be seen and changed. */
  readonly wire: Wire = new Wire();
  /** The rules of the T bit. */
  readonly gate: TrustGate;
  /** The security manager. */
  readonly firmware: SimulatedFirmware;
  /** Who made the devices, unless another vendor is named. */
  readonly vendor: Vendor;
  /** Guests that were started, in that order. */
  readonly guests: Tvm[] = [];
  readonly #ports = new Map<SimulatedPciNode, SecurePort>();
  readonly #devices = new Map<SimulatedPciNode, SecureDevice>();
  readonly #isRam: (page: PhysPage) => boolean;
  #guestNumbers = 0;

  /** A machine without guests and devices. */
  constructor(options: TeeMachineOptions = {}) {
    this.machine = new SimulatedMachine(options);
    const { machine } = this;
    this.random = machine.random.fork("trust");
    const { memoryBytes = 4 * GiB } = options;
    const isRam = options.isRam ?? ((page: PhysPage): boolean => hasRam(page, memoryBytes));
    this.#isRam = isRam;
    this.pages = new GuestPages({ isRam, scrub: (first, count) => machine.dram.scrub(first, count) });
    this.gate = new TrustGate({ pages: this.pages, wire: this.wire });
    machine.fabric.gate = this.gate;
    this.vendor = new Vendor(this.keys, this.random.fork("vendor"), "vendor");
    for (const node of machine.tree.nodes()) this.#addPort(node, options.rootIde);
    this.firmware = new SimulatedFirmware({
      keys: this.keys,
      random: this.random.fork("firmware"),
      gate: this.gate,
      pages: this.pages,
      ideOf: (requester) => this.#portAt(requester)?.ide,
    });
    machine.watch("sessions with devices", () => this.firmware.sessions);
    machine.watch("pages of guests", () => [...this.pages.entries()].length);
  }

  /** Functions and ports there are now, in bus order: what a host's link core works on. */
  get functions(): readonly SecurityFunction[] {
    const ports: SecurityFunction[] = [...this.#ports.values()];
    return [...ports, ...[...this.#devices.values()].flatMap(({ functions }) => functions)].sort(
      (a, b) => a.requester - b.requester,
    );
  }

  /** Devices that are plugged in. */
  get devices(): readonly SecureDevice[] {
    return [...this.#devices.values()];
  }

  /** Plugs in a device that can prove who it is, one model per function. @throws as {@link SimulatedMachine.plug} */
  plug(slot: string, models: readonly [DeviceModel, ...DeviceModel[]], options: PlugOptions = {}): SecureDevice {
    const pci = this.machine.plug(slot, ...models);
    for (const fn of pci) fn.setBusMaster(true); // the host's: a guest has a command register of its own
    const device = new SecureDevice(
      pci,
      {
        vendor: this.vendor,
        keys: this.keys,
        random: this.random.fork(`device ${pci[0]!.name}`),
        clock: this.machine.clock,
        ...options,
      },
      (node) => node.parent && this.#ports.get(node.parent),
    );
    const manager = device.manager.node;
    this.#devices.set(manager, device);
    this.gate.addDevice(device);
    const root = this.#rootOf(manager)?.ide;
    device.onStreamLost = (stream) => {
      root?.fail(stream);
      for (const peer of this.#devices.values()) peer.ide.fail(stream);
    };
    pci[0]!.onRemoved(() => {
      this.#devices.delete(manager);
      this.gate.removeDevice(device);
    });
    return device;
  }

  /** Pulls a device out by surprise. */
  unplug(device: SecureDevice): void {
    this.machine.unplug(device.manager.node);
  }

  /** Starts a confidential guest. */
  startGuest(options: TvmOptions = {}): Tvm {
    const guest = new Tvm(this.machine, this.pages, ++this.#guestNumbers, options);
    this.guests.push(guest);
    return guest;
  }

  /** What the guest's own software works on: its memory, its unit, its chance. */
  guestSide(guest: Tvm): GuestSide {
    const { machine } = this;
    const { encryption, pages, peers, pool, unit } = guest;
    const chance = this.random.fork(`guest ${guest.number}`);
    return {
      machine: { memory: machine.memory, encryption, pages, pool, ramEnd: machine.ramEnd, peers },
      unit,
      clock: machine.clock,
      isRam: this.#isRam,
      nonce: () => randomBytes(chance, 32),
    };
  }

  /** A function, as the guest that it is assigned to gets it. */
  assigned(fn: SecureFunction, guest: Tvm): AssignedFunction {
    return {
      device: new GuestPciDevice(fn, this.gate, guest),
      node: fn.node,
      interface: () => this.interfaceOf(fn),
      bars: () => fn.node.bars,
    };
  }

  /** The interface that a function is for its guest, once it is bound. */
  interfaceOf(fn: SecureFunction): GuestInterface | undefined {
    return this.firmware.interfaceOf(fn);
  }

  /** Memory as the host's CPU reads it: private pages of guests are not for it, and read as all ones. */
  hostRead(phys: PhysAddr, into: Uint8Array): boolean {
    let isAllowed = true;
    for (let at = 0; at < into.length; ) {
      const here = (phys + at) as PhysAddr;
      const length = Math.min(PAGE_SIZE - (here % PAGE_SIZE), into.length - at);
      const piece = into.subarray(at, at + length);
      if (this.pages.at(PhysPage.of(here)).isPrivate) {
        piece.fill(0xff);
        isAllowed = false;
      } else this.machine.memory.read(here, piece);
      at += length;
    }
    return isAllowed;
  }

  /** What is not as it was at the start; empty if all is. */
  leaks(): string[] {
    return this.machine.leaks();
  }

  #addPort(node: SimulatedPciNode, options: TeeMachineOptions["rootIde"]): void {
    const isRoot = node.kind === "root-port";
    const ide = isRoot
      ? new IdeEnd({ ...options, requester: node.requester, onInsecure: (stream) => this.#rootFailed(node, stream) })
      : undefined;
    this.#ports.set(node, new SecurePort(node, ide, node.parent && this.#ports.get(node.parent)));
    if (ide) this.gate.addRoot(node, ide);
  }

  /** What fails at a root port fails at the devices below it. */
  #rootFailed(root: SimulatedPciNode, stream: number): void {
    for (const device of this.#devices.values())
      if (this.#rootOf(device.manager.node)?.node === root) device.ide.fail(stream);
  }

  #rootOf(node: SimulatedPciNode): SecurePort | undefined {
    let above = node.parent;
    while (above?.parent) above = above.parent;
    return above && this.#ports.get(above);
  }

  #portAt(requester: number): SecurePort | undefined {
    return [...this.#ports.values()].find((port) => port.requester === requester);
  }
}
