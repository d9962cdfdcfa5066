/**
 * One iommufd: objects by id, and everything that programs and drivers ask of them. The typed door.
 *
 * Idea: each call looks its ids up, does its work on the objects, and gives out an id only when all has been done. The
 * kernel's own interface ({@link IommufdFile}) is a second door to the same calls.
 * Promises: a failed call leaves no object and no id behind. When the last holder lets go, everything is unmapped and unpinned.
 * Specified by: behaviour of Linux 7.2 iommufd; judged by test/golden/iommufd.
 */

import { HWPT_FLAGS } from "../../layouts/uapi/index.ts";
import type { OpenFile, UserProcess } from "../../platform/index.ts";
import { isMemoryFile } from "../../platform/index.ts";
import { Access, type AccessOptions } from "./access.ts";
import { type AccountMode, type ChargedPages, Payer } from "./account.ts";
import { BoundDevice, BoundGroup } from "./device.ts";
import {
  alreadyThere,
  badArgument,
  badAttach,
  badFile,
  driverRefused,
  noCompatSpace,
  noObject,
  notPrivileged,
  notSupported,
  wraps,
} from "./errors.ts";
import { FaultQueue } from "./fault-queue.ts";
import {
  claimGroup,
  type InvalidationTarget,
  type IsolationGroup,
  type PageFault,
  type RangeBuffer,
  releaseGroup,
  type UserDevice,
  type VendorData,
} from "./hardware.ts";
import { type Hwpt, NestedHwpt, PagingHwpt } from "./hwpt.ts";
import { Ioas, type IoasRules } from "./ioas.ts";
import { type FailurePoint, MappedMemory, type MemorySource } from "./memory.ts";
import { type IommufdObject, type ObjectKind, ObjectTable } from "./objects.ts";
import { LAST_IOVA } from "./ranges.ts";
import { EventQueue, HardwareQueue, Vdevice, Viommu } from "./viommu.ts";

/** How an iommufd is made. */
export interface IommufdOptions {
  /** Whose counter pays for pins: `user` unless said. */
  readonly accountMode?: Exclude<AccountMode, "none">;
  /** Beyond Linux: pages are charged once to each user, over all that share this. */
  readonly chargedPages?: ChargedPages;
  /** Beyond Linux, by name. */
  readonly rules?: IoasRules;
  /** Devices whose interrupts are not isolated are bound nevertheless. */
  readonly allowUnsafeInterrupts?: boolean;
  /** Pages that one call pins at most: 8192 unless said. */
  readonly pinBatchPages?: number;
  /** For tests. */
  readonly failurePoint?: FailurePoint;
}

/** What to map: where it is, and what devices may do. Addresses are bigints, since they may be any 64 bits. */
export interface MapRequest {
  readonly length: bigint;
  /** Chosen, unless said. */
  readonly iova?: bigint | undefined;
  /** Devices may read; true unless said. */
  readonly read?: boolean;
  /** Devices may write; true unless said. */
  readonly write?: boolean;
}

/** What a table is to be. */
export interface HwptRequest {
  readonly device: number;
  /** An address space, a nesting parent or a virtual IOMMU. */
  readonly parent: number;
  /** Bits of HWPT_FLAGS. */
  readonly flags?: number;
  readonly data?: VendorData | undefined;
  /** Of a fault queue; meant only with its flag. */
  readonly faultQueue?: number;
}

/** Virtual IOMMU types from 1. */
const MOST_EVENTS = 2 ** 19;

/** An iommufd as the kernel has it behind a descriptor. */
export class Iommufd implements OpenFile {
  readonly kind = "iommufd";
  readonly objects: ObjectTable = new ObjectTable();
  readonly rules: IoasRules;
  accountMode: Exclude<AccountMode, "none">;
  /** The space of calls that are compatible with VFIO containers. */
  compatIoas: Ioas | undefined;
  readonly #options: IommufdOptions;
  readonly #groups = new Map<IsolationGroup, BoundGroup>();
  #holders = 0;

  constructor(options: IommufdOptions = {}) {
    this.#options = options;
    this.accountMode = options.accountMode ?? "user";
    this.rules = options.rules ?? {};
  }

  acquire(): void {
    this.#holders++;
  }

  /** With the last holder everything ends. */
  release(): void {
    this.#holders--;
    if (this.#holders > 0) return;
    this.objects.clear();
    this.compatIoas = undefined;
  }

  /** The object of an id. @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT) */
  #lookUp(kind: ObjectKind, id: number): IommufdObject {
    this.#options.failurePoint?.("lookup");
    return this.objects.of(kind, id);
  }

  /** @throws DmaError EPERM without the privilege; EBUSY once there are objects */
  setAccountMode(mode: Exclude<AccountMode, "none">, process: UserProcess): void {
    if (!process.has("SYS_RESOURCE")) throw notPrivileged("changing who is charged needs CAP_SYS_RESOURCE");
    if (this.objects.size > 0) throw alreadyInUse();
    this.accountMode = mode;
  }

  createIoas(): Ioas {
    return this.objects.add(new Ioas(this.rules));
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT) */
  ioas(id: number): Ioas {
    return this.#lookUp("ioas", id) as Ioas;
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT), ERR_DMA_IOMMUFD_BUSY (EBUSY) */
  destroy(id: number): void {
    const object = this.objects.get(id);
    this.objects.destroy(id);
    if (object && object === this.compatIoas) this.compatIoas = undefined;
  }

  /** Maps memory of a process. Where. @throws DmaError as {@link Ioas.mapParts} */
  map(ioas: Ioas, process: UserProcess, address: bigint, request: MapRequest): bigint {
    mustAllowSomething(request);
    return this.mapAnyhow(ioas, process, address, request);
  }

  /** The same, and it may forbid devices everything: tables refuse that, but without one it holds its addresses. */
  mapAnyhow(ioas: Ioas, process: UserProcess, address: bigint, request: MapRequest): bigint {
    if (address + request.length > LAST_IOVA) throw wraps(address, request.length);
    return this.#mapSource(ioas, process, { kind: "user", address }, request);
  }

  /** Maps a file of memory, or a DMA buffer. Where. @throws DmaError EINVAL, ENODEV, EOPNOTSUPP; as {@link Ioas.mapParts} */
  mapFile(ioas: Ioas, process: UserProcess, file: OpenFile, start: bigint, request: MapRequest): bigint {
    mustAllowSomething(request);
    if (start + request.length - 1n > LAST_IOVA) throw wraps(start, request.length);
    const source = this.#sourceOf(file, start, request);
    return this.#mapSource(ioas, process, source, request);
  }

  #sourceOf(file: OpenFile, start: bigint, { length, write = true }: MapRequest): MemorySource {
    if (length === 0n) throw badArgument("length 0");
    if (isRangeBuffer(file)) {
      if (!file.givesRanges) throw badFile("EOPNOTSUPP", "this DMA buffer does not say where its memory is");
      if (start + length > BigInt(file.length)) throw badFile("EINVAL", "beyond the end of the DMA buffer");
      if (!file.range) throw badFile("ENODEV", "the DMA buffer was taken back");
      return { kind: "buffer", buffer: file, start };
    }
    const memory = isMemoryFile(file) ? file : undefined;
    if (this.rules.filesAreChecked) {
      if (!memory) throw badFile("EINVAL", "this kind of file cannot be mapped");
      if (write && (memory.seals.has("write") || memory.seals.has("future-write")))
        throw badFile("EPERM", "the file is sealed against writing");
    }
    return { kind: "file", file: memory, start };
  }

  #mapSource(ioas: Ioas, process: UserProcess, source: MemorySource, request: MapRequest): bigint {
    const { length, iova, read = true, write = true } = request;
    if (length === 0n || length > LAST_IOVA - 4096n) throw badArgument(`length ${length}`, { length });
    const memory = new MappedMemory(source, length, write, new Payer(process, this.accountMode), {
      once: this.#options.chargedPages,
      pinBatchPages: this.#options.pinBatchPages,
      failurePoint: this.#options.failurePoint,
    });
    memory.acquire();
    try {
      const part = { memory, startByte: BigInt(memory.startOffset), length };
      return ioas.mapParts([part], iova, { read, write, mmio: source.kind === "buffer" });
    } finally {
      memory.release();
    }
  }

  /** Maps what `source` reaches at `sourceIova` in another space, or elsewhere in the same; pages are shared, and charged once. */
  copy(source: Ioas, sourceIova: bigint, to: Ioas, request: MapRequest): bigint {
    mustAllowSomething(request);
    const parts = source.partsAt(sourceIova, request.length);
    const { read = true, write = true } = request;
    for (const { memory } of parts) memory.acquire();
    try {
      const mmio = parts[0]!.memory.source.kind === "buffer";
      return to.mapParts(parts, request.iova, { read, write, mmio });
    } finally {
      for (const { memory } of parts) memory.release();
    }
  }

  /** A driver hands a device over. @throws DmaError EINVAL, EPERM, EBUSY */
  bind(hardware: UserDevice): BoundDevice {
    if (!hardware.isCoherent) throw badAttach("EINVAL", `DMA of ${hardware.name} does not see the CPU's caches`);
    if (!hardware.hasIsolatedInterrupts && !this.#options.allowUnsafeInterrupts)
      throw badAttach("EPERM", `interrupts of ${hardware.name} are not isolated`);
    if (!claimGroup(hardware.group, this)) throw badAttach("EBUSY", `DMA of ${hardware.name} is in other hands`);
    const group = this.#groups.get(hardware.group) ?? new BoundGroup(hardware.group);
    this.#groups.set(hardware.group, group);
    return this.objects.add(
      new BoundDevice(hardware, group, () => {
        releaseGroup(hardware.group);
        if (group.devices === 0) this.#groups.delete(hardware.group);
      }),
    );
  }

  /** The driver takes it back, detached. */
  unbind(device: BoundDevice): void {
    for (const pasid of [...device.group.attachments.keys()]) this.detach(device, pasid);
    if (device.vdevice) this.objects.remove(device.vdevice, true);
    this.objects.remove(device);
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT) */
  device(id: number): BoundDevice {
    return this.#lookUp("device", id) as BoundDevice;
  }

  /**
   * Attaches a device to a table, or to a space: then to an automatic table of it, made if none fits.
   *
   * @returns the table
   * @throws DmaError ENOENT for an unknown id, EINVAL for one of another kind; as {@link BoundDevice.attach}
   */
  attach(device: BoundDevice, to: number, pasid = 0): Hwpt {
    return this.#changeTable(device, to, (hwpt) => device.attach(hwpt, pasid), pasid);
  }

  /** The same in place of what it is attached to. @throws DmaError as {@link attach}; as {@link BoundDevice.replace} */
  replace(device: BoundDevice, to: number, pasid = 0): Hwpt {
    let old: Hwpt | undefined;
    const hwpt = this.#changeTable(device, to, (next) => {
      old = device.replace(next, pasid);
    });
    if (old) this.#forget(old);
    return hwpt;
  }

  /** Detaches a device. Never fails. */
  detach(device: BoundDevice, pasid = 0): void {
    const old = device.detach(pasid);
    if (old) this.#forget(old);
  }

  /** An automatic table ends with its last user. */
  #forget(hwpt: Hwpt): void {
    if (hwpt.isAutomatic) this.objects.removeUnused(hwpt);
  }

  /** @param pasid of a first attachment: made before the table is filled */
  #changeTable(device: BoundDevice, to: number, change: (hwpt: Hwpt) => void, pasid?: number): Hwpt {
    this.#options.failurePoint?.("lookup");
    const object = this.objects.get(to);
    if (!object) throw noObject(to, "table or space");
    if (object.kind === "hwpt" || object.kind === "nested") {
      change(object as Hwpt);
      return object as Hwpt;
    }
    if (object.kind !== "ioas") throw noObject(to, "table or space", "EINVAL");
    const ioas = object as Ioas;
    for (const hwpt of this.objects) {
      if (!(hwpt instanceof PagingHwpt) || hwpt.ioas !== ioas || !hwpt.isAutomatic) continue;
      try {
        change(hwpt);
        return hwpt;
      } catch (error) {
        if (!isIncompatible(error)) throw error;
      }
    }
    return this.#automaticTable(device, ioas, change, pasid);
  }

  #automaticTable(
    device: BoundDevice,
    ioas: Ioas,
    change: (hwpt: Hwpt) => void,
    pasid: number | undefined,
  ): PagingHwpt {
    const table = device.hardware.openTable({ nestParent: false, tracksDirty: false, pasid: false, data: undefined });
    const hwpt = new PagingHwpt(ioas, table, { nestParent: false, pasid: false, automatic: true });
    let attached = false;
    try {
      // A first attachment comes before the fill: the device may have to be known to the table.
      if (pasid !== undefined) {
        change(hwpt);
        attached = true;
      }
      ioas.addTable(table);
      this.objects.add(hwpt);
      if (pasid === undefined) change(hwpt);
    } catch (error) {
      if (attached) device.detach(pasid!);
      if (hwpt.id > 0) this.objects.remove(hwpt);
      else hwpt.end();
      throw error;
    }
    return hwpt;
  }

  /** @throws DmaError ENOENT, EINVAL, EOPNOTSUPP, EFAULT, EADDRINUSE, ENOMEM */
  createHwpt(request: HwptRequest): Hwpt {
    const { flags = 0, data, parent } = request;
    const device = this.device(request.device);
    const under = this.#parent(parent);
    if (!under) throw noObject(parent, "table or space", "EINVAL");
    const hwpt = this.#makeHwpt(device, under, parent, flags, data);
    try {
      if ((flags & HWPT_FLAGS.FAULT_ID_VALID) !== 0) {
        const queue = this.#lookUp("fault-queue", request.faultQueue ?? 0) as FaultQueue;
        hwpt.faults = queue;
        queue.users++;
      }
    } catch (error) {
      hwpt.end();
      throw error;
    }
    return this.objects.add(hwpt);
  }

  /** What a table is to be made on; undefined: nothing has this id. */
  #parent(id: number): IommufdObject | undefined {
    try {
      this.#options.failurePoint?.("lookup");
      return this.objects.get(id);
    } catch {
      return undefined;
    }
  }

  #makeHwpt(device: BoundDevice, under: IommufdObject, id: number, flags: number, data: VendorData | undefined): Hwpt {
    const pasid = (flags & HWPT_FLAGS.PASID) !== 0;
    if (under instanceof Ioas) return this.#makePaging(device, under, flags, data);
    const nestedFlags = HWPT_FLAGS.FAULT_ID_VALID | HWPT_FLAGS.PASID;
    const isParent = under instanceof PagingHwpt;
    if (!isParent && !(under instanceof Viommu)) throw noObject(id, "table or space", "EINVAL");
    if ((flags & ~nestedFlags) !== 0 || !data) throw notSupported("a nested table of these flags, or without data");
    if (under instanceof Viommu)
      return new NestedHwpt(
        this.objects.of("hwpt", under.parent.id) as PagingHwpt,
        under.driver.openNested(data),
        pasid,
        under,
      );
    if (!device.hardware.openNested) throw notSupported("nesting on this IOMMU");
    if (under.isAutomatic || !under.isNestParent) throw badArgument("the table was not made as a parent", { id });
    return new NestedHwpt(under, device.hardware.openNested(under.table, data), pasid);
  }

  #makePaging(device: BoundDevice, ioas: Ioas, flags: number, data: VendorData | undefined): PagingHwpt {
    const has = (flag: number): boolean => (flags & flag) !== 0;
    if (has(HWPT_FLAGS.DIRTY_TRACKING) && !device.hardware.canTrackDirty)
      throw notSupported(`dirty tracking behind ${device.hardware.name}`);
    if (has(HWPT_FLAGS.FAULT_ID_VALID) && has(HWPT_FLAGS.NEST_PARENT))
      throw notSupported("page faults of a nesting parent");
    const traits = { nestParent: has(HWPT_FLAGS.NEST_PARENT), pasid: has(HWPT_FLAGS.PASID) };
    const table = device.hardware.openTable({ ...traits, tracksDirty: has(HWPT_FLAGS.DIRTY_TRACKING), data });
    const hwpt = new PagingHwpt(ioas, table, { ...traits, automatic: false });
    try {
      ioas.addTable(table);
    } catch (error) {
      hwpt.end();
      throw error;
    }
    return hwpt;
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT) */
  pagingHwpt(id: number): PagingHwpt {
    return this.#lookUp("hwpt", id) as PagingHwpt;
  }

  /** Who takes invalidations under this id. @throws DmaError ENOENT; EINVAL if nobody does */
  invalidationTarget(id: number): InvalidationTarget {
    const object = this.objects.get(id);
    if (!object) throw noObject(id, "nested table or virtual IOMMU");
    const target =
      object instanceof NestedHwpt
        ? object.invalidation
        : object instanceof Viommu
          ? object.driver.invalidation
          : undefined;
    if (!target) throw noObject(id, "nested table or virtual IOMMU", "EINVAL");
    return target;
  }

  /** A device asks for a page. False: nobody listens, and it is answered. */
  reportFault(device: BoundDevice, fault: PageFault): boolean {
    const hwpt = device.hwptOf(fault.pasid ?? 0);
    if (!hwpt?.faults) {
      device.hardware.respond(fault, false);
      return false;
    }
    hwpt.faults.report(device, fault);
    return true;
  }

  createFaultQueue(): FaultQueue {
    return this.objects.add(new FaultQueue(this));
  }

  /** @param owner who uses it; ends it by {@link endAccess} */
  createAccess(options: AccessOptions): Access {
    this.acquire();
    return this.objects.add(new Access(options, () => this.release()));
  }

  endAccess(access: Access): void {
    this.objects.remove(access);
  }

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
    const viommu = this.#lookUp("viommu", viommuId) as Viommu;
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
    const viommu = this.#lookUp("viommu", viommuId) as Viommu;
    if (!viommu.driver.eventTypes.includes(type)) throw notSupported(`events of type ${type}`);
    if (viommu.queues.has(type)) throw alreadyThere(`events of type ${type} have a queue`);
    return this.objects.add(new EventQueue(viommu, type, depth, this));
  }

  /** @throws DmaError ENOENT, EINVAL, EOVERFLOW, EFAULT if the memory is not contiguous; what the driver says */
  createHardwareQueue(viommuId: number, type: number, index: number, iova: bigint, length: bigint): HardwareQueue {
    if (length === 0n) throw badArgument("length 0");
    if (iova + length - 1n > LAST_IOVA) throw wraps(iova, length);
    const viommu = this.#lookUp("viommu", viommuId) as Viommu;
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

  /**
   * Whoever calls pays for everything from now on: a program that was replaced by its successor.
   *
   * @throws DmaError EINVAL if there is memory that is not of files; ENOMEM over the limit of the new one; nothing changes then
   */
  changeProcess(process: UserProcess): void {
    const all = new Set<MappedMemory>();
    for (const object of this.objects)
      if (object instanceof Ioas)
        for (const { memory } of object.areas) {
          if (memory.source.kind !== "file") throw badArgument("only memory of files can change hands");
          all.add(memory);
        }
    const moved = [...all].filter((memory) => !memory.payer.isPaidBy(process));
    const next = new Map<MappedMemory, Payer>();
    try {
      for (const memory of moved) {
        const payer = Payer.like(memory.payer, process);
        payer.charge(memory.pinnedPages);
        next.set(memory, payer);
      }
    } catch (error) {
      for (const [memory, payer] of next) payer.refund(memory.pinnedPages);
      throw error;
    }
    for (const memory of moved) memory.payer.refund(memory.pinnedPages);
    for (const memory of moved) memory.changePayer(process);
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_COMPAT (ENODEV) */
  needCompatIoas(): Ioas {
    if (!this.compatIoas) throw noCompatSpace();
    return this.compatIoas;
  }
}

const alreadyInUse = (): Error =>
  badAttach("EBUSY", "there are objects already: it is too late to change who is charged");

function mustAllowSomething({ read = true, write = true }: MapRequest): void {
  if (!read && !write) throw badArgument("neither reading nor writing");
}

const isIncompatible = (error: unknown): boolean =>
  typeof error === "object" && error !== null && (error as { errno?: unknown }).errno === "EINVAL";

/** Is it a DMA buffer? */
const isRangeBuffer = (file: OpenFile): file is OpenFile & RangeBuffer => file.kind === "dma-buf";
