/** Requests from device to device: inside the trust only where both run and are bound to each other, and never across its edge. */
import { describe, expect, test } from "vitest";
import { DmaAddr, PhysAddr } from "../../src/base/index.ts";
import { type Assigned, refusal, Stand } from "./stand.ts";

const NOT_BOUND = ["ERR_DMA_TEE_PEER", "EPERM"];
const ACS_REDIRECT = 0x0c;

/** Two devices of one guest below a switch, connected and bound to the guest; the second lends its memory. */
async function below(acsControl = 0) {
  const stand = new Stand({ bridges: [{ rootPorts: [{ switch: [{ acsControl }, { acsControl }, {}] }] }] });
  const secrets: string[] = [];
  stand.tee.wire.onSight = ({ bytes, trusted, stream }) => {
    if (bytes.length === 64 && bytes.every((byte) => byte === 0x5e)) secrets.push(`T=${Number(trusted)}, ${stream}`);
  };
  const gpu = await stand.engine("0.0.0");
  const disk = await stand.engine("0.0.1");
  const bar = disk.fn.node.bars[0]!;
  stand.guest.peers.add(disk.fn.node, bar);
  const memory = (disk.fn.pci.model.bars[0]!.target as unknown as { bytes: Uint8Array }).bytes;
  const vec = [{ phys: PhysAddr(bar.phys), length: 4096 }];
  const read = (address = DmaAddr(bar.busAddress)): boolean => gpu.engine.read(address, new Uint8Array(64));
  const start = async (...devices: Assigned[]): Promise<void> => {
    for (const { device } of devices) await stand.run(device.start(stand.policy));
    memory.fill(0x5e); // secrets of the guest, from here on
  };
  return { stand, gpu, disk, vec, bar, read, start, secrets, memory };
}

/** The same, with a stream between them, both inside, and bound to each other. */
async function bound() {
  const all = await below();
  const { stand, gpu, disk, start } = all;
  const stream = await stand.run(stand.driver.connectPeers(gpu.fn, disk.fn));
  await start(gpu, disk);
  await stand.run(gpu.device.bindPeer(disk.device));
  return { ...all, stream };
}

describe("a device that reads private memory of a peer", () => {
  test("is refused by the contract and by the hardware while they are not bound", async () => {
    const { gpu, disk, vec, read, start, stand, secrets } = await below();
    await start(gpu, disk);
    const door = gpu.device.openDma();
    expect(await refusal(() => door.mapVecs(vec, "to-device"))).toEqual(NOT_BOUND);
    expect(await refusal(() => door.mapScatterlist(vec, "to-device"))).toEqual(NOT_BOUND);
    expect(read()).toBe(false);
    expect(stand.tee.gate.refused.at(-1)).toMatchObject({ rule: 12, reason: "stream", trusted: true });
    expect(secrets).toEqual([]);
  });

  test("reaches it by the bus, sealed for their own stream, once both are bound", async () => {
    const { gpu, vec, read, stand, secrets } = await bound();
    using mapping = gpu.device.openDma().mapVecs(vec, "to-device");
    expect(mapping.vecs).toMatchObject([{ bus: true, length: 4096 }]);
    const { sealed } = stand.tee.wire;
    const into = new Uint8Array(64);
    expect(gpu.engine.read(mapping.vecs[0]!.address, into)).toBe(true);
    expect(into.every((byte) => byte === 0x5e)).toBe(true);
    expect([read(), secrets, stand.tee.wire.sealed - sealed]).toEqual([true, [], 4]);
    expect(gpu.device.live.tableEntries).toBe(0); // no entry, no copy
    expect(stand.guest.counters.bouncedBytes).toBe(0);
  });

  test.each<["gpu" | "disk"]>([["gpu"], ["disk"]])("is refused again once the %s is outside", async (which) => {
    const all = await bound();
    const { gpu, disk, vec, read, stand, secrets } = all;
    await stand.run(all[which].device.stop());
    expect(read()).toBe(false);
    // Its memory is shared again, and nobody said so.
    if (which === "disk")
      expect(await refusal(() => gpu.device.openDma().mapVecs(vec, "to-device"))).toEqual([
        "ERR_DMA_SHARING",
        "EINVAL",
      ]);
    expect(secrets).toEqual([]);
    // Inside again is not bound again.
    await stand.run(all[which].device.start(stand.policy));
    expect([read(), gpu.device.reachesPeer(disk.device)]).toEqual([false, false]);
  });

  test("is refused from the moment their stream is lost, and both have lost their trust", async () => {
    const { gpu, disk, read, stream, secrets } = await bound();
    stream.release();
    expect([read(), gpu.device.trust, disk.device.trust, secrets]).toEqual([false, "lost", "lost", []]);
  });

  test("is refused where access control sends it up to the root: there is no stream of theirs", async () => {
    const { gpu, disk, read, start, stand, secrets } = await below(ACS_REDIRECT);
    await stand.run(stand.driver.connectPeers(gpu.fn, disk.fn));
    await start(gpu, disk);
    await stand.run(gpu.device.bindPeer(disk.device));
    expect([read(), secrets]).toEqual([false, []]);
  });
});

describe("across the edge of the trust nothing passes", () => {
  test("from a device outside to private memory of one inside", async () => {
    const { gpu, disk, vec, read, start, stand, secrets } = await below();
    await start(disk);
    expect(await refusal(() => gpu.device.openDma().map(vec[0]!.phys, 4096, "to-device", { mmio: true }))).toEqual([
      "ERR_DMA_TEE_PEER",
      "EPERM",
    ]);
    expect(read()).toBe(false);
    expect(stand.tee.gate.refused.at(-1)).toMatchObject({ rule: 12, trusted: false });
    expect(secrets).toEqual([]);
  });

  test("from a device inside to memory of one outside, with the T bit or without, whatever is said of it", async () => {
    const { gpu, bar, vec, start, stand, memory } = await below();
    await start(gpu);
    memory.fill(0);
    const door = gpu.device.openDma();
    for (const attributes of [undefined, { shared: true }, { mmio: true }, { mmio: true, shared: true }])
      expect((await refusal(() => door.mapVecs(vec, "from-device", attributes)))[0]).toMatch(
        /ERR_DMA_(TEE_PEER|SHARING)/,
      );
    const secret = new Uint8Array(64).fill(0x5e);
    expect(gpu.engine.write(DmaAddr(bar.busAddress), secret)).toBe(false);
    expect(gpu.engine.write(DmaAddr(bar.busAddress + 2 ** 51), secret)).toBe(false);
    expect(stand.tee.gate.refused.slice(-2).map(({ rule, trusted }) => [rule, trusted])).toEqual([
      [12, true],
      [12, false],
    ]);
    expect(memory.includes(0x5e)).toBe(false);
  });

  test("between devices outside it passes as on any machine", async () => {
    const { gpu, read, stand, vec } = await below();
    using mapping = gpu.device.openDma().mapVecs(vec, "to-device", { shared: true });
    expect([mapping.vecs.length, read(), stand.tee.gate.refused]).toEqual([1, true, []]);
  });
});

describe("binding", () => {
  test("needs both inside, and a stream that the host made", async () => {
    const { gpu, disk, stand, start } = await below();
    expect(await refusal(stand.run(gpu.device.bindPeer(disk.device)))).toEqual(["ERR_DMA_TEE_TRUST", "EBUSY"]);
    await start(gpu, disk);
    expect(await refusal(stand.run(gpu.device.bindPeer(disk.device)))).toEqual(["ERR_DMA_SIM_TEE_PEER", "EINVAL"]);
  });

  test("twice is refused, and takes nothing away", async () => {
    const { gpu, disk, stand, read } = await bound();
    expect((await refusal(stand.run(gpu.device.bindPeer(disk.device))))[0]).toBe("ERR_DMA_SIM_TDISP");
    expect(read()).toBe(true);
  });

  test("of devices of two guests reaches nothing", async () => {
    const { stand, gpu, disk, bar, secrets } = await bound();
    const other = stand.tee.startGuest();
    const software = stand.softwareOf(other);
    // The host takes the disk away and gives it to another guest.
    await stand.run(stand.files.core.unbind(disk.fn));
    await stand.bind(disk.fn, other);
    const { device } = stand.assigned(disk.fn, other, software);
    await stand.run(device.start(stand.policy));
    expect(gpu.engine.read(DmaAddr(bar.busAddress), new Uint8Array(64))).toBe(false);
    expect(secrets).toEqual([]);
  });
});
