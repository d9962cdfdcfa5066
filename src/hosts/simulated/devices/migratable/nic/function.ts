/**
 * A virtual function of the network card: what a guest drives, and what moves when the guest does.
 *
 * It receives packets, each into the next page of a ring in memory, counts them by flow in memory of its own, writes to a peer's inbox
 * and takes what peers write to its own. Two parts can be suspended, what it begins and what it answers; while they are, packets
 * are dropped, as on any network, and what peers write is *lost*, which must not happen: it is counted.
 * Promises: with both parts suspended nothing of it changes; image after image gives the same function elsewhere.
 */
import { type DmaAddr, PAGE_SIZE } from "../../../../../base/index.ts";
import {
  NIC_BEGIN_ANEW,
  NIC_FUNCTION_REGISTER,
  NIC_INBOX,
  NIC_INBOX_BYTES,
  NIC_PART,
} from "../../../../../layouts/nic/index.ts";
import { type BarModel, type DeviceModel, type DevicePort, registerTarget } from "../../../device.ts";
import { notPlugged } from "../../../errors.ts";
import { IMAGE_REGISTERS, type Image } from "./image.ts";
import type { WriteLog } from "./write-log.ts";

const REGISTER = NIC_FUNCTION_REGISTER;
const BAR_BYTES = 8192;
/** Flows are counted in pages after the inbox, which is page 0. */
const FIRST_FLOW_PAGE = 1;

/** A virtual function: a guest drives it, and it moves with the guest. */
export class NicFunction implements DeviceModel {
  readonly vendorId = 0x1234;
  readonly deviceId = 0x0003;
  /** An Ethernet controller. */
  readonly classCode = 0x02_0000;
  readonly vectors = 1;
  readonly bars: readonly BarModel[];
  /** The inbox, and counters of flows. */
  readonly memory: Uint8Array;
  /** Bits of NIC_PART. */
  suspended = 0;
  /** Where it logs its writes; undefined: nowhere. */
  log: WriteLog | undefined;
  /** Packets that came while it could not take them. */
  dropped = 0;
  /** Writes of peers that came while it did not answer. */
  lostPeerWrites = 0;
  /** How often it was told to begin anew, by its guest or by a reset. */
  anew = 0;
  /** Pages of {@link memory} that changed since the last image. */
  readonly changed: Set<number> = new Set();
  /** Registers changed since the last image. */
  isTouched = false;
  #control = 0;
  #ring = 0;
  #ringPages = 0;
  #received = 0;
  #peer = 0;
  #port: DevicePort | undefined;

  /** `memoryPages`: pages of {@link memory}, 2 or more. */
  constructor(memoryPages: number) {
    this.memory = new Uint8Array(memoryPages * PAGE_SIZE);
    const registers = registerTarget({
      read32: (offset) => this.#read(offset),
      write32: (offset, value) => this.#write(offset, value),
    });
    const inbox = this.memory.subarray(0, NIC_INBOX_BYTES);
    const target = {
      read(offset: number, into: Uint8Array): void {
        if (offset >= NIC_INBOX) into.set(inbox.subarray(offset - NIC_INBOX, offset - NIC_INBOX + into.length));
        else registers.read(offset, into);
      },
      write: (offset: number, from: Uint8Array): void => {
        if (offset >= NIC_INBOX) this.#takeFromPeer(offset - NIC_INBOX, from);
        else if ((this.suspended & NIC_PART.RESPONDER) === 0) registers.write(offset, from);
      },
    };
    this.bars = [{ index: 0, length: BAR_BYTES, target }];
  }

  /** Pages of {@link memory}. */
  get memoryPages(): number {
    return this.memory.length / PAGE_SIZE;
  }

  /** Packets received. */
  get received(): number {
    return this.#received;
  }

  plugged(port: DevicePort): void {
    this.#port = port;
  }

  /** Function-level reset. What moved it forgets: its log is lost, its image is another's. */
  reset(): void {
    this.suspended = 0;
    if (this.log) this.log.isLost = true;
    this.#beginAnew();
  }

  /** A packet of up to a page comes from the network. False: it was dropped, or memory refused it. */
  receive(packet: Uint8Array): boolean {
    if ((this.#control & 1) === 0 || this.#ringPages === 0 || (this.suspended & NIC_PART.INITIATOR) !== 0) {
      this.dropped++;
      return false;
    }
    const address = this.#ring + (this.#received % this.#ringPages) * PAGE_SIZE;
    if (!this.#dmaWrite(address, packet.subarray(0, PAGE_SIZE))) return false;
    this.#count(packet);
    this.#received++;
    this.isTouched = true;
    return true;
  }

  /** Writes to the peer that its guest named. False: it is suspended, has no peer, or the bus refused. */
  sendToPeer(bytes: Uint8Array): boolean {
    if (this.#peer === 0 || (this.suspended & NIC_PART.INITIATOR) !== 0) return false;
    return this.#plugged.write(this.#peer as DmaAddr, bytes);
  }

  /** What an image has of it, besides pages. */
  registers(): Uint32Array {
    const words = new Uint32Array(IMAGE_REGISTERS);
    const pairs = [this.#ring, this.#received, this.#peer];
    words.set([this.#control, this.#ringPages, this.anew]);
    pairs.forEach((value, i) => {
      words.set([value % 2 ** 32, Math.floor(value / 2 ** 32)], 3 + i * 2);
    });
    return words;
  }

  /** Becomes what a row of images says, the last one's registers and every page's last content. */
  become(registers: Uint32Array, memory: Uint8Array): void {
    const pair = (i: number): number => registers[3 + i * 2]! + registers[4 + i * 2]! * 2 ** 32;
    [this.#control, this.#ringPages, this.anew] = [registers[0]!, registers[1]!, registers[2]!];
    [this.#ring, this.#received, this.#peer] = [pair(0), pair(1), pair(2)];
    this.memory.set(memory);
    this.#markAll();
  }

  /** The next image has every page. */
  #markAll(): void {
    for (let page = 0; page < this.memoryPages; page++) this.changed.add(page);
    this.isTouched = true;
  }

  /** Pages for an image, as they are now; from here on changes count anew. */
  takePages(isFull: boolean): Image["pages"] {
    if (isFull) this.#markAll();
    const pages = [...this.changed]
      .sort((a, b) => a - b)
      .map((index) => ({ index, bytes: this.memory.slice(index * PAGE_SIZE, (index + 1) * PAGE_SIZE) }));
    this.changed.clear();
    this.isTouched = false;
    return pages;
  }

  #beginAnew(): void {
    this.#control = 0;
    this.#ring = 0;
    this.#ringPages = 0;
    this.#received = 0;
    this.#peer = 0;
    this.memory.fill(0);
    this.anew++;
    this.#markAll();
  }

  #read(offset: number): number {
    switch (offset) {
      case REGISTER.CONTROL:
        return this.#control;
      case REGISTER.RING_LOW:
        return this.#ring % 2 ** 32;
      case REGISTER.RING_HIGH:
        return Math.floor(this.#ring / 2 ** 32);
      case REGISTER.RING_PAGES:
        return this.#ringPages;
      case REGISTER.RECEIVED_LOW:
        return this.#received % 2 ** 32;
      case REGISTER.RECEIVED_HIGH:
        return Math.floor(this.#received / 2 ** 32);
      case REGISTER.PEER_LOW:
        return this.#peer % 2 ** 32;
      case REGISTER.PEER_HIGH:
        return Math.floor(this.#peer / 2 ** 32);
      default:
        return 0;
    }
  }

  #write(offset: number, value: number): void {
    const low = (before: number): number => Math.floor(before / 2 ** 32) * 2 ** 32 + value;
    // Addresses have 52 bits here.
    const high = (before: number): number => (before % 2 ** 32) + (value & 0xf_ffff) * 2 ** 32;
    this.isTouched = true;
    if (offset === REGISTER.CONTROL) {
      if (value === NIC_BEGIN_ANEW) this.#beginAnew();
      else this.#control = value & 1;
    } else if (offset === REGISTER.RING_LOW) this.#ring = low(this.#ring);
    else if (offset === REGISTER.RING_HIGH) this.#ring = high(this.#ring);
    else if (offset === REGISTER.RING_PAGES) this.#ringPages = value;
    else if (offset === REGISTER.PEER_LOW) this.#peer = low(this.#peer);
    else if (offset === REGISTER.PEER_HIGH) this.#peer = high(this.#peer);
  }

  /** A peer, or the CPU, writes to the inbox. */
  #takeFromPeer(offset: number, from: Uint8Array): void {
    if ((this.suspended & NIC_PART.RESPONDER) !== 0) {
      this.lostPeerWrites++;
      return;
    }
    this.memory.set(from.subarray(0, NIC_INBOX_BYTES - offset), offset);
    this.changed.add(0);
  }

  /** By DMA, and into the log. */
  #dmaWrite(address: number, bytes: Uint8Array): boolean {
    if (!this.#plugged.write(address as DmaAddr, bytes)) return false;
    this.log?.note(address, bytes.length);
    return true;
  }

  /** The flow of a packet is known by its first bytes. */
  #count(packet: Uint8Array): void {
    const flows = (this.memory.length - FIRST_FLOW_PAGE * PAGE_SIZE) / 4;
    const flow = Math.imul((packet[0] ?? 0) | ((packet[1] ?? 0) << 8) | ((packet[2] ?? 0) << 16), 0x9e3779b1) >>> 0;
    const at = FIRST_FLOW_PAGE * PAGE_SIZE + (flow % flows) * 4;
    const view = new DataView(this.memory.buffer);
    view.setUint32(at, view.getUint32(at, true) + packet.length, true);
    this.changed.add(Math.floor(at / PAGE_SIZE));
  }

  get #plugged(): DevicePort {
    if (!this.#port) throw notPlugged();
    return this.#port;
  }
}
