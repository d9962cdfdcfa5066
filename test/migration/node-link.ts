/** A Node stream as a link: a pipe to another process, or a socket. */
import type { Duplex } from "node:stream";
import type { ByteLink } from "../../src/consumers/vfio/index.ts";

export function nodeLink(stream: Duplex): ByteLink {
  const chunks = stream[Symbol.asyncIterator]();
  stream.on("error", () => {}); // whoever sends or receives hears of it
  return {
    send: (bytes) =>
      new Promise((resolve, reject) => {
        stream.write(bytes, (error) => (error ? reject(error) : resolve()));
      }),
    async receive() {
      try {
        const { value, done } = await chunks.next();
        return done ? undefined : (value as Uint8Array);
      } catch {
        return undefined; // cut off: the end, as far as this side can see
      }
    },
    close: () => void stream.end(),
  };
}
