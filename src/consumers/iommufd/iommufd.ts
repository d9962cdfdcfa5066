/**
 * One iommufd: objects by id, and everything that programs and drivers ask of them. The typed door.
 *
 * Idea: each call looks its ids up, does its work on the objects, and gives out an id only when all has been done. The
 * kernel's own interface ({@link IommufdFile}) is a second door to the same calls. Here stand virtual IOMMUs; memory is in
 * iommufd-memory.ts, devices and tables in iommufd-devices.ts.
 * Promises: a failed call leaves no object and no id behind. When the last holder lets go, everything is unmapped and unpinned.
 * Specified by: behaviour of Linux 7.2 iommufd; judged by test/golden/iommufd.
 */
import { Access } from "./access.ts";
import { alreadyThere, badArgument, driverRefused, notSupported, wraps } from "./errors.ts";
import type { UserDevice, VendorData } from "./hardware.ts";
import { IommufdDevices } from "./iommufd-devices.ts";
import { LAST_IOVA } from "./ranges.ts";
import { EventQueue, HardwareQueue, Vdevice, Viommu } from "./viommu.ts";

/** Virtual IOMMU types from 1. */
const MOST_EVENTS = 2 ** 19;

/** An iommufd as the kernel has it behind a descriptor. */
export class Iommufd extends IommufdDevices {
  /** @throws DmaError EOPNOTSUPP, ENOENT, EINVAL; what the driver says */
  createViommu(type: number, deviceId: number, hwptId: number, data: VendorData | undefined): Viommu {
    const device = this.device(deviceId);
    if (!device.hardware.openViommu || !device.hardware.viommuTypes?.includes(type))
      throw notSupported(`virtual IOMMUs of type ${type}`);
    const parent = this.pagingHwpt(hwptId);
    if (!parent.isNestParent) throw badArgument("the table was not made as a parent", { hwptId });
    const devices = (virtualId: bigint): UserDevice | undefined => viommu?.devices.get(virtualId)?.device.hardware;
    let viommu: Viommu | undefined;
    viommu = new Viommu(parent, device.hardware.openViommu(type, parent.table, data, devices));
    return this.objects.add(viommu);
  }

  /** @throws DmaError ENOENT; EEXIST if the device or the number is taken; EINVAL for a device behind another IOMMU */
  createVdevice(viommuId: number, deviceId: number, virtualId: bigint): Vdevice {
    const viommu = this.lookUp("viommu", viommuId) as Viommu;
    const device = this.device(deviceId);
    if (device.vdevice) throw alreadyThere(`device ${deviceId} is in a virtual IOMMU already`);
    if (viommu.devices.has(virtualId)) throw alreadyThere(`the number ${virtualId} is taken`);
    return this.objects.add(new Vdevice(viommu, device, virtualId));
  }

  /** @throws DmaError ENOENT, EINVAL, EOPNOTSUPP, EEXIST */
  createEventQueue(viommuId: number, type: number, depth: number): EventQueue {
    if (type === 0) throw notSupported("events of type 0");
    if (depth < 1 || depth > MOST_EVENTS)
      throw badArgument(`a queue of ${depth} events: 1 to ${MOST_EVENTS} are needed`);
    const viommu = this.lookUp("viommu", viommuId) as Viommu;
    if (!viommu.driver.eventTypes.includes(type)) throw notSupported(`events of type ${type}`);
    if (viommu.queues.has(type)) throw alreadyThere(`events of type ${type} have a queue`);
    return this.objects.add(new EventQueue(viommu, type, depth, this));
  }

  /** @throws DmaError ENOENT, EINVAL, EOVERFLOW, EFAULT if the memory is not contiguous; what the driver says */
  createHardwareQueue(viommuId: number, type: number, index: number, iova: bigint, length: bigint): HardwareQueue {
    if (length === 0n) throw badArgument("length 0");
    if (iova + length - 1n > LAST_IOVA) throw wraps(iova, length);
    const viommu = this.lookUp("viommu", viommuId) as Viommu;
    const { queues } = viommu.driver;
    if (!queues || queues.type !== type) throw notSupported(`hardware queues of type ${type}`);
    const queue = this.objects.reserve(new HardwareQueue());
    const access = this.objects.add(new Access({ pins: true }));
    const offset = iova % 4096n;
    const first = iova - offset;
    const whole = ((offset + length + 4095n) / 4096n) * 4096n;
    let isPinned = false;
    const undo = (): void => {
      if (isPinned) access.unpin(first, whole, true);
      this.objects.remove(access);
    };
    try {
      access.use(viommu.parent.ioas);
      const pages = access.pin(first, whole, false, true);
      isPinned = true;
      if (pages.some((page, i) => page !== pages[0]! + i))
        throw driverRefused("EFAULT", "memory of a hardware queue must be physically contiguous");
      const opened = queues.open(index, pages[0]! * 4096 + Number(offset), length);
      const needed = opened.needs === undefined ? undefined : this.#queueOf(viommu, opened.needs);
      if (needed) needed.users++;
      viommu.users++;
      this.#hardwareQueues.set(queue, { viommu, index });
      queue.opened(() => {
        opened.close();
        if (needed) needed.users--;
        viommu.users--;
        this.#hardwareQueues.delete(queue);
        undo();
      });
      this.objects.publish(queue);
      return queue;
    } catch (error) {
      undo();
      this.objects.publish(queue);
      this.objects.remove(queue);
      throw error;
    }
  }

  readonly #hardwareQueues = new Map<HardwareQueue, { readonly viommu: Viommu; readonly index: number }>();

  #queueOf(viommu: Viommu, index: number): HardwareQueue | undefined {
    for (const [queue, at] of this.#hardwareQueues) if (at.viommu === viommu && at.index === index) return queue;
    return undefined;
  }
}
