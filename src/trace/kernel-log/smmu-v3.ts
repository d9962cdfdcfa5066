/**
 * SMMUv3's lines: an event as four raw words, and the decoded lines that newer kernels print behind them.
 *
 * Idea: the words hold everything but the device's name; the decoded lines hold that too, and where both are there they say the same.
 * Each unit gathers its own lines, so two that fault at once do not mix.
 * Promises: a line is looked at once; words that never become four are told as what they are.
 * Specified by: Arm SMMU architecture version 3, 7.3 (event records); the lines of Linux 4.1 to 7.2.
 */
import { type Access, type FactSink, type MessageReader, shown } from "./facts.ts";
import { deviceName, hexBits, number, ownerBefore } from "./names.ts";

const HEAD = /event (0x[0-9a-f]{2}) received:/i;
const WORD = /(?:^|[:\s])0x([0-9a-f]{16})$/i;
const NAMED = /event: (\w{3,40}) client: (.{1,100}?) sid: (0x[0-9a-f]{1,8})/i;
const HOW = /\b(?:un)?priv (?:inst|data) (read|write) s([12]) "/;
/** 64-bit words of an event record. */
const WORDS = 4;

/** Events by number. Source: SMMUv3 7.3. */
const EVENTS: Readonly<Record<number, readonly [string, string]>> = {
  1: ["F_UUT", "unsupported upstream transaction"],
  2: ["C_BAD_STREAMID", "the stream is outside of the table"],
  3: ["F_STE_FETCH", "the stream's entry could not be read"],
  4: ["C_BAD_STE", "the stream's entry is invalid: it is attached to nothing"],
  5: ["F_BAD_ATS_TREQ", "a translation request that is not allowed"],
  6: ["F_STREAM_DISABLED", "the stream is disabled"],
  7: ["F_TRANSL_FORBIDDEN", "a translated request that is not allowed"],
  8: ["C_BAD_SUBSTREAMID", "the process address space is outside of the table"],
  9: ["F_CD_FETCH", "the context descriptor could not be read"],
  10: ["C_BAD_CD", "the context descriptor is invalid"],
  11: ["F_WALK_EABT", "a page table could not be read"],
  16: ["F_TRANSLATION", "translation fault: nothing is mapped there"],
  17: ["F_ADDR_SIZE", "address size fault: the address is too wide"],
  18: ["F_ACCESS", "access flag fault: the entry's access flag is clear"],
  19: ["F_PERMISSION", "permission fault: the entry does not allow it"],
  32: ["F_TLB_CONFLICT", "TLB conflict: two entries match"],
  33: ["F_CFG_CONFLICT", "two cached configurations conflict"],
  36: ["E_PAGE_REQUEST", "a page request of the device"],
  37: ["F_VMS_FETCH", "the virtual machine structure could not be read"],
};
const NUMBERS = new Map(Object.entries(EVENTS).map(([id, [name]]) => [name, Number(id)]));
const TRANSLATION = 0x10;
const PERMISSION = 0x13;
/** The events that say: the stream leads to no tables. */
const DETACHED: ReadonlySet<number> = new Set([0x02, 0x04, 0x06]);
/** The events whose record has an address that the device asked for. */
const WITH_ADDRESS = new Set([0x01, 0x05, 0x07, 0x0b, 0x10, 0x11, 0x12, 0x13, 0x20, 0x24]);

const READ_BIT = 1n << 35n;
const HAS_PASID = 1n << 11n;

interface Gathering<At> {
  readonly event: number;
  readonly text: string;
  readonly at: At;
  readonly words: bigint[];
  device: string | undefined;
  stream: number | undefined;
  address: bigint | undefined;
  access: Access | undefined;
}

export class SmmuV3Reader<At> implements MessageReader<At> {
  readonly #emit: FactSink<At>;
  readonly #units = new Map<string, Gathering<At>>();

  constructor(emit: FactSink<At>) {
    this.#emit = emit;
  }

  read(message: string, at: At): boolean {
    const head = HEAD.exec(message);
    if (head) {
      const unit = ownerBefore(message, head.index).device ?? "";
      this.#done(unit);
      this.#begin(unit, number(head[1])!, message, at);
      return true;
    }
    if (this.#units.size > 0) {
      const word = WORD.exec(message.trimEnd());
      if (word) return this.#word(ownerBefore(message, word.index + 1).device, BigInt(`0x${word[1]}`));
      const how = HOW.exec(message);
      if (how) {
        const unit = this.#unit(ownerBefore(message, how.index).device);
        if (unit) unit.access = how[1] as Access;
        return unit !== undefined;
      }
    }
    const named = NAMED.exec(message);
    if (!named) return false;
    const owner = ownerBefore(message, named.index).device ?? "";
    // Without the words before it (they were kept back, or filtered out) the line stands for itself.
    if (!this.#units.has(owner)) this.#begin(owner, NUMBERS.get(named[1]!) ?? 0, message, at);
    const unit = this.#units.get(owner)!;
    unit.device = /^(?:\(unassigned sid\)|\(none\))$/.test(named[2]!) ? undefined : deviceName(named[2]!);
    unit.stream = number(named[3]);
    const address = /\biova: (0x[0-9a-f]{1,16})/i.exec(message)?.[1];
    if (address !== undefined) unit.address = hexBits(address);
    return true;
  }

  settle(): void {
    for (const unit of [...this.#units.keys()]) this.#done(unit);
  }

  #begin(unit: string, event: number, message: string, at: At): void {
    this.#units.set(unit, {
      event,
      text: shown(message),
      at,
      words: [],
      device: undefined,
      stream: undefined,
      address: undefined,
      access: undefined,
    });
  }

  #unit(name: string | undefined): Gathering<At> | undefined {
    if (name !== undefined && this.#units.has(name)) return this.#units.get(name);
    return this.#units.size === 1 ? [...this.#units.values()][0] : undefined;
  }

  #word(name: string | undefined, word: bigint): boolean {
    const unit = this.#unit(name);
    if (!unit || unit.words.length >= WORDS) return false;
    unit.words.push(word);
    return true;
  }

  #done(name: string): void {
    const unit = this.#units.get(name);
    if (!unit) return;
    this.#units.delete(name);
    const [first, second, third] = unit.words;
    const event = first === undefined ? unit.event : Number(first & 0xffn) || unit.event;
    const [label, meaning] = EVENTS[event] ?? [`event 0x${event.toString(16)}`, "an event that is not known here"];
    const read = second === undefined ? undefined : (second & READ_BIT) !== 0n;
    this.#emit({
      kind: "fault",
      unit: "smmu-v3",
      unitName: name === "" ? undefined : name,
      device: unit.device,
      stream: unit.stream ?? (first === undefined ? undefined : Number(first >> 32n)),
      address: WITH_ADDRESS.has(event) ? (unit.address ?? third) : undefined,
      access: accessOf(event, unit.access, read),
      reason: `${label}, ${meaning}`,
      reasonCode: event,
      pasid: first !== undefined && (first & HAS_PASID) !== 0n ? Number((first >> 12n) & 0xfffffn) : undefined,
      domain: undefined,
      detached: DETACHED.has(event),
      entry: event === TRANSLATION ? "absent" : undefined,
      permission: event === PERMISSION ? true : event === TRANSLATION ? false : undefined,
      text: unit.text,
      at: unit.at,
    });
  }
}

function accessOf(event: number, said: Access | undefined, read: boolean | undefined): Access {
  if (said !== undefined) return said;
  if (read === undefined || !WITH_ADDRESS.has(event)) return "unknown";
  return read ? "read" : "write";
}
