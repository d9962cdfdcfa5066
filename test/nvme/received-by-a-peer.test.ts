/**
 * Scenario: an RDMA adapter receives 1 MiB from another machine straight into the memory of a disk, and the host writes it from there to a
 * second disk. No byte crosses RAM: the adapter's page list and the disk's pointers hold addresses of the first disk's BAR.
 */
import { describe, expect, test } from "vitest";
import { Counters, MiB, PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import {
  CompletionQueue,
  type MemoryRegion,
  type PinnedMemory,
  QueuePair,
  RdmaDevice,
} from "../../src/consumers/rdma/index.ts";
import { CMB_BAR, Rnic, Wire } from "../../src/hosts/simulated/index.ts";
import { Frames, SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import { ACS } from "../../src/layouts/pci/index.ts";
import { ALL, Side, START } from "../rdma/stand.ts";
import { type Mode, TestMachine } from "./machine.ts";

async function stand(mode: Mode, processor: { vendor: string; family: number }, redirect: boolean) {
  const bridges = [{ cpu: processor, rootPorts: [{ switch: [{}, {}, {}] }] }];
  const machine = new TestMachine({ mode, bridges });
  const before = machine.machine.snapshot();
  const [a, b] = [machine.plug("0.0.0", { cmbBytes: 64 * MiB }), machine.plug("0.0.1")];
  const wire = new Wire({ clock: machine.clock });
  const nic = new Rnic({ wire, address: 1 });
  const [slot] = machine.machine.plug("0.0.2", nic);
  slot!.setBusMaster(true);
  if (redirect) for (const each of [a.device, b.device, slot!]) each.node.parent!.acsControl = ACS.requestRedirect;
  const [diskA, diskB] = [await machine.open(a), await machine.open(b)];
  const lent = diskA.lendMemory(a.device.node.bars.find(({ index }) => index === CMB_BAR)!)!;
  const limits = { forceBounce: mode === "bounced", maxSegmentSize: MiB };
  const { dma, domain } = machine.host.openDevice(slot!.name, { counters: new Counters(), limits });
  const { pages, memory } = machine.machine;
  const frames = new Frames({ pages, memory });
  const process = new SimulatedProcess(frames);
  // The program has the disk's memory in its address space, as it would have its own.
  const peer = PhysPage.of(lent.vec(2 * MiB, MiB).phys);
  process.memory.map({ address: START, length: MiB, peer, shared: true });
  const device = new RdmaDevice({ adapter: nic, dma, clock: machine.clock });
  const pd = device.allocateDomain();
  const register = (): MemoryRegion => device.register(pd, { process, address: START, length: MiB, access: ALL });
  const sender = new Side(wire, 2, { pages: MiB / PAGE_SIZE });
  const finish = async () => {
    device.close();
    sender.device.close();
    process.exit();
    lent[Symbol.dispose]();
    await machine.run(Promise.all([diskA.close(), diskB.close()]));
    for (const each of [a.domain, b.domain, domain]) each?.destroy();
    for (const { counters } of [a.dma, b.dma, dma]) expect(counters.leavesWritten).toBe(counters.leavesCleared);
    expect(machine.faults).toBe(0);
    expect(machine.machine.leaks(before)).toEqual([]);
  };
  return { machine, a, b, slot: slot!, nic, device, pd, register, sender, diskB, lent, dma, process, finish };
}

type Stand = Awaited<ReturnType<typeof stand>>;

/** The other machine writes 1 MiB by RDMA. */
function receive({ machine, nic, device, pd, sender }: Stand, region: MemoryRegion): Uint8Array {
  const bytes = sender.fill(0, MiB / PAGE_SIZE, 7);
  const local = sender.device.register(sender.pd, {
    process: sender.process,
    address: START,
    length: MiB,
    access: ALL,
  });
  const [queue, other] = [new CompletionQueue(device, 16), new CompletionQueue(sender.device, 16)];
  const own = new QueuePair(device, { domain: pd, sendCompletions: queue });
  const far = new QueuePair(sender.device, { domain: sender.pd, sendCompletions: other });
  own.connect({ peer: 2, peerNumber: far.number });
  far.connect({ peer: nic.port, peerNumber: own.number });
  const pieces = [{ address: START as number, length: MiB, key: local.key }];
  far.send({ work: "write", id: 1, pieces, remoteAddress: START, remoteKey: region.key });
  for (;;) {
    const done = other.poll();
    if (done) {
      expect(done.status).toBe("success");
      break;
    }
    if (!machine.clock.step()) throw new Error("nothing is under way, and the write has not ended");
  }
  for (const each of [own, far, queue, other]) each.free();
  return bytes;
}

/** The adapter receives, the host writes, and the second disk is read back. What it cost the adapter and the second disk. */
async function through(all: Stand) {
  const { machine, b, slot, diskB, lent, dma, register, device } = all;
  const { peers } = machine.host;
  expect(peers.nearest([slot.node, b.device.node])).toBe(lent.provider.owner);
  const before = dma.counters.snapshot();
  const region = register();
  const adapterCost = dma.counters.since(before);
  const bytes = receive(all, region);
  const { segments } = (region.backing as unknown as { memory: PinnedMemory }).memory;
  const onBus = segments.map(({ address }) => address - lent.provider.busAddress(lent.vec(2 * MiB, 0).phys));
  const diskBefore = b.dma.counters.snapshot();
  await machine.run(diskB.write(512, [lent.vec(2 * MiB, MiB)]));
  const diskCost = b.dma.counters.since(diskBefore);
  const atTheEnd = dma.counters.snapshot();
  device.deregister(region.key);
  const adapterEnd = dma.counters.since(atTheEnd);
  const back = machine.scattered(256);
  await machine.run(diskB.read(512, back.vecs));
  expect(Buffer.compare(back.bytes, bytes)).toBe(0);
  back.free();
  return { adapterCost, adapterEnd, diskCost, onBus };
}

/** The page list of 256 entries takes one page, which an IOMMU maps: all that is ever mapped for the adapter. */
const LIST = 1;

for (const mode of ["strict", "lazy", "direct", "bounced"] as const)
  describe(`1 MiB from the network to a disk through another disk's memory, ${mode}`, () => {
    test("below one switch: bus addresses in the adapter's list, no IOMMU entry, nothing to unmap, nothing bounced", async () => {
      const all = await stand(mode, { vendor: "Intel", family: 6 }, false);
      const turned = all.machine.machine.fabric.turnedAround;
      const { adapterCost, adapterEnd, diskCost, onBus } = await through(all);
      expect(onBus).toEqual([0]);
      const list = mode === "strict" || mode === "lazy" ? LIST : 0;
      expect([adapterCost.iovaAllocations, adapterCost.leavesWritten, adapterCost.bouncedBytes]).toEqual([
        list,
        list,
        0,
      ]);
      expect(adapterEnd.leavesCleared).toBe(list);
      expect([diskCost.iovaAllocations, diskCost.leavesWritten, diskCost.mapSyncs, diskCost.bouncedBytes]).toEqual([
        0, 0, 0, 0,
      ]);
      // Written by one and read by the other, and nothing of it by way of the root.
      expect(all.machine.machine.fabric.turnedAround - turned).toBe(512);
      await all.finish();
    });

    test("redirected, no root complex that passes it on: refused before any command", async () => {
      const { machine, b, register, process, diskB, lent, finish } = await stand(
        mode,
        { vendor: "Intel", family: 6 },
        true,
      );
      const { commands } = b.controller;
      expect(register).toThrow(expect.objectContaining({ code: "ERR_DMA_RDMA_MAP" }));
      expect(process.memory.pinned.pages).toBe(0);
      await expect(machine.run(diskB.write(0, [lent.vec(0, PAGE_SIZE)]))).rejects.toMatchObject({ errno: "EINVAL" });
      expect(b.controller.commands).toBe(commands);
      await finish();
    });
  });

for (const mode of ["strict", "lazy"] as const)
  test(`redirected through the host bridge, ${mode}: mapped as device memory, at the specified cost`, async () => {
    const all = await stand(mode, { vendor: "AMD", family: 0x17 }, true);
    const { adapterCost, diskCost } = await through(all);
    expect([diskCost.iovaAllocations, diskCost.leavesWritten, diskCost.mapSyncs]).toEqual([8, 256, 8]);
    expect(diskCost.rangeInvalidations).toBe(mode === "strict" ? 8 : 0);
    expect([adapterCost.iovaAllocations - LIST, adapterCost.mapSyncs - LIST]).toEqual([1, 1]);
    expect(adapterCost.leavesWritten - LIST).toBeLessThanOrEqual(256);
    await all.finish();
  });
