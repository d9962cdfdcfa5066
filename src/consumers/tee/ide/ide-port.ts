/**
 * A port with IDE, as software finds it: how many streams it can have, and the register block of each.
 *
 * Idea: read once when the port is found. Blocks may have different numbers of address ranges, and then only the leading ones
 * that are alike are used, so that a block's place is a multiplication. Streams that nobody uses get an id that no stream ever
 * has, so that what hardware had there cannot be taken for one that is made later.
 * Specified by: behaviour of Linux 7.2 IDE streams; PCI Express base specification 6.1, 7.9.26.
 */
import {
  ADDRESS_BLOCK_BYTES,
  type AddressRange,
  associationsOf,
  decodeIdeCapability,
  decodeSelectiveControl,
  decodeSelectiveStatus,
  encodeAddresses,
  encodeRequesters,
  encodeSelectiveControl,
  IDE_REGISTER,
  type IdeCapability,
  PLACEHOLDER_STREAM,
  type RequesterRange,
  SELECTIVE_REGISTER,
  type SelectiveControl,
  STREAM_STATE,
  selectiveBlockAt,
} from "../../../layouts/ide/index.ts";
import type { IdeRegisters } from "../../../platform/index.ts";

/** Whose requests and which addresses are on a stream, seen from one port. */
interface PortAssociation {
  readonly requesters: RequesterRange;
  readonly addresses: readonly AddressRange[];
}

const UNUSED: SelectiveControl = {
  enabled: false,
  configurationRequests: false,
  trafficClass: 0,
  isDefault: false,
  teeLimited: false,
  id: PLACEHOLDER_STREAM,
};

/** The streams of one port. */
export class IdePort {
  /** `ssss:bb:dd.f` */
  readonly name: string;
  /** segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** What its IDE capability says, as read when the port was found. */
  readonly capability: IdeCapability;
  /** Selective streams that can be used. */
  readonly streams: number;
  /** Address ranges that each of them has. */
  readonly associations: number;
  /** Ids of streams that were on when the port was found: firmware's. */
  readonly idsInUse: readonly number[];
  readonly #registers: IdeRegisters;
  readonly #used = new Set<number>();

  /** Reads the capability and all register blocks; streams that nobody uses get the id that no stream ever has. */
  constructor(port: { readonly name: string; readonly requester: number; readonly registers: IdeRegisters }) {
    this.name = port.name;
    this.requester = port.requester;
    this.#registers = port.registers;
    this.capability = decodeIdeCapability(port.registers.read32(IDE_REGISTER.capability));
    const { selectiveStreams } = this.capability;
    // Where the first block lies does not depend on how long it is.
    const first = selectiveBlockAt(this.capability.linkClasses, 0, 0) + SELECTIVE_REGISTER.capability;
    this.associations = selectiveStreams === 0 ? 0 : associationsOf(port.registers.read32(first));
    let alike = 0;
    while (
      alike < selectiveStreams &&
      associationsOf(this.#read(alike, SELECTIVE_REGISTER.capability)) === this.associations
    )
      alike++;
    this.streams = alike;
    const ids: number[] = [];
    for (let i = 0; i < alike; i++) {
      const { enabled, id } = decodeSelectiveControl(this.#read(i, SELECTIVE_REGISTER.control));
      if (enabled) {
        ids.push(id);
        this.#used.add(i);
      } else this.#write(i, SELECTIVE_REGISTER.control, encodeSelectiveControl(UNUSED));
    }
    this.idsInUse = ids;
  }

  /** Streams in use, firmware's included. */
  get inUse(): number {
    return this.#used.size;
  }

  /** Takes the lowest stream that is free; -1 if none is. */
  take(): number {
    for (let i = 0; i < this.streams; i++) {
      if (this.#used.has(i)) continue;
      this.#used.add(i);
      return i;
    }
    return -1;
  }

  /** Stream `index` of the port is free again. Turn it off first; the registers stay as they are. */
  give(index: number): void {
    this.#used.delete(index);
  }

  /** Says what is on a stream, and its id; not yet on. Address ranges beyond those that a stream has are left out. */
  associate(index: number, { requesters, addresses }: PortAssociation, control: SelectiveControl): void {
    const [first, second] = encodeRequesters(requesters);
    this.#write(index, SELECTIVE_REGISTER.requesters1, first);
    this.#write(index, SELECTIVE_REGISTER.requesters2, second);
    for (let i = 0; i < this.associations; i++) this.#writeAddresses(index, i, addresses[i]);
    // Early: some devices want the id before the keys.
    this.#write(index, SELECTIVE_REGISTER.control, encodeSelectiveControl({ ...control, enabled: false }));
  }

  /** Turns a stream on, and says whether the port calls it secure. */
  enable(index: number, control: SelectiveControl): boolean {
    this.#write(index, SELECTIVE_REGISTER.control, encodeSelectiveControl({ ...control, enabled: true }));
    return this.isSecure(index);
  }

  /** Turns a stream off; its id and what is on it stay in the registers. */
  disable(index: number, control: SelectiveControl): void {
    this.#write(index, SELECTIVE_REGISTER.control, encodeSelectiveControl({ ...control, enabled: false }));
  }

  /** Nothing is on a stream any more. */
  clear(index: number): void {
    this.#write(index, SELECTIVE_REGISTER.control, encodeSelectiveControl(UNUSED));
    for (let i = 0; i < this.associations; i++) this.#writeAddresses(index, i, undefined);
    this.#write(index, SELECTIVE_REGISTER.requesters2, 0);
    this.#write(index, SELECTIVE_REGISTER.requesters1, 0);
  }

  /** The port says that a stream is secure, now. */
  isSecure(index: number): boolean {
    return decodeSelectiveStatus(this.#read(index, SELECTIVE_REGISTER.status)).state === STREAM_STATE.secure;
  }

  #writeAddresses(index: number, which: number, range: AddressRange | undefined): void {
    const at = SELECTIVE_REGISTER.addresses + which * ADDRESS_BLOCK_BYTES;
    const [low, limitHigh, baseHigh] = encodeAddresses(range);
    // The word with the valid bit is last when a range begins, and first when it ends.
    if (range === undefined) this.#write(index, at, low);
    this.#write(index, at + 4, limitHigh);
    this.#write(index, at + 8, baseHigh);
    if (range !== undefined) this.#write(index, at, low);
  }

  #at(index: number, register: number): number {
    return selectiveBlockAt(this.capability.linkClasses, index, this.associations) + register;
  }

  #read(index: number, register: number): number {
    return this.#registers.read32(this.#at(index, register));
  }

  #write(index: number, register: number, value: number): void {
    this.#registers.write32(this.#at(index, register), value);
  }
}
