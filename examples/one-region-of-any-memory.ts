/** One RDMA region over RAM, a huge page, a peer below the same switch and one behind the bridge: all is read by one key. */

import { PhysPage } from "dmalink";
import { UserAddr } from "dmalink/process";
import { ACCESS } from "dmalink/rdma";
import { DmaEngine } from "dmalink/sim";
import { START, talkingMachines } from "./hosts/talking-machines.ts";

const { a, b, run } = talkingMachines();
const PAGE = 4096;

// 2 pages of RAM, 2 of each peer's BAR, and 2 MiB in one huge page: 518 pages of four kinds, one behind the other.
const huge = UserAddr(START + 2 ** 21);
const start = huge - 6 * PAGE;
const length = 518 * PAGE;
const { memory } = a.process;
memory.map({ address: UserAddr(start), length: 2 * PAGE });
for (const [i, slot] of ["0.0.1", "0.1"].entries()) {
  const [{ node }] = a.host.plug(slot, new DmaEngine({ memoryBytes: 65_536 })) as [typeof a.pci];
  a.host.peers.add(node, node.bars[0]!);
  const address = UserAddr(start + (2 + 2 * i) * PAGE);
  memory.map({ address, length: 2 * PAGE, shared: true, peer: PhysPage.of(node.bars[0]!.phys) });
}
memory.map({ address: huge, length: 2 ** 21, hugetlb: true });
for (let page = 0; page < 518; page++) memory.write(UserAddr(start + page * PAGE), new Uint8Array(PAGE).fill(page));

const { process } = a;
const region = a.device.register(a.domain, { process, address: start, length, access: ACCESS.remoteRead });
const counters = a.device.dma!.counters;
console.log(`${length / PAGE} pages under one key, ${region.backing.listBytes} bytes of page list`);

// The other machine reads it all.
b.process.memory.map({ address: START, length });
const into = { process: b.process, address: START, length, access: ACCESS.localWrite };
const local = b.device.register(b.domain, into);
const pieces = [{ address: START, length, key: local.key }];
const { status } = run(b, { work: "read", id: 1, pieces, remoteAddress: region.virt, remoteKey: region.key });
const seen = new Uint8Array(length);
b.process.memory.read(START, seen);
if (status !== "success" || !seen.every((byte, i) => byte === (Math.floor(i / PAGE) & 0xff)))
  throw new Error("not what was expected");
console.log("read whole by the other machine; the near peer's pages are in no IOMMU entry");

a.device.deregister(region.key);
if (a.process.memory.pinned.pages !== 0 || counters.iovaFrees === 0) throw new Error("something is left");
