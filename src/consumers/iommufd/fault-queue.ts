/**
 * A queue of page faults that devices ask a program to repair.
 *
 * Idea: a fault gets a number, its *cookie*, when it is read, and is answered by that number. Whoever leaves a table has its
 * faults answered `invalid`, read or not.
 * Specified by: behaviour of Linux 7.2 (fault objects); judged by test/golden/iommufd.
 */

import { PAGE_FAULT_BYTES, PAGE_RESPONSE_BYTES } from "../../layouts/uapi/index.ts";
import type { OpenFile } from "../../platform/index.ts";
import { badArgument, notWholeRecords } from "./errors.ts";
import type { PageFault, UserDevice } from "./hardware.ts";
import type { IommufdObject } from "./objects.ts";
import { QueueFile } from "./queue-file.ts";

/** Who asks, and is answered. */
interface FaultingDevice {
  readonly id: number;
  readonly hardware: UserDevice;
}

interface Waiting {
  readonly device: FaultingDevice;
  readonly pasid: number;
  readonly fault: PageFault;
}

const FLAG = { pasid: 1, last: 2 } as const;

/** Faults to read, and faults to answer. */
export class FaultQueue implements IommufdObject {
  readonly kind = "fault-queue";
  id = 0;
  users = 0;
  /** Where a program reads faults and writes answers. */
  readonly file: QueueFile;
  readonly #unread: Waiting[] = [];
  readonly #unanswered = new Map<number, Waiting>();

  /**
   * Made by the iommufd.
   * @param context what the file keeps alive
   */
  constructor(context: OpenFile) {
    this.file = new QueueFile("iommufd-faults", context, this, {
      read: (into) => this.#read(into),
      write: (from) => this.#write(from),
      poll: () => ({ in: this.#unread.length > 0, out: true }),
    });
  }

  /** A device asks. */
  report(device: FaultingDevice, fault: PageFault): void {
    this.#unread.push({ device, pasid: fault.pasid ?? 0, fault });
  }

  #read(into: Uint8Array): number {
    if (into.length % PAGE_FAULT_BYTES !== 0) throw notWholeRecords(into.length, PAGE_FAULT_BYTES);
    let done = 0;
    for (;;) {
      const next = this.#unread[0];
      if (!next) return done;
      if (into.length - done < PAGE_FAULT_BYTES) {
        if (done === 0) throw badArgument("no room for the first fault");
        return done;
      }
      this.#unread.shift();
      let cookie = 1;
      while (this.#unanswered.has(cookie)) cookie++;
      this.#unanswered.set(cookie, next);
      const { fault, device } = next;
      const view = new DataView(into.buffer, into.byteOffset + done, PAGE_FAULT_BYTES);
      const flags = (fault.pasid === undefined ? 0 : FLAG.pasid) | (fault.isLast ? FLAG.last : 0);
      [flags, device.id, fault.pasid ?? 0, fault.group, fault.permissions, 0].forEach((word, i) => {
        view.setUint32(i * 4, word, true);
      });
      view.setBigUint64(24, fault.address, true);
      view.setUint32(32, 0, true);
      view.setUint32(36, cookie, true);
      done += PAGE_FAULT_BYTES;
    }
  }

  #write(from: Uint8Array): number {
    if (from.length % PAGE_RESPONSE_BYTES !== 0) throw notWholeRecords(from.length, PAGE_RESPONSE_BYTES);
    const view = new DataView(from.buffer, from.byteOffset, from.length);
    let done = 0;
    for (; done < from.length; done += PAGE_RESPONSE_BYTES) {
      const cookie = view.getUint32(done, true);
      const code = view.getUint32(done + 4, true);
      const waiting = this.#unanswered.get(cookie);
      if (code > 1 || !waiting) {
        if (done === 0) throw badArgument(`no fault with cookie ${cookie} waits, or code ${code} is none`);
        break;
      }
      this.#unanswered.delete(cookie);
      waiting.device.hardware.respond(waiting.fault, code === 0);
    }
    return done;
  }

  /** The device leaves the table: its faults are answered. */
  drop(device: FaultingDevice, pasid: number): void {
    const isOurs = (waiting: Waiting): boolean => waiting.device === device && waiting.pasid === pasid;
    for (let i = this.#unread.length - 1; i >= 0; i--)
      if (isOurs(this.#unread[i]!)) device.hardware.respond(this.#unread.splice(i, 1)[0]!.fault, false);
    for (const [cookie, waiting] of [...this.#unanswered])
      if (isOurs(waiting)) {
        this.#unanswered.delete(cookie);
        device.hardware.respond(waiting.fault, false);
      }
  }

  end(): void {
    // Faults left belong to nobody: whoever leaves a table has its own answered.
  }
}
