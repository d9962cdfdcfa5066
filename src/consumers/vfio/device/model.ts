/**
 * A device as VFIO shows it to a program: regions, interrupts, features; and the devices that cannot be kept apart from it.
 *
 * Idea: what a device *is* stands in a description; files (device-file.ts, group-file.ts) are how programs hold it.
 */
import type { UserDevice } from "../../iommufd/index.ts";
import { badState } from "../type1/errors.ts";

/** A region: part of the device that a program reads, writes or maps. */
export interface DeviceRegion {
  /** How many. */
  readonly bytes: number;
  /** 1 readable, 2 writable, 4 can be mapped, 8 has capabilities. */
  readonly flags: number;
  /** Capabilities, one after the other: each begins with its header, whose `next` is 0. */
  readonly capability?: Uint8Array;
}

/** A kind of interrupts. */
export interface DeviceInterrupts {
  /** How many. */
  readonly count: number;
  /** 1 by eventfd, 2 maskable, 4 masks itself, 8 cannot be resized. */
  readonly flags: number;
}

/** What a device is. */
export interface VfioDeviceModel {
  /** `ssss:bb:dd.f` for PCI: programs open it in its group by this name. */
  readonly name: string;
  /** What iommufd and containers attach. */
  readonly hardware: UserDevice;
  /** 1 can be reset, 2 PCI. */
  readonly flags: number;
  /** By index; undefined: there is none of this index, though others follow. */
  readonly regions: readonly (DeviceRegion | undefined)[];
  /** By index; undefined: there is none of this index. */
  readonly interrupts: readonly (DeviceInterrupts | undefined)[];
  /** Features that it has beside migration: directions of FEATURE_FLAGS by index. */
  readonly features?: ReadonlyMap<number, number>;
  /** Absent: it cannot be reset. */
  readonly reset?: () => void;
}

/** A device, and who has it open. */
export class VfioDevice {
  /** What it is. */
  readonly model: VfioDeviceModel;
  /** Devices that it cannot be kept apart from. */
  readonly group: VfioGroup;
  /** A program has it: nobody else gets it meanwhile. */
  isOpen = false;

  /** Enters the device in its group. */
  constructor(model: VfioDeviceModel, group: VfioGroup) {
    this.model = model;
    this.group = group;
    group.devices.push(this);
  }
}

/** Devices that only move together. */
export class VfioGroup {
  /** In the order in which they came. */
  readonly devices: VfioDevice[] = [];
  /** A program has it: nobody else gets it meanwhile. */
  isOpen = false;
  /** Devices that are open without the group. */
  #boundDevices = 0;

  /** @throws DmaError EBUSY while it is open, or a device is bound without it */
  take(): void {
    if (this.isOpen || this.#boundDevices > 0) throw badState("EBUSY", "the group, or a device of it, is open");
    this.isOpen = true;
  }

  /** A device is to be bound without the group. @throws DmaError EBUSY while the group is open */
  block(): void {
    if (this.isOpen) throw badState("EBUSY", "the group has the device open");
    this.#boundDevices++;
  }

  /** The end of one {@link block}. */
  unblock(): void {
    this.#boundDevices--;
  }
}
