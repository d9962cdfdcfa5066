/** A region on demand of 8 MiB on a machine that has 2: its pages go to swap and come back while another machine writes and reads it. */

import { UserAddr } from "dmalink/process";
import { ACCESS } from "dmalink/rdma";
import { START, talkingMachines } from "./hosts/talking-machines.ts";

const PAGE = 4096;
const pages = 2048;
const { a, b, run } = talkingMachines({}, { limitPages: 512, swapPages: 4096 });
b.process.memory.map({ address: START, length: pages * PAGE });
const access = ACCESS.localWrite | ACCESS.remoteWrite | ACCESS.remoteRead | ACCESS.onDemand;
const far = b.device.register(b.domain, { process: b.process, address: START, length: pages * PAGE, access });

a.process.memory.map({ address: START, length: PAGE });
const local = a.device.register(a.domain, { process: a.process, address: START, length: PAGE, access: 1 });
const pieces = [{ address: START, length: PAGE, key: local.key }];
const transfer = (work: "write" | "read", page: number): void => {
  const { status } = run(a, { work, id: page, pieces, remoteAddress: START + page * PAGE, remoteKey: far.key });
  if (status !== "success") throw new Error(`${work} of page ${page}: ${status}`);
};

// A writes four times as much as B has memory for: whatever goes to swap leaves the adapter's list and the IOMMU first.
const bytes = new Uint8Array(PAGE);
for (let page = 0; page < pages; page++) {
  a.process.memory.write(START, bytes.fill(page % 251));
  transfer("write", page);
}
const { swap } = b.frames;
console.log(`B: ${b.frames.pagesInUse} pages in memory, ${swap!.inUse} in swap`);

// What is there moves to other frames, and a fork makes it common: neither shows in what A reads.
b.process.memory.relocate(UserAddr(START + 1600 * PAGE), 400 * PAGE);
const child = b.process.fork();
for (let page = 0; page < pages; page += 3) {
  transfer("read", page);
  a.process.memory.read(START, bytes);
  if (!bytes.every((byte) => byte === page % 251)) throw new Error(`page ${page} is not what was written`);
}
const { memory } = far.backing as unknown as { memory: { counts: { mapped: number; invalidated: number } } };
const { mapped, invalidated } = memory.counts;
console.log(
  `${swap!.counts.out} pages out, ${swap!.counts.in} in; ${mapped} entries written, ${invalidated} taken away`,
);

b.device.deregister(far.key);
child.exit();
b.process.exit();
if (b.frames.pagesInUse !== 0 || swap!.inUse !== 0) throw new Error("something is left");
