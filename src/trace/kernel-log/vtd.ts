/**
 * VT-d's lines: faults in every shape that Linux has printed, and the walk of the tables behind them.
 *
 * Idea: the shapes differ in how they write the device and the number of the reason, so one pattern with optional parts reads all; a
 * reason without 0x is decimal (kernels before 5.13), and its words decide where number and words disagree. The walk that may
 * follow (`pte level: 1, pte value: …`) says what the tables held, which tells an absent page from one of the wrong kind.
 * Specified by: VT-d specification, 7.1 (fault reasons); the lines of Linux 3.x to 7.2.
 */
import { type Access, type FactSink, type IommuFault, type MessageReader, shown, type TableEntry } from "./facts.ts";
import { hexBits, number, pciName } from "./names.ts";

/** `[DMA Write NO_PASID] Request device [0000:00:06.0] fault addr 0x1000 [fault reason 0x05] …`, and its forebears. */
const FAULT =
  /\[(DMA Read|DMA Write|INTR-REMAP)(?: (NO_PASID|PASID (?:0x)?[0-9a-f]{1,8}))?\] ?Request device \[([0-9a-fx:.]{5,24})\](?: PASID ((?:0x)?[0-9a-f]{1,8}))? fault (addr|index) ((?:0x)?[0-9a-f]{1,16})/i;
const REASON = /\[fault reason (?:0x)?([0-9a-f]{1,4})\] ?(.{0,200})/i;
const WALK = /pte level: (\d), pte value: 0x([0-9a-f]{1,16})/i;
const DUMP =
  /^(?:Dump \S{1,32} table entries for IOVA |root entry: |context entry: |pte level: |page table not present|root table (?:is )?not present|context table (?:is )?not present|scalable mode |pasid dir(?:ectory)? |pasid table )/i;
const STATUS = /handling fault status reg/;
/** "No PASID", as the shape before 5.13 writes it. */
const ALL_ONES = 0xffff_ffff;

const READ_BIT = 1n;
const WRITE_BIT = 2n;
const LARGE_BIT = 1n << 7n;

export class VtdReader<At> implements MessageReader<At> {
  readonly #emit: FactSink<At>;
  #open: Open<At> | undefined;

  constructor(emit: FactSink<At>) {
    this.#emit = emit;
  }

  read(message: string, at: At): boolean {
    const marker = /\bDMAR:/i.exec(message);
    const text = marker ? message.slice(marker.index + marker[0].length).trimStart() : message.trimStart();
    if (!marker && !text.includes("Request device [")) return false;
    const words = text.replace(/^DMAR: ?/, ""); // old kernels print it twice
    if (STATUS.test(words)) return true;
    const fault = FAULT.exec(words);
    if (fault) {
      this.settle();
      this.#begin(fault, words, message, at);
      return true;
    }
    const open = this.#open;
    const reason = words.startsWith("[fault reason") ? REASON.exec(words) : undefined;
    if (reason) {
      // The second of two lines; where the first was kept back or lost there is nothing to say of it.
      if (open) Object.assign(open, reasonOf(reason, words));
      return true;
    }
    if (!DUMP.test(words)) return false;
    if (open) this.#walk(open, words);
    return true;
  }

  settle(): void {
    const open = this.#open;
    this.#open = undefined;
    if (open) this.#emit(open);
  }

  #begin(match: RegExpExecArray, words: string, message: string, at: At): void {
    const [, what, pasidBefore, device, pasidBehind, kind, address] = match;
    const pasid = number(hexWord(pasidBefore?.replace(/^PASID /, "") ?? pasidBehind));
    // An interrupt that was refused is no access to memory: it has an index, no address.
    const interrupt = kind === "index";
    const access: Access = what === "DMA Read" ? "read" : "write";
    const reason = REASON.exec(words);
    this.#open = {
      kind: "fault",
      unit: "vtd",
      unitName: undefined,
      device: pciName(device!) ?? device,
      stream: undefined,
      address: interrupt ? undefined : hexBits(address!),
      access: interrupt ? "unknown" : access,
      pasid: pasid === ALL_ONES ? undefined : pasid,
      domain: undefined,
      entry: undefined,
      reason: interrupt ? "an interrupt was refused" : "no reason is printed",
      reasonCode: undefined,
      detached: false,
      permission: undefined,
      ...(reason && reasonOf(reason, words)),
      text: shown(message),
      at,
    };
  }

  /** The last entry of the walk is what the address had: a leaf, or the place where there is none. */
  #walk(open: Open<At>, words: string): void {
    if (/not present/i.test(words)) {
      open.entry = "absent";
      return;
    }
    const match = WALK.exec(words);
    if (!match) return;
    const value = BigInt(`0x${match[2]}`);
    const leaf = match[1] === "1" || (value & LARGE_BIT) !== 0n;
    const bits = value & (READ_BIT | WRITE_BIT);
    if (bits === 0n) open.entry = "absent";
    else if (leaf) open.entry = ENTRIES[Number(bits)]!;
  }
}

const ENTRIES: readonly TableEntry[] = ["absent", "read-only", "write-only", "read-write"];

type Open<At> = { -readonly [Key in keyof IommuFault<At>]: IommuFault<At>[Key] };

const hexWord = (text: string | undefined): string | undefined =>
  text === undefined || text === "NO_PASID" ? undefined : text.startsWith("0x") ? text : `0x${text}`;

function reasonOf(
  match: RegExpExecArray,
  words: string,
): Pick<IommuFault<never>, "reason" | "reasonCode" | "detached"> {
  const digits = match[1]!;
  const printed = match[2]!.trim();
  const hexadecimal = /\[fault reason 0x/i.test(words);
  const code = Number.parseInt(digits, hexadecimal || /[a-f]/i.test(digits) ? 16 : 10);
  return { reasonCode: code, reason: VTD_REASONS[code] ?? (printed || `reason ${code}`), detached: DETACHED.has(code) };
}

/** Reasons that say: no root, context or PASID entry leads to tables of the device. */
const DETACHED: ReadonlySet<number> = new Set([1, 2, 3, 57, 65, 67]);

/** Fault reasons by number. Source: VT-d specification, table of translation fault conditions. */
const VTD_REASONS: Readonly<Record<number, string>> = {
  1: "the root entry of the device's bus is not present",
  2: "the context entry of the device is not present",
  3: "the context entry of the device is invalid",
  4: "the address is wider than the domain's",
  5: "no entry that allows a write",
  6: "no entry that allows a read",
  7: "a table of the walk could not be read",
  8: "the root table could not be read",
  9: "the context table could not be read",
  10: "reserved bits are set in the root entry",
  11: "reserved bits are set in the context entry",
  12: "reserved bits are set in a page-table entry",
  13: "a translation request is blocked for this device",
  32: "reserved fields are set in the interrupt request",
  33: "the interrupt's index is larger than the table",
  34: "the interrupt's entry is not present",
  35: "the interrupt table could not be read",
  36: "reserved fields are set in the interrupt's entry",
  37: "an interrupt in compatibility format is blocked",
  38: "the interrupt does not come from the device that its entry names",
  48: "the root table's address is bad (scalable mode)",
  49: "a request with a PASID, but the unit is not in scalable mode",
  50: "a page group response with a PASID, but the unit is not in scalable mode",
  56: "the root entry could not be read",
  57: "the root entry is not present",
  58: "reserved bits are set in the root entry",
  64: "the context entry could not be read",
  65: "the context entry of the device is not present",
  66: "reserved bits are set in the context entry",
  67: "the context entry of the device is invalid",
  68: "translation requests are not enabled for this device",
  69: "a request with a PASID from a device that has none enabled",
  70: "the PASID is larger than the device's table",
  71: "page requests are not enabled for this device",
  72: "the PASID for requests without one is wrong",
  80: "the PASID directory could not be read",
  81: "the PASID directory entry is not present",
  82: "reserved bits are set in the PASID directory entry",
  88: "the PASID entry could not be read",
  89: "the PASID entry is not present",
  90: "reserved bits are set in the PASID entry",
  91: "the PASID entry is invalid",
  92: "execute requests are not enabled for this PASID",
  93: "supervisor requests are not enabled for this PASID",
  112: "a first-stage table could not be read",
  113: "nothing is mapped there (first stage)",
  114: "reserved bits are set in a first-stage entry",
  115: "the first-stage top table could not be read",
  116: "the first-stage table's address is too wide",
  117: "nested: the first-stage top table is not readable",
  118: "nested: not readable",
  119: "nested: not writable",
  120: "a second-stage table could not be read",
  121: "nothing is mapped there that allows it (second stage)",
  122: "reserved bits are set in a second-stage entry",
  123: "a second-stage table's address is bad",
  124: "second stage: accessed or dirty bits cannot be set without snooping",
  128: "the address is not canonical (first stage)",
  129: "a user request for a supervisor page (first stage)",
  130: "an execute request for a page without execute (first stage)",
  131: "the address is wider than the hardware's",
  132: "the address is wider than the second stage's",
  133: "no write permission",
  134: "no read permission",
  135: "the address is in the interrupt range",
  144: "first stage: accessed or dirty bits cannot be set without snooping",
};
