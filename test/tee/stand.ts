/** A host, a confidential guest, and devices that can enter its trust: what most tests of trusted devices begin with. */
import { DmaError, PhysAddr } from "../../src/base/index.ts";
import {
  type AttestationPolicy,
  LinkDriver,
  LinkFiles,
  policyHex,
  type SecurityManager,
  type TeeDevice,
  TeeGuest,
} from "../../src/consumers/tee/index.ts";
import { type DeviceModel, DmaEngine, NvmeController } from "../../src/hosts/simulated/index.ts";
import {
  firmwareDigest,
  type PlugOptions,
  type SecureDevice,
  type SecureFunction,
  TeeMachine,
  type TeeMachineOptions,
  type Tvm,
} from "../../src/hosts/simulated/tee/index.ts";
import type { PciDevice } from "../../src/platform/index.ts";

export interface StandOptions extends TeeMachineOptions {
  readonly bounceSlots?: number;
}

/** A guest, and the software of it and of its host. */
export class Stand {
  readonly tee: TeeMachine;
  readonly guest: Tvm;
  readonly software: TeeGuest;
  readonly files: LinkFiles;
  readonly driver: LinkDriver;
  readonly policy: AttestationPolicy;
  manager: SecurityManager | undefined;

  constructor(options: StandOptions = {}) {
    this.tee = new TeeMachine({ memoryBytes: 256 * 2 ** 20, ...options });
    this.guest = this.tee.startGuest(options.bounceSlots === undefined ? {} : { bounceSlots: options.bounceSlots });
    this.software = this.softwareOf(this.guest);
    this.files = new LinkFiles({ functions: () => this.tee.functions });
    this.driver = new LinkDriver({ firmware: this.tee.firmware });
    this.policy = {
      roots: [policyHex(this.tee.vendor.rootDigest)],
      measurements: { 1: [policyHex(firmwareDigest(this.tee.vendor.name))] },
    };
  }

  /** A guest's own kernel. */
  softwareOf(guest: Tvm): TeeGuest {
    return new TeeGuest(this.tee.guestSide(guest));
  }

  /** Until `work` is done, as fast as that. */
  run<T>(work: Promise<T>): Promise<T> {
    return this.tee.machine.clock.run(work);
  }

  /** A manager is there, and has connected and bound the function. */
  async connect(fn: SecureFunction): Promise<void> {
    this.manager ??= await this.run(this.files.core.register({ link: this.driver }));
    if (!this.files.core.context(fn.device.manager))
      await this.run(this.files.write(fn.device.manager, "tsm/connect", this.manager.name));
  }

  async bind(fn: SecureFunction, guest: Tvm = this.guest): Promise<void> {
    await this.connect(fn);
    await this.run(this.files.core.bind(fn, guest, fn.requester));
  }

  /** A device in a slot. */
  plug(slot: string, models: readonly [DeviceModel, ...DeviceModel[]], options: PlugOptions = {}): SecureDevice {
    const device = this.tee.plug(slot, models, options);
    for (const fn of device.functions) void this.files.core.added(fn);
    return device;
  }

  /** A device is pulled out, and the host's link core hears of it. */
  async unplug(device: SecureDevice): Promise<void> {
    this.tee.unplug(device);
    for (const fn of device.functions) await this.run(this.files.core.removed(fn));
  }

  /** The function in the guest: as its driver gets it, and as the guest trusts it. */
  assigned(fn: SecureFunction, guest: Tvm = this.guest, software: TeeGuest = this.software): Assigned {
    const assigned = this.tee.assigned(fn, guest);
    const device = software.addDevice(assigned);
    const pci = assigned.device;
    return { fn, pci, device };
  }

  /** An engine in a slot, connected, bound, in the guest. */
  async engine(
    slot = "0.0",
    options: PlugOptions & { memoryBytes?: number } = {},
  ): Promise<Assigned & { engine: DmaEngine }> {
    const { memoryBytes = 65_536, ...rest } = options;
    const engine = new DmaEngine({ memoryBytes });
    const device = this.plug(slot, [engine], rest);
    await this.bind(device.manager);
    return { ...this.assigned(device.manager), engine };
  }

  /** A disk in a slot, connected, bound, in the guest. */
  async disk(
    slot = "0.0",
    options: PlugOptions & { cmbBytes?: number } = {},
  ): Promise<Assigned & { controller: NvmeController }> {
    const { cmbBytes = 0, ...rest } = options;
    const controller = new NvmeController({ namespaces: [{ blocks: 16_384 }], cmbBytes });
    const device = this.plug(slot, [controller], rest);
    await this.bind(device.manager);
    return { ...this.assigned(device.manager), controller };
  }

  /** Private memory of the guest, filled with `value`. */
  buffer(length: number, value = 0): { phys: PhysAddr; bytes: Uint8Array; free: () => void } {
    const { phys, bytes, free } = this.guest.memory.allocate(length);
    bytes.fill(value);
    return { phys: PhysAddr(phys), bytes, free };
  }

  /** Everything goes: the machine is as it was. What is not. */
  async tearDown(): Promise<string[]> {
    if (this.manager) await this.run(this.files.core.unregister(this.manager));
    this.guest.destroy();
    return this.tee.leaks().filter((leak) => !leak.startsWith("timers"));
  }
}

/** Bytes alike: much faster than asking for equality of two arrays. */
export const alike = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** What a call that is refused says: its code and errno. */
export async function refusal(work: Promise<unknown> | (() => unknown)): Promise<[string, string] | "none"> {
  try {
    await (typeof work === "function" ? work() : work);
    return "none";
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    return [error.code, error.errno];
  }
}

/** A function in its guest. */
export interface Assigned {
  readonly fn: SecureFunction;
  readonly pci: PciDevice;
  readonly device: TeeDevice;
}
