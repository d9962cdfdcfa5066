/**
 * SMMUv2's lines, and those of the drivers that share its registers (Qualcomm's): context faults and global ones.
 *
 * Idea: one line holds the registers; their bits say what happened, and the decoded lines that newer kernels print behind it say the
 * same again, so they are taken and only the stream is kept from them.
 * Specified by: Arm SMMU architecture version 2 (FSR, FSYNR0, CBFRSYNRA, GFSR); the lines of Linux 3.13 to 7.2.
 */
import { type Access, type FactSink, type IommuFault, type MessageReader, shown } from "./facts.ts";
import { field, hexBits, number, ownerBefore } from "./names.ts";

const CONTEXT = "Unhandled context fault: ";
const DECODED = /(?:^|\s)(?:FSR {4}= [0-9a-f]{8} \[|FSYNR0 = [0-9a-f]{8} \[)/i;
const STREAM = /\bSID=(0x[0-9a-f]{1,8})/i;
const GLOBAL = /Unexpected (?:(?:invalid|global) )?(?:context|global) fault, this could be serious/;
const GLOBAL_REGISTERS =
  /GFSR (0x[0-9a-f]{1,8}), GFSYNR0 (0x[0-9a-f]{1,8}), GFSYNR1 (0x[0-9a-f]{1,8}), GFSYNR2 (0x[0-9a-f]{1,8})/i;
const BLOCKED = /Blocked unknown Stream ID (0x[0-9a-f]{1,8})/i;

/** FSR, by bit. Source: SMMU_CBn_FSR. */
const STATUS: readonly (readonly [number, string])[] = [
  [1, "translation fault: nothing is mapped there"],
  [2, "access flag fault: the entry's access flag is clear"],
  [3, "permission fault: the entry does not allow it"],
  [4, "external fault: a table could not be read"],
  [5, "TLB conflict: two entries match"],
  [6, "TLB lock fault"],
  [7, "address size fault: the address is too wide"],
  [8, "unsupported upstream transaction"],
];
const TRANSLATION_BIT = 1;
const PERMISSION_BIT = 3;
/** FSYNR0, GFSYNR0: write, not read. */
const WRITE = 1 << 4;
const GLOBAL_WRITE = 1 << 1;

export class SmmuV2Reader<At> implements MessageReader<At> {
  readonly #emit: FactSink<At>;
  #open: { -readonly [Key in keyof IommuFault<At>]: IommuFault<At>[Key] } | undefined;

  constructor(emit: FactSink<At>) {
    this.#emit = emit;
  }

  read(message: string, at: At): boolean {
    const context = message.indexOf(CONTEXT);
    if (context >= 0) {
      this.settle();
      this.#context(message, context, at);
      return true;
    }
    const global = GLOBAL_REGISTERS.exec(message);
    if (global) {
      this.settle();
      this.#global(message, global, at);
      return true;
    }
    if (DECODED.test(message)) {
      const stream = number(STREAM.exec(message)?.[1]);
      if (this.#open && stream !== undefined) this.#open.stream = stream;
      return true;
    }
    const blocked = BLOCKED.exec(message);
    if (blocked) {
      this.settle();
      this.#open = this.#fault(message, blocked.index, at);
      this.#open.stream = number(blocked[1]);
      this.#open.detached = true;
      this.#open.reason = "no entry for the device's stream: the unit blocks what is not attached";
      return true;
    }
    // The head of a global fault: its registers are on the next line.
    return GLOBAL.test(message);
  }

  settle(): void {
    const open = this.#open;
    this.#open = undefined;
    if (open) this.#emit(open);
  }

  #context(message: string, from: number, at: At): void {
    const registers = message.slice(from + CONTEXT.length);
    const fault = this.#fault(message, from, at);
    const address = field(registers, "iova");
    fault.address = address === undefined ? undefined : hexBits(address);
    const status = number(field(registers, "fsr"));
    const syndrome = number(field(registers, "fsynr"));
    if (syndrome !== undefined) fault.access = (syndrome & WRITE) !== 0 ? "write" : "read";
    const stream = number(field(registers, "cbfrsynra"));
    if (stream !== undefined) fault.stream = stream & 0xffff;
    if (status !== undefined) Object.assign(fault, reasonOf(status));
    this.#open = fault;
  }

  #global(message: string, [, status, syndrome0, syndrome1]: RegExpExecArray, at: At): void {
    const fault = this.#fault(message, message.indexOf("GFSR"), at);
    const bits = number(status)!;
    fault.reasonCode = bits;
    fault.access = (number(syndrome0)! & GLOBAL_WRITE) !== 0 ? "write" : "read";
    fault.stream = number(syndrome1)! & 0xffff;
    fault.detached = (bits & 3) !== 0;
    fault.reason =
      (bits & 2) !== 0
        ? "no entry for the device's stream: it is attached to nothing"
        : (bits & 1) !== 0
          ? "the stream's entry names a context that is not valid"
          : "a global fault of the unit";
    this.#open = fault;
  }

  #fault(message: string, ownerEnd: number, at: At): { -readonly [Key in keyof IommuFault<At>]: IommuFault<At>[Key] } {
    const access: Access = "unknown";
    return {
      kind: "fault",
      unit: "smmu-v2",
      unitName: ownerBefore(message, ownerEnd).device,
      device: undefined,
      stream: undefined,
      address: undefined,
      access,
      reason: "the registers are not printed",
      reasonCode: undefined,
      pasid: undefined,
      domain: undefined,
      entry: undefined,
      detached: false,
      permission: undefined,
      text: shown(message),
      at,
    };
  }
}

function reasonOf(status: number): Pick<IommuFault<never>, "reason" | "reasonCode" | "entry" | "permission"> {
  const set = STATUS.filter(([bit]) => (status & (1 << bit)) !== 0);
  const absent = (status & (1 << TRANSLATION_BIT)) !== 0;
  const permission = (status & (1 << PERMISSION_BIT)) !== 0;
  return {
    reasonCode: status,
    reason: set.length === 0 ? "no known cause is set" : set.map(([, words]) => words).join("; "),
    entry: absent ? "absent" : undefined,
    permission: absent ? false : permission ? true : undefined,
  };
}
