/** Two machines on a wire that loses packets: write, read, send, and a counter that both use; memory comes when it is needed. */

import { UserAddr } from "dmalink/process";
import { ACCESS } from "dmalink/rdma";
import { START, talkingMachines } from "./hosts/talking-machines.ts";

const { a, b, wire, run } = talkingMachines({ seed: 4, lost: 20, late: 20 });
const length = 2 ** 18;
const access = ACCESS.localWrite | ACCESS.remoteWrite | ACCESS.remoteRead | ACCESS.remoteAtomic | ACCESS.onDemand;
const [here, there] = [a, b].map(({ device, domain, process }) => {
  process.memory.map({ address: START, length: 2 * length });
  return device.register(domain, { process, address: START, length: 2 * length, access });
});
const pieces = [{ address: START, length, key: here!.key }];
const remote = { remoteAddress: START as number, remoteKey: there!.key };

// A writes to B, and reads it back to another place.
const message = Uint8Array.from({ length }, (_, i) => (i * 7) & 0xff);
a.process.memory.write(START, message);
run(a, { work: "write", id: 1, pieces, ...remote });
run(a, { work: "read", id: 2, pieces: [{ ...pieces[0]!, address: START + length }], ...remote });
const back = new Uint8Array(length);
a.process.memory.read(UserAddr(START + length), back);
if (!back.every((byte, i) => byte === message[i])) throw new Error("not what was written");

// B waits for a message.
b.pair.receive({ id: 3, pieces: [{ address: START + length, length, key: there!.key }] });
run(a, { work: "send", id: 4, pieces, immediate: 42 });
const got = b.queue.poll();
console.log(`B got ${got?.lengthBytes} bytes, and the number ${got?.immediate}`);

// Eight times one more, though answers get lost.
const counter = { remoteAddress: START + 8 * 512, remoteKey: there!.key };
b.process.memory.write(UserAddr(START + 8 * 512), new Uint8Array(8));
for (let i = 0; i < 8; i++)
  run(a, { work: "fetch-add", id: 5 + i, pieces: [{ ...pieces[0]!, length: 8 }], ...counter, add: 1n });
const count = new Uint8Array(1);
b.process.memory.read(UserAddr(START + 8 * 512), count);

// B's process gives the memory up: the next write asks for a page, and hears that there is none.
b.process.memory.unmap(START, 2 * length);
const end = run(a, { work: "write", id: 99, pieces, ...remote });
console.log(`counted ${count[0]}; ${wire.counts.lost} packets lost; after munmap: ${end.status}`);
if (count[0] !== 8 || end.status !== "remote-access") throw new Error("not what was expected");
