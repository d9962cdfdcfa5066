/**
 * AMD's lines: `AMD-Vi: Event logged […]`, with the device in front, inside, or the event on a line of its own.
 *
 * Idea: the name of the event and the `name=value` pairs behind it are the same in all shapes, so they are looked for wherever they
 * stand. Promises: an event that is no fault of an access (a command, a table that cannot be read) is told with its own reason.
 * Specified by: AMD I/O Virtualization specification 48882, 2.5 (event log); the lines of Linux 3.x to 7.2.
 */
import { type Access, type FactSink, type MessageReader, shown } from "./facts.ts";
import { deviceName, field, hexBits, number, ownerBefore } from "./names.ts";

const EVENT =
  /(?:^|[[\s])(IO_PAGE_FAULT|ILLEGAL_DEV_TABLE_ENTRY|DEV_TAB_HARDWARE_ERROR|PAGE_TAB_HARDWARE_ERROR|ILLEGAL_COMMAND_ERROR|COMMAND_HARDWARE_ERROR|IOTLB_INV_TIMEOUT|INVALID_DEVICE_REQUEST|INVALID_PPR_REQUEST|RMP_PAGE_FAULT|RMP_HARDWARE_ERROR|EVENT_TYPE_\w{1,40})\b(.{0,300})/;

const REASONS: Readonly<Record<string, string>> = {
  ILLEGAL_DEV_TABLE_ENTRY: "the device's entry of the device table is malformed",
  DEV_TAB_HARDWARE_ERROR: "the device table could not be read",
  PAGE_TAB_HARDWARE_ERROR: "a page table could not be read",
  ILLEGAL_COMMAND_ERROR: "the unit was given a command that it does not know",
  COMMAND_HARDWARE_ERROR: "the command buffer could not be read",
  IOTLB_INV_TIMEOUT: "the device did not answer an invalidation of its TLB",
  INVALID_DEVICE_REQUEST: "the device sent a request that it may not send",
  INVALID_PPR_REQUEST: "the device sent a page request that it may not send",
  RMP_PAGE_FAULT: "the page belongs to a confidential guest, or is not shared (RMP)",
  RMP_HARDWARE_ERROR: "the reverse map table could not be read",
};

/** Bits of the flags of IO_PAGE_FAULT. Source: 48882, table of its fields. */
const INTERRUPT = 1 << 3;
const PRESENT = 1 << 4;
const WRITE = 1 << 5;
const PERMISSION = 1 << 6;
const RESERVED = 1 << 7;
const TRANSLATION = 1 << 8;

export class AmdReader<At> implements MessageReader<At> {
  readonly #emit: FactSink<At>;

  constructor(emit: FactSink<At>) {
    this.#emit = emit;
  }

  read(message: string, at: At): boolean {
    const marker = message.indexOf("AMD-Vi:");
    const event = marker >= 0 || message.includes("device=") ? EVENT.exec(message) : undefined;
    // The first of two lines has nothing but its beginning.
    if (!event) return marker >= 0 && /Event logged \[\s*$/.test(message);
    const [, name, rest] = event;
    const inside = field(rest!, "device");
    const address = field(rest!, "address");
    const flags = number(field(rest!, "flags")) ?? 0;
    const pageFault = name === "IO_PAGE_FAULT";
    this.#emit({
      kind: "fault",
      unit: "amd",
      unitName: undefined,
      device: inside !== undefined ? deviceName(inside) : ownerBefore(message, Math.max(0, marker)).device,
      stream: undefined,
      address: address === undefined ? undefined : hexBits(address),
      access: pageFault || name === "RMP_PAGE_FAULT" ? accessOf(flags) : "unknown",
      reason: pageFault ? reasonOf(flags) : (REASONS[name!] ?? name!.toLowerCase().replaceAll("_", " ")),
      reasonCode: number(field(rest!, "flags")),
      pasid: number(field(rest!, "pasid")),
      domain: number(field(rest!, "domain")),
      detached: name === "ILLEGAL_DEV_TABLE_ENTRY",
      entry: pageFault && (flags & PRESENT) === 0 ? "absent" : undefined,
      permission: pageFault && (flags & PRESENT) !== 0 ? (flags & PERMISSION) !== 0 : undefined,
      text: shown(message),
      at,
    });
    return true;
  }

  settle(): void {}
}

/** As Linux reads the flags: the write bit counts whether or not the page is present. */
const accessOf = (flags: number): Access =>
  (flags & (INTERRUPT | TRANSLATION)) !== 0 ? "unknown" : (flags & WRITE) !== 0 ? "write" : "read";

function reasonOf(flags: number): string {
  if ((flags & INTERRUPT) !== 0) return "an interrupt was refused";
  if ((flags & PRESENT) === 0) return "nothing is mapped there";
  if ((flags & RESERVED) !== 0) return "reserved bits are set in an entry, or its level is wrong";
  return (flags & PERMISSION) !== 0 ? "the entry does not allow it" : "the entry is there, and refused it";
}
