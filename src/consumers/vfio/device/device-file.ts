/**
 * An open VFIO device: bound to an iommufd by the program, or opened through its group; then its regions, interrupts, features.
 *
 * Idea: before a device is bound it answers nothing else. Attaching goes to an address space or a table of the iommufd; a second
 * attach replaces the first, and undoes exactly itself if it cannot be told.
 * Promises: answers, errnos and what is left in the caller's memory equal Linux's; closing detaches and unbinds.
 * Not for: reading and mapping regions, delivering interrupts: that is a host's.
 * Specified by: include/uapi/linux/vfio.h; behaviour of Linux 7.2; judged by test/golden/type1.
 */
import { DmaError, ERRNO } from "../../../base/index.ts";
import { FEATURE, FEATURE_FLAGS, REQUESTS } from "../../../layouts/uapi/index.ts";
import type { OpenFile, UserProcess } from "../../../platform/index.ts";
import {
  type Argument,
  ArgumentBytes,
  type BoundDevice,
  type Hwpt,
  type Iommufd,
  IommufdFile,
  unreachable,
} from "../../iommufd/index.ts";
import { MigrationDoor, type MigrationDoorOptions } from "../migration/index.ts";
import { badCall, badState, unknownCall } from "../type1/errors.ts";
import type { VfioDevice } from "./model.ts";

/** Files of which a device cannot be bound: a descriptor that is open, and no iommufd. */
const TOKEN = 1;
const PASID = 1;
const REGION_SHIFT = 2 ** 40;
const INFO_BYTES = 24;
const HOT_RESET_INFO: number = REQUESTS.VFIO_IOMMU_GET_INFO;

/** A device and the iommufd that it is bound to. */
interface Binding {
  readonly iommufd: Iommufd;
  readonly file: IommufdFile;
  readonly bound: BoundDevice;
}

/** What a group's device hangs on. */
export interface GroupHold {
  /** One more user of the group. */
  acquire(): void;
  /** One user less. Never fails. */
  release(): void;
  /** Bound at once to this iommufd, and attached to its compatible space. */
  readonly iommufd: IommufdFile | undefined;
}

/** An open device. */
export class DeviceFile implements OpenFile {
  readonly kind = "vfio-device";
  /** What it is of. */
  readonly device: VfioDevice;
  readonly #group: GroupHold | undefined;
  readonly #migration: MigrationDoor;
  #binding: Binding | undefined;
  #holders = 0;

  /**
   * @param group through which it is opened; undefined: by its own node
   * @throws DmaError with a group what binding and attaching say
   */
  constructor(device: VfioDevice, group?: GroupHold, migration?: Omit<MigrationDoorOptions, "files">) {
    this.device = device;
    this.#group = group;
    this.#migration = new MigrationDoor({ ...migration, files: { install: () => -1, close: () => false } });
    if (!group) return;
    if (group.iommufd) this.#bindThroughGroup(group.iommufd);
    device.isOpen = true;
    group.acquire();
  }

  /** What it is attached to. */
  get attachedTo(): Hwpt | undefined {
    return this.#binding?.bound.hwptOf();
  }

  /** One request: 0 or what it says; a negative errno. */
  ioctl(number: number, argument: Argument, caller: UserProcess): number {
    try {
      return this.#call(number >>> 0, argument, caller);
    } catch (error) {
      if (error instanceof DmaError) return -ERRNO[error.errno];
      throw error;
    }
  }

  #call(number: number, argument: Argument, caller: UserProcess): number {
    const at = new ArgumentBytes(argument, caller);
    if (number === REQUESTS.VFIO_DEVICE_BIND_IOMMUFD) this.#bind(at);
    else if (!this.#group && !this.#binding) throw badCall("the device is not bound");
    else if (!this.#group && number === REQUESTS.VFIO_DEVICE_ATTACH_IOMMUFD_PT) this.#attach(at);
    else if (!this.#group && number === REQUESTS.VFIO_DEVICE_DETACH_IOMMUFD_PT) this.#detach(at);
    else if (number === REQUESTS.VFIO_DEVICE_FEATURE) return this.#feature(argument, at);
    else if (number === REQUESTS.VFIO_DEVICE_GET_INFO) this.#info(at);
    else if (number === REQUESTS.VFIO_DEVICE_GET_REGION_INFO) this.#regionInfo(at);
    else if (number === REQUESTS.VFIO_DEVICE_GET_IRQ_INFO) this.#interruptInfo(at);
    else if (number === REQUESTS.VFIO_DEVICE_RESET) this.#reset();
    else if (number === REQUESTS.VFIO_DEVICE_SET_IRQS) throw badCall("interrupts are delivered by a host");
    else if (number === HOT_RESET_INFO) throw badState("ENODEV", "the device cannot be reset with its slot");
    else throw unknownCall(number);
    return 0;
  }

  #bind(at: ArgumentBytes): void {
    const head = new DataView(at.read(16).buffer);
    const [argsz, flags, fd] = [head.getUint32(0, true), head.getUint32(4, true), head.getInt32(8, true)];
    if (argsz < 16 || (flags & ~TOKEN) !== 0 || fd < 0) throw badCall(`flags ${flags}, descriptor ${fd}`);
    if (this.#group) throw badCall("a device that its group opened is bound already");
    const { group } = this.device;
    group.block();
    try {
      if (this.#binding) throw badCall("the device is bound");
      if ((flags & TOKEN) !== 0) checkToken(at, argsz);
      const file = iommufdOf(at.process, fd);
      if (this.device.isOpen) throw badCall("the device is open elsewhere");
      this.#binding = this.#bindTo(file);
      this.device.isOpen = true;
      const id = new Uint8Array(4);
      new DataView(id.buffer).setUint32(0, this.#binding.bound.id, true);
      at.write(id, 12);
    } catch (error) {
      if (!this.#binding || !this.device.isOpen) group.unblock();
      throw error;
    }
  }

  #bindTo(file: IommufdFile): Binding {
    const { iommufd } = file;
    const bound = iommufd.bind(this.device.model.hardware);
    file.acquire();
    return { iommufd, file, bound };
  }

  #bindThroughGroup(file: IommufdFile): void {
    const binding = this.#bindTo(file);
    try {
      binding.iommufd.attach(binding.bound, binding.iommufd.needCompatIoas().id);
      this.#binding = binding;
    } catch (error) {
      binding.iommufd.unbind(binding.bound);
      file.release();
      throw error;
    }
  }

  #attach(at: ArgumentBytes): void {
    const { iommufd, bound } = this.#binding!;
    const [, flags, to, pasid] = readAttach(at, 12, 16);
    const before = bound.hwptOf(pasid);
    const hwpt = before ? iommufd.replace(bound, to, pasid) : iommufd.attach(bound, to, pasid);
    const answer = new Uint8Array(4);
    new DataView(answer.buffer).setUint32(0, hwpt.id, true);
    try {
      at.write(answer, 8);
    } catch (error) {
      if (before && flags !== undefined) iommufd.replace(bound, before.id, pasid);
      else iommufd.detach(bound, pasid);
      throw error;
    }
  }

  #detach(at: ArgumentBytes): void {
    const { iommufd, bound } = this.#binding!;
    const [argsz, flags] = readHead(at, 8);
    if (argsz < 8 || (flags & ~PASID) !== 0) throw badCall(`flags ${flags}`);
    if (flags === PASID && argsz < 12) throw badCall("no PASID is given");
    const pasid = flags === PASID ? new DataView(at.read(4, 8).buffer).getUint32(0, true) : 0;
    iommufd.detach(bound, pasid);
  }

  /** Features of its own, and those of migration, whose checks are the same. */
  #feature(argument: Argument, at: ArgumentBytes): number {
    const header = new DataView(at.read(FEATURE.bytes).buffer);
    const [argsz, flags] = [header.getUint32(0, true), header.getUint32(4, true)];
    const directions = this.device.model.features?.get(flags & FEATURE_FLAGS.INDEX_MASK);
    const { GET, SET, PROBE, INDEX_MASK } = FEATURE_FLAGS;
    const isWellFormed =
      argsz >= FEATURE.bytes &&
      (flags & ~(INDEX_MASK | GET | SET | PROBE)) === 0 &&
      ((flags & PROBE) !== 0 || (flags & (GET | SET)) !== (GET | SET));
    if (directions !== undefined && isWellFormed) {
      if ((flags & (GET | SET) & ~directions) !== 0) throw badCall("the feature does not go this direction");
      if ((flags & PROBE) !== 0) return 0;
      throw unknownCall(flags & INDEX_MASK);
    }
    const memory = typeof argument === "bigint" ? at.process.memory : overBytes(argument);
    const address = typeof argument === "bigint" ? argument : 0n;
    return this.#migration.ioctl(REQUESTS.VFIO_DEVICE_FEATURE, address, memory as never);
  }

  #info(at: ArgumentBytes): void {
    const [argsz] = readHead(at, 16);
    if (argsz < 16) throw badCall(`a structure of ${argsz} bytes`);
    const { flags, regions, interrupts } = this.device.model;
    const bytes = new Uint8Array(INFO_BYTES);
    const view = new DataView(bytes.buffer);
    [argsz, flags, regions.length, interrupts.length].forEach((word, i) => {
      view.setUint32(i * 4, word, true);
    });
    at.write(bytes.subarray(0, Math.min(argsz, INFO_BYTES)));
  }

  #regionInfo(at: ArgumentBytes): void {
    const asked = new DataView(at.read(32).buffer);
    const [argsz, index] = [asked.getUint32(0, true), asked.getUint32(8, true)];
    const region = this.device.model.regions[index];
    if (argsz < 32 || !region) throw badCall(`region ${index}, ${argsz} bytes`);
    const { capability } = region;
    const needed = 32 + (capability?.length ?? 0);
    const bytes = new Uint8Array(32);
    const view = new DataView(bytes.buffer);
    const fits = argsz >= needed;
    [fits ? argsz : needed, region.flags, index, capability && fits ? 32 : 0].forEach((word, i) => {
      view.setUint32(i * 4, word, true);
    });
    view.setBigUint64(16, BigInt(region.bytes), true);
    view.setBigUint64(24, BigInt(index) * BigInt(REGION_SHIFT), true);
    at.write(bytes);
    if (capability && fits) at.write(capability, 32);
  }

  #interruptInfo(at: ArgumentBytes): void {
    const asked = new DataView(at.read(16).buffer);
    const [argsz, index] = [asked.getUint32(0, true), asked.getUint32(8, true)];
    const interrupts = this.device.model.interrupts[index];
    if (argsz < 16 || !interrupts) throw badCall(`interrupts ${index}, ${argsz} bytes`);
    asked.setUint32(4, interrupts.flags, true);
    asked.setUint32(12, interrupts.count, true);
    at.write(new Uint8Array(asked.buffer));
  }

  #reset(): void {
    if (!this.device.model.reset) throw badCall("the device cannot be reset");
    this.device.model.reset();
  }

  acquire(): void {
    this.#holders++;
  }

  /** With the last holder the device is detached and unbound. */
  release(): void {
    if (--this.#holders > 0) return;
    const binding = this.#binding;
    this.#binding = undefined;
    if (binding) {
      binding.iommufd.unbind(binding.bound);
      binding.file.release();
    }
    if (this.#group) {
      this.device.isOpen = false;
      this.#group.release();
    } else if (binding) {
      this.device.isOpen = false;
      this.device.group.unblock();
    }
  }
}

function readHead(at: ArgumentBytes, length: number): [argsz: number, flags: number] {
  const view = new DataView(at.read(length).buffer);
  return [view.getUint32(0, true), view.getUint32(4, true)];
}

/** The fields of an attach. @throws DmaError EINVAL */
function readAttach(
  at: ArgumentBytes,
  least: number,
  withPasid: number,
): [argsz: number, flags: number, to: number, pasid: number] {
  const view = new DataView(at.read(least).buffer);
  const [argsz, flags] = [view.getUint32(0, true), view.getUint32(4, true)];
  if (argsz < least || (flags & ~PASID) !== 0) throw badCall(`flags ${flags}, ${argsz} bytes`);
  if (flags !== PASID) return [argsz, flags, view.getUint32(8, true), 0];
  if (argsz < withPasid) throw badCall("no PASID is given");
  return [argsz, flags, view.getUint32(8, true), new DataView(at.read(4, least).buffer).getUint32(0, true)];
}

/** A secret of a virtual function: none is needed here, and it must be readable. */
function checkToken(at: ArgumentBytes, argsz: number): void {
  const pointer = argsz >= 24 ? new DataView(at.read(8, 16).buffer).getBigUint64(0, true) : 0n;
  if (pointer === 0n) throw unreachable(0, 16);
}

/** @throws DmaError EBADF, EBADFD */
function iommufdOf(process: UserProcess, fd: number): IommufdFile {
  const descriptor = process.descriptors.get(fd);
  if (!descriptor) throw badState("EBADF", `descriptor ${fd} is not open`);
  if (!(descriptor.file instanceof IommufdFile)) throw badState("EBADFD", `descriptor ${fd} is no iommufd`);
  return descriptor.file;
}

/** Bytes as memory that begins at 0. */
const overBytes = (
  bytes: Uint8Array,
): { read(at: number, into: Uint8Array): number; write(at: number, from: Uint8Array): number } => ({
  read(at, into) {
    const part = bytes.subarray(at, at + into.length);
    into.set(part);
    return part.length;
  },
  write(at, from) {
    const part = from.subarray(0, Math.max(0, bytes.length - at));
    bytes.set(part, at);
    return part.length;
  },
});
