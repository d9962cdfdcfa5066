/** A guest moves to another machine while its network card works; the same once more over a link that breaks. */
import { type Duplex, duplexPair } from "node:stream";
import { MiB } from "dmalink";
import { type ByteLink, MoveSource, MoveTarget } from "dmalink/vfio";
import { movableGuest } from "./hosts/movable-guest.ts";

/** A stream of Node's (a pipe, a socket) as a link; `sent` hears of every frame. */
function linkOf(stream: Duplex, sent: (bytes: number) => void = () => {}): ByteLink {
  const chunks = stream[Symbol.asyncIterator]();
  stream.on("error", () => {});
  return {
    async send(bytes) {
      sent(bytes.length);
      await new Promise<void>((resolve, reject) => {
        stream.write(bytes, (error) => (error ? reject(error) : resolve()));
      });
    },
    receive: async () => (await chunks.next()).value,
    close: () => void stream.end(),
  };
}

for (const breaksAfter of [Number.POSITIVE_INFINITY, MiB]) {
  const [here, there] = [movableGuest(16 * MiB), movableGuest(16 * MiB)];
  here.start();
  for (let page = 0; page < 1024; page++) here.machine.ram.write(page * 3, new Uint8Array(4096).fill((page % 251) + 1));

  const [near, far] = duplexPair();
  let bytes = 0;
  let packets = 0;
  const link = linkOf(near, (length) => {
    bytes += length;
    here.clock.advance(length / MiB); // 1 GB/s; meanwhile the card receives
    here.card.receive(new Uint8Array(1500).fill(++packets));
    if (bytes > breaksAfter) near.end();
  });
  const source = new MoveSource(here.machine, link, {
    pause: async () => here.clock.advance(0.01),
    stopBelowBytes: 65_536,
  });
  const [outcome, arrival] = await Promise.all([source.run(), new MoveTarget(there.machine, linkOf(far)).run()]);

  const { rounds, pages, zeroPages, deviceBytes, pagesAfterStop } = source.counts;
  console.log(
    `${outcome.outcome}, over there ${arrival.outcome}: ${rounds} rounds, ${pages} pages and ${zeroPages} of zeros`,
  );
  if (outcome.outcome === "moved") {
    console.log(
      `  after the stop ${pagesAfterStop} pages; ${deviceBytes} bytes of the device; ${here.card.received} packets`,
    );
    if (here.checksum() !== there.checksum()) throw new Error("what arrived is not what stopped");
    if (!there.card.receive(new Uint8Array([1]))) throw new Error("the card does not work over there");
  } else {
    if (!here.card.receive(new Uint8Array([1]))) throw new Error("the card does not work here any more");
    console.log(`  the guest works on here: ${here.card.received} packets`);
  }
}
