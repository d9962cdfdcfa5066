/**
 * A virtual IOMMU: what a guest sees of the one that its devices stand behind, with its devices, events and queues.
 *
 * Specified by: behaviour of Linux 7.2 (viommu, vdevice, veventq, hw_queue); judged by test/golden/iommufd.
 */
import type { OpenFile } from "../../platform/index.ts";
import { badArgument } from "./errors.ts";
import type { UserDevice, UserTable, ViommuBond, ViommuDriver } from "./hardware.ts";
import type { Ioas } from "./ioas.ts";
import type { IommufdObject } from "./objects.ts";
import { QueueFile } from "./queue-file.ts";

/** The table that a guest's tables stand on. */
interface ParentTable extends IommufdObject {
  readonly ioas: Ioas;
  readonly table: UserTable;
}

/** A device that a guest may know. */
interface GuestDevice {
  readonly hardware: UserDevice;
  vdevice: Vdevice | undefined;
}

/** Of a guest's IOMMU: the parent table, and who is known by which number. */
export class Viommu implements IommufdObject {
  readonly kind = "viommu";
  id = 0;
  users = 0;
  /** The table that the guest's tables stand on. */
  readonly parent: ParentTable;
  /** The vendor's part of it. */
  readonly driver: ViommuDriver;
  /** By the guest's number. */
  readonly devices: Map<bigint, Vdevice> = new Map();
  /** By the type of their events. */
  readonly queues: Map<number, EventQueue> = new Map();

  /** Made by the iommufd; uses the parent, and takes over the driver. */
  constructor(parent: ParentTable, driver: ViommuDriver) {
    this.parent = parent;
    this.driver = driver;
    parent.users++;
  }

  /** The device as the guest knows it. */
  bondOf(device: GuestDevice): ViommuBond {
    const known = device.vdevice?.viommu === this ? device.vdevice : undefined;
    return { driver: this.driver, virtualId: known?.virtualId };
  }

  /** An event of its hardware, for the guest. */
  report(type: number, data: Uint8Array): boolean {
    const queue = this.queues.get(type);
    queue?.report(data);
    return queue !== undefined;
  }

  end(): void {
    this.driver.destroy();
    this.parent.users--;
  }
}

/** A device in a guest's IOMMU. */
export class Vdevice implements IommufdObject {
  readonly kind = "vdevice";
  id = 0;
  users = 0;
  /** The virtual IOMMU that it is in. */
  readonly viommu: Viommu;
  /** The device that it stands for. */
  readonly device: GuestDevice;
  /** The guest's number for it. */
  readonly virtualId: bigint;

  /** Made by the iommufd; enters the device under its number. */
  constructor(viommu: Viommu, device: GuestDevice, virtualId: bigint) {
    this.viommu = viommu;
    this.device = device;
    this.virtualId = virtualId;
    viommu.users++;
    viommu.devices.set(virtualId, this);
    device.vdevice = this;
  }

  end(): void {
    this.viommu.devices.delete(this.virtualId);
    this.viommu.users--;
    this.device.vdevice = undefined;
  }
}

const HEADER_BYTES = 8;
const LOST = 1;
const SEQUENCE_MASK = 0x7fff_ffff;

/** An event, or the note that some were lost. */
interface Queued {
  /** undefined: the note. */
  readonly data: Uint8Array | undefined;
  sequence: number;
}

/** Events of a virtual IOMMU. When it is full they are counted and lost, and the reader is told. */
export class EventQueue implements IommufdObject {
  readonly kind = "event-queue";
  id = 0;
  users = 0;
  /** Where a program reads events. */
  readonly file: QueueFile;
  readonly #viommu: Viommu;
  readonly #type: number;
  readonly #depth: number;
  readonly #events: Queued[] = [];
  #held = 0;
  #sequence = 0;

  /** Made by the iommufd: events of `type`, of which `depth` wait at most. */
  constructor(viommu: Viommu, type: number, depth: number, context: OpenFile) {
    this.#viommu = viommu;
    this.#type = type;
    this.#depth = depth;
    viommu.users++;
    viommu.queues.set(type, this);
    this.file = new QueueFile("iommufd-events", context, this, {
      read: (into) => this.#read(into),
      write: () => {
        throw badArgument("a queue of events takes no answers");
      },
      poll: () => ({ in: this.#events.length > 0, out: false }),
    });
  }

  /** One more event. */
  report(data: Uint8Array): void {
    const isFull = this.#held === this.#depth;
    if (!isFull) this.#held++;
    if (this.#events.at(-1)?.data === undefined) this.#events.pop();
    this.#events.push({ data: isFull ? undefined : data, sequence: this.#sequence });
    this.#sequence = (this.#sequence + 1) & SEQUENCE_MASK;
  }

  #read(into: Uint8Array): number {
    let done = 0;
    for (;;) {
      const event = this.#events[0];
      if (!event) return done;
      const bytes = HEADER_BYTES + (event.data?.length ?? 0);
      if (into.length - done < bytes) {
        if (done === 0) throw badArgument("no room for the first event");
        return done;
      }
      this.#events.shift();
      if (event.data) this.#held--;
      const view = new DataView(into.buffer, into.byteOffset + done, HEADER_BYTES);
      view.setUint32(0, event.data ? 0 : LOST, true);
      view.setUint32(4, event.sequence, true);
      if (event.data) into.set(event.data, done + HEADER_BYTES);
      done += bytes;
    }
  }

  end(): void {
    this.#viommu.queues.delete(this.#type);
    this.#viommu.users--;
  }
}

/** Memory of a guest that hardware reads by itself: it stays where it is. */
export class HardwareQueue implements IommufdObject {
  readonly kind = "hw-queue";
  id = 0;
  users = 0;
  #close: () => void = () => {};

  /** What it holds, and what to do when it ends. */
  opened(close: () => void): void {
    this.#close = close;
  }

  end(): void {
    this.#close();
  }
}
