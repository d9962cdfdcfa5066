/**
 * One end of IDE streams: the registers of a port, its keys, and the packets that it seals and opens.
 *
 * Idea: software writes registers, the device's manager brings keys, and only where both agree a stream is secure. A packet
 * that does not open, a key that is used up or replaced while it is in use, or a stream that is switched off makes the stream
 * insecure, and it stays so until it is set up anew: whoever depends on it is told.
 * Promises: an insecure stream passes nothing; registers of streams that are not there read 0.
 * Specified by: PCI Express base specification 6.1, 6.33 and 7.9.26.
 */
import {
  decodeAddresses,
  decodeRequesters,
  decodeSelectiveControl,
  encodeIdeCapability,
  encodeSelectiveStatus,
  IDE_CAPABILITY_ID,
  IDE_REGISTER,
  type IdeCapability,
  KEY_STATUS,
  type KeyMessage,
  type KeyPlace,
  keyLengthFits,
  PLACEHOLDER_STREAM,
  SELECTIVE_REGISTER,
  type SelectiveControl,
  STREAM_STATE,
  selectiveBlockAt,
} from "../../../layouts/ide/index.ts";
import { applyCipher, type CipherKey, cipherKey } from "./link-cipher.ts";

/** Kinds of packets, each with keys and counts of its own. */
export type PacketKind = KeyPlace["kind"];

/** A packet on a secure stream, as the wire shows it. */
export interface SealedPacket {
  /** Id of the stream, 0 to 255. */
  readonly stream: number;
  /** What kind of request it is; each kind has keys of its own. */
  readonly kind: PacketKind;
  /** Which of the two sets of keys it is sealed with. */
  readonly keySet: 0 | 1;
  /** The T bit. The check covers it. */
  readonly trusted: boolean;
  /** The contents, as ciphertext. */
  readonly bytes: Uint8Array;
  /** Over all of it; a packet with another one does not open. */
  readonly check: number;
}

/** Why a stream is not secure any more. */
export type InsecureCause =
  /** A packet did not open: changed, repeated, left out, or sealed with another key. */
  | "integrity"
  /** A key has sealed as many packets as it may. */
  | "key used up"
  /** A key was replaced or taken away while it was in use. */
  | "key replaced"
  /** Software switched it off, or changed what it is. */
  | "switched off"
  /** The other end said that it failed. */
  | "failed at the other end";

/** What the IDE part of a port has. */
export interface IdeEndOptions {
  /** The requester id of the port. */
  readonly requester: number;
  /** Selective streams. Default 4. */
  readonly streams?: number;
  /** Address ranges of each. Default 2. */
  readonly associations?: number;
  /** What its capability register says, where it differs from the defaults: selective streams, with key management. */
  readonly capability?: Partial<IdeCapability>;
  /** Packets that one key may seal; then the stream is insecure unless it has new ones. Default 2^48. */
  readonly packetsPerKey?: number;
  /** Called when a secure stream has become insecure, with its id. Must not throw. */
  readonly onInsecure?: (stream: number, cause: InsecureCause) => void;
}

interface DirectionKeys {
  readonly keys: [CipherKey | undefined, CipherKey | undefined];
  /** Sets that may be used: all that were started, to receive; the one started last, to send. */
  readonly live: [boolean, boolean];
  current: 0 | 1;
  /** Packets so far, by set. */
  readonly counts: [number, number];
}

interface Stream {
  readonly registers: Uint32Array;
  control: SelectiveControl;
  readonly keys: Map<string, DirectionKeys>;
  failed: boolean;
}

const DIRECTIONS = ["receive", "transmit"] as const;
const KINDS: readonly PacketKind[] = ["posted", "non-posted", "completion"];
const keyName = (direction: KeyPlace["direction"], kind: PacketKind): string => `${direction} ${kind}`;

/** The IDE part of one port. */
export class IdeEnd {
  /** Of its port: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** What its IDE capability says (PCI Express base specification 6.0, 7.9.26). */
  readonly capability: IdeCapability;
  /** Told when a stream that was secure is not any more. */
  onInsecure: ((stream: number, cause: InsecureCause) => void) | undefined;
  readonly #associations: number;
  readonly #packetsPerKey: number;
  readonly #streams: Stream[];
  #flowThrough = 0;

  /** No stream is on, and there are no keys. */
  constructor(options: IdeEndOptions) {
    const { streams = 4, associations = 2 } = options;
    this.requester = options.requester;
    this.onInsecure = options.onInsecure;
    this.#associations = associations;
    this.#packetsPerKey = options.packetsPerKey ?? 2 ** 48;
    this.capability = {
      link: false,
      selective: streams > 0,
      flowThrough: false,
      aggregation: false,
      keyManagement: true,
      configurationRequests: false,
      algorithms: 1,
      linkClasses: 0,
      selectiveStreams: streams,
      teeLimited: true,
      ...options.capability,
    };
    this.#streams = Array.from({ length: streams }, () => ({
      registers: new Uint32Array(SELECTIVE_REGISTER.addresses / 4 + 3 * associations),
      control: decodeSelectiveControl(0),
      keys: new Map(),
      failed: false,
    }));
  }

  // Registers, as software sees them.

  /** The 32-bit register at byte `offset` of the IDE capability; 0 where there is none. */
  read32(offset: number): number {
    if (offset === IDE_REGISTER.header) return IDE_CAPABILITY_ID | 0x1_0000;
    if (offset === IDE_REGISTER.capability) return encodeIdeCapability(this.capability);
    if (offset === IDE_REGISTER.control) return this.#flowThrough;
    const place = this.#placeOf(offset);
    if (!place) return 0;
    const { stream, register } = place;
    if (register === SELECTIVE_REGISTER.capability) return this.#associations;
    if (register === SELECTIVE_REGISTER.status)
      return encodeSelectiveStatus(this.#isSecure(stream) ? STREAM_STATE.secure : STREAM_STATE.insecure, stream.failed);
    return stream.registers[register / 4]!;
  }

  /** Writes a register. To change one of a secure stream makes the stream insecure and forgets its keys. */
  write32(offset: number, value: number): void {
    if (offset === IDE_REGISTER.control) this.#flowThrough = value & 4;
    const place = this.#placeOf(offset);
    if (!place) return;
    const { stream, register } = place;
    if (register === SELECTIVE_REGISTER.capability) return;
    if (register === SELECTIVE_REGISTER.status) {
      if (value >>> 31 === 1 && !stream.control.enabled) stream.failed = false; // cleared by writing 1
      return;
    }
    const changed = stream.registers[register / 4] !== value >>> 0;
    const wasSecure = this.#isSecure(stream);
    const { id } = stream.control;
    stream.registers[register / 4] = value;
    if (register === SELECTIVE_REGISTER.control) this.#configure(stream, decodeSelectiveControl(value));
    if (wasSecure && changed) {
      stream.keys.clear();
      this.onInsecure?.(id, "switched off");
    }
  }

  #configure(stream: Stream, control: SelectiveControl): void {
    const { enabled, id } = stream.control;
    stream.control = control;
    if (!control.enabled) stream.failed = false;
    // Keys belong to an id, and to one life of the stream.
    if (control.id !== id || (enabled && !control.enabled)) stream.keys.clear();
  }

  // Keys, as the manager brings them.

  /** Does what a message about keys says; its answer. */
  keyMessage(message: KeyMessage): KeyMessage | undefined {
    switch (message.type) {
      case "query":
        return {
          type: "queryResponse",
          portIndex: message.portIndex,
          requester: this.requester,
          maxPortIndex: 0,
          registers: [this.read32(IDE_REGISTER.header), this.read32(IDE_REGISTER.capability)],
        };
      case "program":
        return { ...placeOf(message), type: "programmed", status: this.#program(message) };
      case "go":
      case "stop": {
        const done = this.#switch(message, message.type === "go");
        return done ? { ...placeOf(message), type: "switched" } : undefined;
      }
      default:
        return undefined;
    }
  }

  #program(message: KeyMessage & { type: "program" }): number {
    if (!keyLengthFits(message)) return KEY_STATUS.incorrectLength;
    if (message.portIndex !== 0) return KEY_STATUS.unsupportedPortIndex;
    const stream = this.#streamOf(message.stream);
    if (!stream) return KEY_STATUS.unsupportedValue;
    const keys = keysAt(stream, message);
    const { keySet } = message;
    if (keys.live[keySet] && this.#isSecure(stream)) {
      this.#lose(stream, "key replaced");
      return KEY_STATUS.unspecifiedFailure;
    }
    keys.keys[keySet] = cipherKey(Uint8Array.of(...message.key, ...message.invocation));
    keys.counts[keySet] = 0;
    keys.live[keySet] = false;
    return KEY_STATUS.success;
  }

  #switch(place: KeyPlace, go: boolean): boolean {
    const stream = this.#streamOf(place.stream);
    const keys = stream && keysAt(stream, place);
    if (!stream || !keys?.keys[place.keySet]) return false;
    const wasSecure = this.#isSecure(stream);
    keys.live[place.keySet] = go;
    if (go) keys.current = place.keySet;
    else {
      keys.keys[place.keySet] = undefined;
      if (wasSecure && !this.#isSecure(stream)) this.#lose(stream, "switched off");
    }
    return true;
  }

  // Packets.

  /** The stream with this id is on, and has all its keys. */
  isSecure(id: number): boolean {
    const stream = this.#streamOf(id);
    return stream !== undefined && this.#isSecure(stream);
  }

  /** The id of the stream for packets to or from `requester`, or for `address` below it; undefined if none is on. */
  streamFor(requester: number, address: number, isDefault: boolean): number | undefined {
    const found = this.#streams.find((stream) => {
      if (!stream.control.enabled) return false;
      if (isDefault) return stream.control.isDefault;
      const [, , , first, second] = stream.registers as unknown as number[];
      const range = decodeRequesters(first!, second!);
      const low = requester & 0xffff;
      const isRequester =
        range !== undefined &&
        range.segment === Math.floor(requester / 65_536) &&
        low >= range.base &&
        low <= range.limit;
      return isRequester || this.#addressesOf(stream).some(({ start, end }) => address >= start && address < end);
    });
    return found?.control.id;
  }

  /** Only requests with the T bit are on this stream. */
  isTeeLimited(id: number): boolean {
    return this.#streamOf(id)?.control.teeLimited ?? false;
  }

  /** Seals `bytes` for the other end; undefined if the stream is not secure. */
  seal(id: number, kind: PacketKind, trusted: boolean, bytes: Uint8Array): SealedPacket | undefined {
    const stream = this.#streamOf(id);
    if (!stream || !this.#isSecure(stream)) return undefined;
    const keys = stream.keys.get(keyName("transmit", kind))!;
    const keySet = keys.current;
    if (keys.counts[keySet] >= this.#packetsPerKey) {
      this.#lose(stream, "key used up");
      return undefined;
    }
    const sealed = bytes.slice();
    const check = applyCipher(keys.keys[keySet]!, keys.counts[keySet]++, headerOf(kind, trusted), sealed, true);
    return { stream: id, kind, keySet, trusted, bytes: sealed, check };
  }

  /** What a packet says; undefined if it does not open, and then its stream is lost. */
  open(packet: SealedPacket): Uint8Array | undefined {
    const stream = this.#streamOf(packet.stream);
    if (!stream || !this.#isSecure(stream)) return undefined;
    const keys = stream.keys.get(keyName("receive", packet.kind))!;
    const { keySet } = packet;
    const key = keys.live[keySet] ? keys.keys[keySet] : undefined;
    const bytes = packet.bytes.slice();
    const header = headerOf(packet.kind, packet.trusted);
    if (!key || applyCipher(key, keys.counts[keySet], header, bytes, false) !== packet.check) {
      this.#lose(stream, "integrity");
      return undefined;
    }
    keys.counts[keySet]++;
    return bytes;
  }

  /** A stream fails: because its other end says so, unless another cause is given. */
  fail(id: number, cause: InsecureCause = "failed at the other end"): void {
    const stream = this.#streamOf(id);
    if (stream && this.#isSecure(stream)) this.#lose(stream, cause);
  }

  /** The port lost its keys: reset, or the session that brought them is over. */
  forgetKeys(cause: InsecureCause = "switched off"): void {
    for (const stream of this.#streams) {
      if (this.#isSecure(stream)) this.#lose(stream, cause);
      stream.keys.clear();
    }
  }

  #lose(stream: Stream, cause: InsecureCause): void {
    stream.failed = true;
    stream.keys.clear();
    this.onInsecure?.(stream.control.id, cause);
  }

  #isSecure(stream: Stream): boolean {
    if (!stream.control.enabled || stream.failed) return false;
    return DIRECTIONS.every((direction) =>
      KINDS.every((kind) => {
        const keys = stream.keys.get(keyName(direction, kind));
        return keys?.live[keys.current] === true;
      }),
    );
  }

  #streamOf(id: number): Stream | undefined {
    return id === PLACEHOLDER_STREAM ? undefined : this.#streams.find(({ control }) => control.id === id);
  }

  #addressesOf({ registers }: Stream): { start: number; end: number }[] {
    return Array.from({ length: this.#associations }, (_, i) => {
      const at = SELECTIVE_REGISTER.addresses / 4 + 3 * i;
      return decodeAddresses(registers[at]!, registers[at + 1]!, registers[at + 2]!);
    }).filter((range) => range !== undefined);
  }

  #placeOf(offset: number): { readonly stream: Stream; readonly register: number } | undefined {
    const first = selectiveBlockAt(this.capability.linkClasses, 0, this.#associations);
    const bytes = selectiveBlockAt(this.capability.linkClasses, 1, this.#associations) - first;
    const stream = this.#streams[Math.floor((offset - first) / bytes)];
    return stream && offset >= first ? { stream, register: (offset - first) % bytes } : undefined;
  }
}

function keysAt(stream: Stream, { direction, kind }: KeyPlace): DirectionKeys {
  const name = keyName(direction, kind);
  let keys = stream.keys.get(name);
  if (!keys) {
    keys = { keys: [undefined, undefined], live: [false, false], current: 0, counts: [0, 0] };
    stream.keys.set(name, keys);
  }
  return keys;
}

const placeOf = ({ stream, portIndex, keySet, direction, kind }: KeyPlace): KeyPlace => ({
  stream,
  portIndex,
  keySet,
  direction,
  kind,
});

const headerOf = (kind: PacketKind, trusted: boolean): number => KINDS.indexOf(kind) * 2 + (trusted ? 1 : 0);
