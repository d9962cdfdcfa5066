/**
 * The machine of a run: guests, devices that can enter their trust, and the host's software, which connects and binds, and
 * attacks.
 */
import { MiB } from "../../base/index.ts";
import {
  type AttestationPolicy,
  LinkDriver,
  LinkFiles,
  policyHex,
  type SecurityManager,
  type TeeDevice,
  TeeGuest,
} from "../../consumers/tee/index.ts";
import type { Dma } from "../../dma/index.ts";
import { DmaEngine } from "../../hosts/simulated/index.ts";
import {
  firmwareDigest,
  type SecureDevice,
  type SecureFunction,
  TeeMachine,
  type Tvm,
} from "../../hosts/simulated/tee/index.ts";
import { encodeMeasurements } from "../../layouts/spdm/index.ts";
import type { P2pProvider } from "../../p2p/index.ts";
import type { RunOptions } from "../scenario.ts";
import type { TeePlan } from "./plan.ts";
import { watchWire } from "./secrets.ts";

/** Bytes of memory that a device has for others. */
export const DEVICE_BYTES = 8192;
const BOUNCE_SLOTS = 128;

/** A guest of a run. */
export interface Guest {
  readonly tvm: Tvm;
  readonly software: TeeGuest;
}

/** A door, and when it was opened. */
interface Door {
  readonly dma: Dma;
  readonly epoch: number;
}

/** A device in its slot. */
export interface Place {
  readonly index: number;
  readonly slot: string;
  readonly guest: Guest;
  secure: SecureDevice;
  engine: DmaEngine;
  /** A second function, which nobody bound. */
  rogue: DmaEngine;
  device: TeeDevice;
  /** Doors of all contracts so far. */
  readonly doors: Door[];
  /** Its firmware is not the one that the policy asks for. */
  isChanged: boolean;
  /** Its memory, as the guest's others may use it. */
  provider: P2pProvider;
  /** Something was done to it that the host has not mended. */
  isDisturbed: boolean;
  /** Changes of its trust so far: doors of before hold no more. */
  epoch: number;
  /** Where its memory was, and what it might do, when it was let in. */
  lockedAs: string;
  /** A start or stop that is not waited for. */
  underWay: Promise<unknown> | undefined;
}

/** All of it. */
export class TeeWorld {
  readonly tee: TeeMachine;
  readonly guests: readonly Guest[];
  readonly places: Place[] = [];
  readonly files: LinkFiles;
  readonly driver: LinkDriver;
  readonly policy: AttestationPolicy;
  /** What a device with the right firmware measures. */
  readonly goodMeasurements: Uint8Array;
  manager: SecurityManager | undefined;
  readonly #plan: TeePlan;

  constructor(plan: TeePlan, options: RunOptions) {
    this.#plan = plan;
    const { hasSwitch, guests } = plan.config;
    const slots = [{}, {}, {}];
    this.tee = new TeeMachine({
      seed: plan.seed,
      memoryBytes: 64 * MiB,
      scattered: true,
      bridges: [{ rootPorts: hasSwitch ? [{ switch: slots }] : slots }],
    });
    const { tee } = this;
    tee.wire.onSight = watchWire;
    this.guests = Array.from({ length: guests }, () => {
      const tvm = tee.startGuest({ bounceSlots: BOUNCE_SLOTS });
      return { tvm, software: new TeeGuest(tee.guestSide(tvm)) };
    });
    this.files = new LinkFiles({ functions: () => tee.functions });
    this.driver = new LinkDriver({ firmware: tee.firmware });
    const firmware = firmwareDigest(tee.vendor.name);
    this.goodMeasurements = encodeMeasurements([{ index: 1, measured: "mutableFirmware", value: firmware }]);
    this.policy = { roots: [policyHex(tee.vendor.rootDigest)], measurements: { 1: [policyHex(firmware)] } };
    options.parts?.trust?.(this);
  }

  /** The manager is there, and so are the devices. */
  async begin(): Promise<void> {
    this.manager = await this.run(this.files.core.register({ link: this.driver }));
    for (let i = 0; i < this.#plan.config.devices; i++) {
      const slot = this.#plan.config.hasSwitch ? `0.0.${i}` : `0.${i}`;
      const guest = this.guests[i % this.guests.length]!;
      const made = this.#plug(slot, guest);
      this.places.push({
        index: i,
        slot,
        guest,
        doors: [],
        isChanged: false,
        isDisturbed: false,
        epoch: 0,
        lockedAs: "",
        underWay: undefined,
        ...made,
      });
    }
  }

  /** Until `work` is done; time moves meanwhile. */
  run<T>(work: Promise<T>): Promise<T> {
    return this.tee.machine.clock.run(work);
  }

  async pass(ms: number): Promise<void> {
    const { clock } = this.tee.machine;
    await this.run(new Promise<void>((resolve) => void clock.after(ms, resolve)));
  }

  /** What must not change while a device is inside the trust. */
  configurationOf({ secure }: Place): string {
    const { bars, busMaster, decodesMemory } = secure.manager.node;
    return JSON.stringify([bars.map(({ phys }) => phys), busMaster, decodesMemory]);
  }

  /** The function that is assigned. */
  functionOf({ secure }: Place): SecureFunction {
    return secure.manager;
  }

  /** Mended if something was done to it; connected and bound, if it is not; whatever comes of it. */
  async bind(place: Place): Promise<void> {
    const fn = this.functionOf(place);
    const { core } = this.files;
    if (place.isDisturbed) {
      const manager = core.manager(fn);
      if (manager) await this.run(core.disconnect(fn, manager.name).catch(() => {}));
      place.secure.mailbox.carrier = undefined;
      await fn.pci.reset();
      fn.pci.writeConfig(0x04, 2, 6);
      place.isDisturbed = false;
    }
    if (!core.context(fn)) await this.run(core.connect(fn, this.manager!.name).catch(() => {}));
    if (core.context(fn)) await this.run(core.bind(fn, place.guest.tvm, place.index).catch(() => {}));
  }

  /** The device is gone, and the host has heard of it. */
  async pullOut(place: Place): Promise<void> {
    place.guest.tvm.peers.remove(place.provider);
    this.tee.unplug(place.secure);
    for (const fn of place.secure.functions) await this.run(this.files.core.removed(fn));
  }

  /** A new device in a slot that is empty. */
  refill(place: Place): void {
    place.guest.software.removeDevice(place.device);
    Object.assign(place, this.#plug(place.slot, place.guest), { isChanged: false, isDisturbed: false });
    place.epoch++;
  }

  #plug(slot: string, guest: Guest) {
    const engine = new DmaEngine({ memoryBytes: DEVICE_BYTES });
    const rogue = new DmaEngine();
    const { packetsPerKey } = this.#plan.config;
    const secure = this.tee.plug(slot, [engine, rogue], packetsPerKey > 0 ? { ide: { packetsPerKey } } : {});
    for (const fn of secure.functions) void this.files.core.added(fn);
    const assigned = this.tee.assigned(secure.manager, guest.tvm);
    const device = guest.software.addDevice(assigned);
    const bar = secure.manager.node.bars[0]!;
    const provider = guest.tvm.peers.add(secure.manager.node, bar);
    return { secure, engine, rogue, device, provider };
  }
}
