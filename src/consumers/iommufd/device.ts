/**
 * Devices in an iommufd: attached to tables, alone or with their group, with and without PASID.
 *
 * Idea: devices of a group share each table that they have without PASID, since hardware cannot tell them apart. What a
 * device cannot translate is reserved in the space for as long as it is attached.
 * Promises: a refused attach or replace leaves the old translation, byte for byte.
 * Specified by: behaviour of Linux 7.2 (iommufd_device_attach, replace, detach); judged by test/golden/iommufd.
 */
import { badAttach } from "./errors.ts";
import type { IsolationGroup, UserDevice } from "./hardware.ts";
import type { Hwpt } from "./hwpt.ts";
import type { Ioas } from "./ioas.ts";
import type { IommufdObject } from "./objects.ts";
import type { Vdevice } from "./viommu.ts";

/** What a PASID of a group is attached to, and by which devices. */
interface Attachment {
  hwpt: Hwpt;
  readonly devices: Set<BoundDevice>;
}

/** Devices of one isolation group that are bound to one iommufd. */
export class BoundGroup {
  readonly group: IsolationGroup;
  readonly attachments: Map<number, Attachment> = new Map();
  devices = 0;

  constructor(group: IsolationGroup) {
    this.group = group;
  }
}

/** A device that an iommufd has in hand. */
export class BoundDevice implements IommufdObject {
  readonly kind = "device";
  id = 0;
  users = 1; // whoever bound it
  /** The device, and the IOMMU before it. */
  readonly hardware: UserDevice;
  /** Devices that it cannot be kept apart from, of this iommufd. */
  readonly group: BoundGroup;
  /** What it is in a guest's IOMMU; undefined: it is in none. */
  vdevice: Vdevice | undefined;
  readonly #onEnd: () => void;

  /** Made when an iommufd binds a device; `onEnd` is called once, when it is unbound. */
  constructor(hardware: UserDevice, group: BoundGroup, onEnd: () => void) {
    this.hardware = hardware;
    this.group = group;
    this.#onEnd = onEnd;
    group.devices++;
  }

  /** What it is attached to with `pasid`; undefined: nothing. */
  hwptOf(pasid = 0): Hwpt | undefined {
    const attachment = this.group.attachments.get(pasid);
    return attachment?.devices.has(this) ? attachment.hwpt : undefined;
  }

  /**
   * Attaches it. @throws DmaError EINVAL if table, group and device do not go together; EBUSY if it is attached already;
   * EADDRINUSE if areas lie where the device cannot translate; what hardware says; nothing has changed then
   */
  attach(hwpt: Hwpt, pasid: number): void {
    const { attachments } = this.group;
    const attachment = attachments.get(pasid);
    if (attachment?.devices.has(this)) throw badAttach("EBUSY", `PASID ${pasid} of ${this.hardware.name} is attached`);
    if (attachment && attachment.hwpt !== hwpt)
      throw badAttach("EINVAL", `the group of ${this.hardware.name} is attached to another table`);
    const { ioas } = hwpt.paging;
    if (pasid === 0) ioas.reserveFor(this, this.hardware.reserved);
    try {
      if (!attachment) this.#switchTo(hwpt, pasid);
    } catch (error) {
      if (pasid === 0) ioas.reserved.removeOf(this);
      throw error;
    }
    if (attachment) attachment.devices.add(this);
    else attachments.set(pasid, { hwpt, devices: new Set([this]) });
    hwpt.users++;
  }

  /**
   * Attaches the whole group to another table, in place of the one it has.
   *
   * @returns the old table, which has lost these users; undefined: it is the same
   * @throws DmaError EINVAL if it is not attached; as {@link attach}; the old table stays then
   */
  replace(hwpt: Hwpt, pasid: number): Hwpt | undefined {
    const attachment = this.group.attachments.get(pasid);
    if (!attachment?.devices.has(this))
      throw badAttach("EINVAL", `PASID ${pasid} of ${this.hardware.name} is not attached`);
    const old = attachment.hwpt;
    if (old === hwpt) return undefined;
    const changesSpace = pasid === 0 && hwpt.paging.ioas !== old.paging.ioas;
    if (changesSpace) reserveForAll(hwpt.paging.ioas, attachment.devices);
    try {
      this.#switchTo(hwpt, pasid);
    } catch (error) {
      if (changesSpace) releaseAll(hwpt.paging.ioas, attachment.devices);
      throw error;
    }
    if (changesSpace) releaseAll(old.paging.ioas, attachment.devices);
    attachment.hwpt = hwpt;
    hwpt.users += attachment.devices.size;
    old.users -= attachment.devices.size;
    for (const device of attachment.devices) old.faults?.drop(device, pasid);
    return old;
  }

  #switchTo(hwpt: Hwpt, pasid: number): void {
    this.#checkPasid(hwpt, pasid);
    const viommu = hwpt.kind === "nested" ? hwpt.viommu?.bondOf(this) : undefined;
    this.hardware.attach(pasid, hwpt.table, viommu);
  }

  #checkPasid(hwpt: Hwpt, pasid: number): void {
    const { attachments } = this.group;
    const { name, pasidBits } = this.hardware;
    if (pasid === 0) {
      const hasPasids = [...attachments.keys()].some((other) => other !== 0);
      if (!hwpt.takesPasids && hasPasids)
        throw badAttach("EINVAL", `PASIDs of ${name} are attached, and the table does not stand beside them`);
      return;
    }
    const own = attachments.get(0);
    if ((own && !own.hwpt.takesPasids) || !hwpt.takesPasids)
      throw badAttach("EINVAL", `both the table of ${name} and that of PASID ${pasid} must be made for PASIDs`);
    if (pasid >= 2 ** pasidBits) throw badAttach("EINVAL", `${name} sends PASIDs of ${pasidBits} bits`);
  }

  /** Detaches it. The table, which has lost a user; undefined: it had none. Never fails. */
  detach(pasid: number): Hwpt | undefined {
    const attachment = this.group.attachments.get(pasid);
    if (!attachment?.devices.delete(this)) return undefined;
    const { hwpt } = attachment;
    if (attachment.devices.size === 0) {
      this.group.attachments.delete(pasid);
      this.hardware.detach(pasid);
    }
    if (pasid === 0) hwpt.paging.ioas.reserved.removeOf(this);
    hwpt.faults?.drop(this, pasid);
    hwpt.users--;
    return hwpt;
  }

  end(): void {
    this.group.devices--;
    this.#onEnd();
  }
}

function reserveForAll(ioas: Ioas, devices: Iterable<BoundDevice>): void {
  const done: BoundDevice[] = [];
  try {
    for (const device of devices) {
      ioas.reserveFor(device, device.hardware.reserved);
      done.push(device);
    }
  } catch (error) {
    releaseAll(ioas, done);
    throw error;
  }
}

function releaseAll(ioas: Ioas, devices: Iterable<BoundDevice>): void {
  for (const device of devices) ioas.reserved.removeOf(device);
}
