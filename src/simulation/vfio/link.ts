/** A link in memory between the two hosts of a move, which may be cut. */
import type { ByteLink } from "../../consumers/vfio/index.ts";

/** One direction: what was sent and not read yet. */
class Pipe {
  readonly #chunks: Uint8Array[] = [];
  #waiting: ((bytes: Uint8Array | undefined) => void) | undefined;
  #isClosed = false;

  send(bytes: Uint8Array): boolean {
    if (this.#isClosed) return false;
    const copy = bytes.slice();
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) waiting(copy);
    else this.#chunks.push(copy);
    return true;
  }

  receive(): Promise<Uint8Array | undefined> {
    const chunk = this.#chunks.shift();
    if (chunk || this.#isClosed) return Promise.resolve(chunk);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#waiting?.(undefined);
    this.#waiting = undefined;
  }
}

/**
 * Both ends. The first sends `cutAfterBytes` and is cut then (0: never); `sending` is called before each of its frames, for what
 * happens meanwhile.
 */
export function linkPair(cutAfterBytes: number, sending: () => void): [near: ByteLink, far: ByteLink] {
  const [there, back] = [new Pipe(), new Pipe()];
  let sent = 0;
  const close = (): void => {
    there.close();
    back.close();
  };
  const send = async (pipe: Pipe, bytes: Uint8Array): Promise<void> => {
    if (!pipe.send(bytes)) throw new Error("the link is cut");
  };
  return [
    {
      async send(bytes) {
        sending();
        sent += bytes.length;
        if (cutAfterBytes > 0 && sent > cutAfterBytes) close();
        await send(there, bytes);
      },
      receive: () => back.receive(),
      close,
    },
    { send: (bytes) => send(back, bytes), receive: () => there.receive(), close },
  ];
}
