/**
 * The wire between two ports: everything that crosses it can be seen, and changed, by whoever has the board.
 *
 * Idea: bytes cross as packets of a secure stream, sealed at one end and opened at the other, or as they are. A *tap* sees what
 * really is on the wire; an *interposer* may change it. A packet that does not open is lost, and its stream with it.
 * Not for: time, order, link streams: packets are there at once, and only selective streams are made.
 */
import type { IdeEnd, PacketKind, SealedPacket } from "./ide-end.ts";

/** What a tap sees. */
export interface WireSight {
  /** Requester of the port that sent it. */
  readonly from: number;
  /** Requester of the port that it is for. */
  readonly to: number;
  /** What kind of request it is. */
  readonly kind: PacketKind;
  /** Its T bit. */
  readonly trusted: boolean;
  /** The stream it is sealed for; undefined: it is as it is. */
  readonly stream: number | undefined;
  /** As they are on the wire. A view: not to be kept. */
  readonly bytes: Uint8Array;
}

/** A port of the wire: with IDE or without. */
export interface WirePort {
  readonly requester: number;
  readonly ide: IdeEnd | undefined;
}

/** All wires of a machine. */
export class Wire {
  /** Sees everything that crosses a wire. */
  onSight: ((sight: WireSight) => void) | undefined;
  /** May change a packet on its way: returns the one that arrives. */
  interposer: ((packet: SealedPacket) => SealedPacket) | undefined;
  /** Packets that crossed sealed. */
  sealed = 0;
  /** Packets that crossed as they are. */
  plain = 0;

  /**
   * Takes `bytes` from one port to another, on `stream` or as they are. What arrives; undefined if the stream is not secure,
   * or does not pass it.
   */
  cross(
    from: WirePort,
    to: WirePort,
    packet: { readonly kind: PacketKind; readonly trusted: boolean; readonly stream: number | undefined },
    bytes: Uint8Array,
  ): Uint8Array | undefined {
    const { kind, trusted, stream } = packet;
    if (stream === undefined) {
      this.plain++;
      this.#see(from, to, packet, bytes);
      return bytes;
    }
    const sealed = from.ide?.seal(stream, kind, trusted, bytes);
    if (!sealed) return undefined;
    this.sealed++;
    const arrived = this.interposer?.(sealed) ?? sealed;
    this.#see(from, to, packet, arrived.bytes);
    return to.ide?.open(arrived);
  }

  #see(
    from: WirePort,
    to: WirePort,
    {
      kind,
      trusted,
      stream,
    }: { readonly kind: PacketKind; readonly trusted: boolean; readonly stream: number | undefined },
    bytes: Uint8Array,
  ): void {
    this.onSight?.({ from: from.requester, to: to.requester, kind, trusted, stream, bytes });
  }
}
