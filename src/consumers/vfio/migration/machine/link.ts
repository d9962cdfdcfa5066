/**
 * The stream of bytes between the two machines of a move, and the frames that they exchange on it.
 *
 * Any stream will do: a pipe, a socket, two queues in memory. Nobody waits for ever: when one side closes, reads and writes
 * of the other end with an error.
 */
import { DmaError } from "../../../../base/index.ts";
import { linkEnded, otherRefused, outOfPlace } from "./errors.ts";
import { FRAME, type Frame, FrameReader, FrameWriter } from "./frames.ts";

/** Bytes there and back. One that may hang for ever needs a time limit of its own. */
export interface ByteLink {
  /** Resolves when there is room for more. Rejects when the other side is gone, or does not read any more. */
  send(bytes: Uint8Array): Promise<void>;
  /** The next bytes, however many; undefined, or rejected: the other side has gone. */
  receive(): Promise<Uint8Array | undefined>;
  /** Ends it in both directions; what was sent still arrives. A second time does nothing. */
  close(): void;
}

/** The conversation: frames there and back. */
export class FrameLink {
  readonly #link: ByteLink;
  readonly #writer = new FrameWriter();
  readonly #reader = new FrameReader();
  readonly #waiting: Frame[] = [];
  #bytesSent = 0;

  constructor(link: ByteLink) {
    this.#link = link;
  }

  /** Bytes that went out, headers and checksums with them. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** @throws DmaError ERR_DMA_MOVE_LINK (ENOTCONN) (rejects) */
  async send(type: number, place = 0, payload: Uint8Array = new Uint8Array(0)): Promise<void> {
    const bytes = this.#writer.encode({ type, place, payload });
    try {
      await this.#link.send(bytes);
    } catch (cause) {
      throw await this.#whyGone(cause);
    }
    this.#bytesSent += bytes.length;
  }

  /**
   * The next frame.
   *
   * @throws DmaError ERR_DMA_MOVE_LINK (ENOTCONN), ERR_DMA_MOVE_FRAME (EBADMSG), ERR_DMA_MOVE_REFUSED (ECANCELED) (rejects)
   */
  async receive(): Promise<Frame> {
    for (;;) {
      const frame = this.#waiting.shift();
      if (frame?.type === FRAME.REFUSED) throw otherRefused(new TextDecoder().decode(frame.payload));
      if (frame) return frame;
      const bytes = await this.#link.receive().catch(() => undefined); // cut off, whatever the reason
      if (bytes === undefined)
        throw linkEnded(this.#reader.isBetweenFrames ? "between two frames" : "in the middle of a frame");
      this.#waiting.push(...this.#reader.push(bytes));
    }
  }

  /** The next frame, which must be of `type`. @throws as {@link receive}; ERR_DMA_MOVE_PROTOCOL (EBADMSG) */
  async expect(type: number): Promise<Frame> {
    const frame = await this.receive();
    if (frame.type !== type) throw outOfPlace(`frame of type ${frame.type} instead of ${type}`);
    return frame;
  }

  /** Tells the other side why this one gives up, if it still listens. */
  async refuse(why: unknown): Promise<void> {
    const text = why instanceof Error ? why.message : String(why);
    try {
      await this.send(FRAME.REFUSED, 0, new TextEncoder().encode(text.slice(0, 1000)));
    } catch {
      // It is gone: then it knows.
    }
  }

  close(): void {
    this.#link.close();
  }

  /** Who goes says why, if it can: that may have come meanwhile. */
  async #whyGone(cause: unknown): Promise<unknown> {
    try {
      for (;;) await this.receive();
    } catch (error) {
      if (error instanceof DmaError && error.code === "ERR_DMA_MOVE_REFUSED") return error;
    }
    const error = linkEnded("while it was being sent to");
    error.cause = cause;
    return error;
  }
}
