/**
 * An open VFIO group: in a container or an iommufd, and its devices opened by name.
 *
 * Promises: a group is open once; it stays in its container while a device of it is open. In an iommufd it may leave
 * at any time, and its open devices stay as they are.
 * Specified by: behaviour of Linux 7.2 (drivers/vfio/group.c); judged by test/golden/type1.
 */
import { DmaError, ERRNO } from "../../../base/index.ts";
import { REQUESTS } from "../../../layouts/uapi/index.ts";
import type { OpenFile, UserProcess } from "../../../platform/index.ts";
import { type Argument, ArgumentBytes, claimGroup, IommufdFile, releaseGroup } from "../../iommufd/index.ts";
import { badCall, badState, unknownCall } from "../type1/errors.ts";
import { ContainerFile, type ContainerGroup } from "../type1/index.ts";
import { DeviceFile } from "./device-file.ts";
import type { VfioGroup } from "./model.ts";

const STATUS = { viable: 1, containerSet: 2 } as const;
const MOST_NAME_BYTES = 256;

/** An open group. */
export class GroupFile implements OpenFile, ContainerGroup {
  readonly kind = "vfio-group";
  /** What it is of. */
  readonly group: VfioGroup;
  #container: ContainerFile | undefined;
  #iommufd: IommufdFile | undefined;
  #holders = 0;
  /** Devices of it that are open. */
  #openDevices = 0;

  /** @throws DmaError EBUSY if it, or a device of it, is open */
  constructor(group: VfioGroup) {
    group.take();
    this.group = group;
  }

  get devices(): ContainerGroup["devices"] {
    return this.group.devices.map(({ model }) => model.hardware);
  }

  /** The iommufd that it was put into; undefined: none. */
  get iommufd(): IommufdFile | undefined {
    return this.#iommufd;
  }

  /** One request: 0 or what it says (a descriptor); a negative errno. */
  ioctl(number: number, argument: Argument, caller: UserProcess): number {
    try {
      const at = new ArgumentBytes(argument, caller);
      if (number === REQUESTS.VFIO_GROUP_GET_STATUS) this.#status(at);
      else if (number === REQUESTS.VFIO_GROUP_SET_CONTAINER) this.#setContainer(at);
      else if (number === REQUESTS.VFIO_GROUP_UNSET_CONTAINER) this.#unsetContainer();
      else if (number === REQUESTS.VFIO_GROUP_GET_DEVICE_FD) return this.#getDevice(at);
      else throw unknownCall(number);
      return 0;
    } catch (error) {
      if (error instanceof DmaError) return -ERRNO[error.errno];
      throw error;
    }
  }

  #status(at: ArgumentBytes): void {
    const view = new DataView(at.read(8).buffer);
    if (view.getUint32(0, true) < 8) throw badCall("a structure of 8 bytes is needed");
    const isSet = this.#container !== undefined || this.#iommufd !== undefined;
    view.setUint32(4, STATUS.viable | (isSet ? STATUS.containerSet : 0), true);
    at.write(new Uint8Array(view.buffer));
  }

  #setContainer(at: ArgumentBytes): void {
    const fd = new DataView(at.read(4).buffer).getInt32(0, true);
    if (fd < 0) throw badState("EBADF", `descriptor ${fd}`);
    const file = at.process.descriptors.get(fd)?.file;
    if (!file) throw badState("EBADF", `descriptor ${fd} is not open`);
    if (this.#container || this.#iommufd) throw badState("EINVAL", "the group is in a container");
    if (file instanceof ContainerFile) this.#joinContainer(file);
    else if (file instanceof IommufdFile) this.#joinIommufd(file);
    else throw badState("EINVAL", `descriptor ${fd} is no container`);
  }

  #joinContainer(file: ContainerFile): void {
    const claimed: (typeof this.devices)[number][] = [];
    try {
      for (const device of this.devices) {
        if (!claimGroup(device.group, this)) throw badState("EBUSY", `DMA of ${device.name} is in other hands`);
        claimed.push(device);
      }
      file.join(this);
    } catch (error) {
      for (const { group } of claimed) releaseGroup(group);
      throw error;
    }
    this.#container = file;
  }

  #joinIommufd(file: IommufdFile): void {
    const { iommufd } = file;
    iommufd.compatIoas ??= iommufd.createIoas();
    file.acquire();
    this.#iommufd = file;
  }

  #unsetContainer(): void {
    if (this.#iommufd) {
      this.#iommufd.release();
      this.#iommufd = undefined;
      return;
    }
    if (!this.#container) throw badState("EINVAL", "the group is in no container");
    if (this.#openDevices > 0) throw badState("EBUSY", "a device of the group is open");
    this.#leaveContainer();
  }

  #leaveContainer(): void {
    this.#container?.leave(this);
    this.#container = undefined;
    for (const { group } of this.devices) releaseGroup(group);
  }

  /** A descriptor of the device. */
  #getDevice(at: ArgumentBytes): number {
    const name = readName(at);
    const device = this.group.devices.find(({ model }) => model.name === name);
    if (!device) throw badState("ENODEV", `the group has no device ${JSON.stringify(name)}`);
    if (!this.#iommufd && !this.#container?.type1) throw badState("EINVAL", "the group is in no container with a type");
    const hold = {
      iommufd: this.#iommufd,
      acquire: () => {
        this.#openDevices++;
        this.acquire();
      },
      release: () => {
        this.#openDevices--;
        this.release();
      },
    };
    return at.process.descriptors.install(new DeviceFile(device, hold));
  }

  acquire(): void {
    this.#holders++;
  }

  /** With the last holder it leaves its container, and can be opened again. */
  release(): void {
    if (--this.#holders > 0) return;
    if (this.#container) this.#leaveContainer();
    this.#iommufd?.release();
    this.#iommufd = undefined;
    this.group.isOpen = false;
  }
}

/** A name that ends with a zero byte. @throws DmaError EFAULT, EINVAL */
function readName(at: ArgumentBytes): string {
  let name = "";
  for (let i = 0; i < MOST_NAME_BYTES; i++) {
    const byte = at.read(1, i)[0]!;
    if (byte === 0) return name;
    name += String.fromCharCode(byte);
  }
  throw badCall("the name is too long");
}
