/**
 * Scenario: a network adapter receives 1 MiB straight into the memory of a disk, and the host writes it from there to a second
 * disk. No byte crosses RAM. The adapter is the machine's DMA engine: where it writes is what it was given by the mapping.
 */
import { describe, expect, test } from "vitest";
import { MiB, PAGE_SIZE } from "../../src/base/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { CMB_BAR, DmaEngine } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { ACS } from "../../src/layouts/pci/index.ts";
import { type Mode, TestMachine } from "./machine.ts";

const ADAPTER_DOMAIN = 100;

async function stand(mode: Mode, processor: { vendor: string; family: number }, redirect: boolean) {
  const bridges = [{ cpu: processor, rootPorts: [{ switch: [{}, {}, {}] }] }];
  const machine = new TestMachine({ mode, bridges });
  const before = machine.machine.snapshot();
  const [a, b] = [machine.plug("0.0.0", { cmbBytes: 64 * MiB }), machine.plug("0.0.1")];
  const adapter = new DmaEngine();
  const [device] = machine.machine.plug("0.0.2", adapter);
  device!.setBusMaster(true);
  if (redirect) for (const each of [a.device, b.device, device!]) each.node.parent!.acsControl = ACS.requestRedirect;
  const [diskA, diskB] = [await machine.open(a), await machine.open(b)];
  const lent = diskA.lendMemory(a.device.node.bars.find(({ index }) => index === CMB_BAR)!)!;
  const domain =
    mode === "strict" || mode === "lazy"
      ? new DmaDomain({
          layout: vtdSecondStage(),
          unit: machine.unit,
          clock: machine.clock,
          mode,
          domainId: ADAPTER_DOMAIN,
        })
      : undefined;
  if (domain) machine.unit.attach(device!.requester, domain.tables);
  const dma = new Dma({
    name: "adapter",
    node: device!.node,
    machine: machine.host.dmaMachine,
    maxSegmentSize: MiB,
    ...(domain && { domain }),
    forceBounce: mode === "bounced",
  });
  const finish = async () => {
    lent[Symbol.dispose]();
    await machine.run(Promise.all([diskA.close(), diskB.close()]));
    for (const each of [a.domain, b.domain, domain]) each?.destroy();
    for (const { counters } of [a.dma, b.dma, dma]) expect(counters.leavesWritten).toBe(counters.leavesCleared);
    expect(machine.machine.leaks(before)).toEqual([]);
  };
  return { machine, a, b, device: device!, adapter, diskB, lent, dma, finish };
}

type Stand = Awaited<ReturnType<typeof stand>>;

/** The adapter receives, the host writes, and the second disk is read back. What it cost the adapter and the second disk. */
async function receive({ machine, b, device, adapter, diskB, lent, dma }: Stand) {
  const { peers } = machine.host;
  expect(peers.nearest([device.node, b.device.node])).toBe(lent.provider.owner);
  const received = machine.machine.random.fork("received");
  const bytes = Uint8Array.from({ length: MiB }, () => received.below(256));
  const [adapterBefore, diskBefore] = [dma.counters.snapshot(), b.dma.counters.snapshot()];
  const region = dma.mapVecs([lent.vec(2 * MiB, MiB)], "from-device");
  const onBus = region.vecs.map(({ address }) => address - lent.provider.busAddress(lent.vec(2 * MiB, 0).phys));
  expect(adapter.scatter(region.vecs, bytes)).toBe(true);
  await machine.run(diskB.write(512, [lent.vec(2 * MiB, MiB)]));
  region.unmap();
  const [adapterCost, diskCost] = [dma.counters.since(adapterBefore), b.dma.counters.since(diskBefore)];
  const back = machine.scattered(256);
  await machine.run(diskB.read(512, back.vecs));
  expect(Buffer.compare(back.bytes, bytes)).toBe(0);
  back.free();
  return { adapterCost, diskCost, onBus };
}

for (const mode of ["strict", "lazy", "direct", "bounced"] as const)
  describe(`1 MiB from the network to a disk through another disk's memory, ${mode}`, () => {
    test("below one switch: bus addresses in the adapter's list, no IOMMU entry, nothing to unmap, nothing bounced", async () => {
      const all = await stand(mode, { vendor: "Intel", family: 6 }, false);
      const turned = all.machine.machine.fabric.turnedAround;
      const { adapterCost, diskCost, onBus } = await receive(all);
      expect(onBus).toEqual([0]);
      for (const cost of [adapterCost, diskCost])
        expect([cost.iovaAllocations, cost.leavesWritten, cost.mapSyncs, cost.bouncedBytes]).toEqual([0, 0, 0, 0]);
      expect(all.machine.machine.fabric.turnedAround - turned).toBe(512); // written by one, read by the other
      await all.finish();
    });

    test("redirected, no root complex that passes it on: refused before any command", async () => {
      const { machine, b, dma, diskB, lent, finish } = await stand(mode, { vendor: "Intel", family: 6 }, true);
      const { commands } = b.controller;
      expect(() => dma.mapVecs([lent.vec(0, MiB)], "from-device")).toThrow(
        expect.objectContaining({ errno: "EREMOTEIO" }),
      );
      await expect(machine.run(diskB.write(0, [lent.vec(0, PAGE_SIZE)]))).rejects.toMatchObject({ errno: "EINVAL" });
      expect(b.controller.commands).toBe(commands);
      await finish();
    });
  });

for (const mode of ["strict", "lazy"] as const)
  test(`redirected through the host bridge, ${mode}: mapped as device memory, at the specified cost`, async () => {
    const all = await stand(mode, { vendor: "AMD", family: 0x17 }, true);
    const { adapterCost, diskCost } = await receive(all);
    expect([diskCost.iovaAllocations, diskCost.leavesWritten, diskCost.mapSyncs]).toEqual([8, 256, 8]);
    expect(diskCost.rangeInvalidations).toBe(mode === "strict" ? 8 : 0);
    expect([adapterCost.iovaAllocations, adapterCost.mapSyncs]).toEqual([1, 1]);
    expect(adapterCost.leavesWritten).toBeLessThanOrEqual(256);
    await all.finish();
  });
