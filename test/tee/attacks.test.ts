/**
 * Hosts, devices and boards that attack. For each: what the attacker gets, and what the guest sees.
 *
 * Private memory of the guest holds a mark that is nowhere else; a watcher on the wire and a look over all memory that the host
 * can read say whether it got out.
 */
import { describe, expect, test } from "vitest";
import { DmaAddr, PhysAddr, PhysPage } from "../../src/base/index.ts";
import { Nvme } from "../../src/consumers/nvme/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import type { Carrier, SealedPacket } from "../../src/hosts/simulated/tee/index.ts";
import { SELECTIVE_REGISTER, selectiveBlockAt } from "../../src/layouts/ide/index.ts";
import {
  decodeObject,
  encodeObject,
  encodeSpdmRequest,
  OBJECT_TYPE,
  PCI_SIG,
  PROTOCOL,
} from "../../src/layouts/spdm/index.ts";
import { encodeRequest, functionId, type TdiState } from "../../src/layouts/tdisp/index.ts";
import type { TrustLoss } from "../../src/platform/index.ts";
import { alike, refusal, Stand } from "./stand.ts";

const MARK = new TextEncoder().encode("nobody outside may read this");

const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
const holdsMark = (bytes: Uint8Array): boolean => bufferOf(bytes).includes(bufferOf(MARK));

/** A guest with a device inside its trust that can reach one private page, and a watch over everything that may not hold it. */
async function inside(options: Parameters<Stand["engine"]>[1] = {}) {
  const stand = new Stand();
  const seen: string[] = [];
  stand.tee.wire.onSight = ({ bytes, trusted, stream }) => {
    if (holdsMark(bytes)) seen.push(`on the wire, T=${Number(trusted)}, stream ${stream}`);
  };
  const assigned = await stand.engine("0.0", options);
  const losses: TrustLoss[] = [];
  assigned.device.onLost((why) => losses.push(why));
  await stand.run(assigned.device.start(stand.policy));
  const door = assigned.device.openDma();
  const buffer = stand.buffer(4096);
  for (let at = 0; at + MARK.length <= 4096; at += 32) buffer.bytes.set(MARK, at);
  const mapping = door.map(buffer.phys, 4096, "bidirectional");
  const leaks = (): string[] => [...seen, ...markInSharedMemory(stand)];
  return { stand, ...assigned, losses, door, buffer, mapping, leaks };
}

/** Where the host's CPU can read the mark. */
function markInSharedMemory({ tee }: Stand): string[] {
  const found: string[] = [];
  const page = new Uint8Array(4096);
  for (const [number, { isPrivate }] of tee.pages.entries())
    if (!isPrivate) {
      tee.machine.memory.read(PhysPage.start(number), page);
      if (holdsMark(page)) found.push(`in shared page ${number}`);
    }
  return found;
}

/** The device reaches nothing private any more; what was mapped can be given back; and it can come back in. */
async function recovers(
  { stand, device, fn, engine, mapping, losses, leaks, buffer }: Awaited<ReturnType<typeof inside>>,
  left: TdiState = "configUnlocked",
): Promise<void> {
  const into = new Uint8Array(64);
  expect(engine.read(mapping.address, into)).toBe(false);
  expect(engine.read(DmaAddr(buffer.phys), into)).toBe(false);
  expect(into.every((byte) => byte === 0)).toBe(true);
  expect(device.trust).toBe("lost");
  expect(losses).toHaveLength(1);
  expect(await refusal(() => device.openDma())).toEqual(["ERR_DMA_TEE_LOST", "EIO"]);
  mapping.unmap(); // without the device, and without an error
  await stand.run(device.stop());
  expect([device.trust, fn.interface.state]).toEqual(["none", left]);
  expect(leaks()).toEqual([]);
}

const startsAgain = async ({ stand, device, engine, buffer }: Awaited<ReturnType<typeof inside>>): Promise<void> => {
  await stand.run(device.start(stand.policy));
  using mapping = device.openDma().map(buffer.phys, 4096, "to-device");
  const into = new Uint8Array(MARK.length);
  expect([engine.read(mapping.address, into), alike(into, MARK)]).toEqual([true, true]);
};

describe("a host", () => {
  test("that reads private memory gets nothing, by its CPU or by a device without the T bit", async () => {
    const { stand, buffer, leaks } = await inside();
    const into = new Uint8Array(4096);
    expect([stand.tee.hostRead(buffer.phys, into), into.every((byte) => byte === 0xff)]).toEqual([false, true]);
    const other = new DmaEngine();
    stand.plug("0.1", [other]);
    expect(other.read(DmaAddr(buffer.phys), into)).toBe(false);
    expect(other.write(DmaAddr(buffer.phys), new Uint8Array(16))).toBe(false);
    expect(stand.tee.gate.refused.map(({ rule, reason, trusted }) => [rule, reason, trusted])).toEqual([
      [4, "private", false],
      [4, "private", false],
    ]);
    expect([alike(buffer.bytes.subarray(0, MARK.length), MARK), leaks()]).toEqual([true, []]);
  });

  test.each<[string, (given: Awaited<ReturnType<typeof inside>>) => unknown]>([
    ["moves a BAR", ({ fn }) => fn.pci.writeConfig(0x10, 4, 0x4000_0000)],
    ["moves the upper half of a BAR", ({ fn }) => fn.pci.writeConfig(0x14, 4, 0x300)],
    ["puts a BAR over RAM", ({ fn }) => fn.pci.writeConfig(0x14, 4, 0)],
    ["switches bus mastering off", ({ fn }) => fn.pci.setBusMaster(false)],
    ["switches memory decoding off", ({ fn }) => fn.pci.writeConfig(0x04, 2, 4)],
    ["rewrites the MSI-X table", ({ fn }) => fn.writeMsixTable()],
    ["switches virtual functions on", ({ fn }) => fn.enableVirtualFunctions(4)],
    ["switches the stream off at the device", ({ fn }) => fn.device.ide.write32(controlOf(0), 0)],
    ["switches the stream off at the root port", ({ stand }) => rootIde(stand).write32(controlOf(0), 0)],
    ["changes what is on the stream", ({ stand }) => rootIde(stand).write32(controlOf(0) + 12, 0)],
    ["resets the device", ({ fn }) => fn.pci.reset()],
    ["unbinds it", ({ stand, fn }) => stand.run(stand.files.core.unbind(fn))],
    ["disconnects it", ({ stand, fn }) => stand.run(stand.files.core.disconnect(fn, "tsm0"))],
    ["takes its security manager away", ({ stand }) => stand.run(stand.files.core.unregister(stand.manager!))],
  ])("that %s ends the trust, and gets nothing", async (_, attack) => {
    const given = await inside();
    await attack(given);
    await recovers(given);
  });

  test("that resets the device in RUN and starts transfers of its own finds it outside, and scrubbed", async () => {
    const given = await inside({ memoryBytes: 4096 });
    given.engine.write(given.mapping.address, MARK);
    given.fn.pci.bar(0)!.write32(0, 0x5ec2e7); // by the guest's way, in RUN: see below
    await given.fn.pci.reset();
    expect(given.fn.interface.state).toBe("configUnlocked");
    expect(
      [...(given.fn.pci.model.bars[0]!.target as unknown as { bytes: Uint8Array }).bytes].some((byte) => byte !== 0),
    ).toBe(false);
    await recovers(given);
    await startsAgain(given);
  });

  test("that moved a BAR back again does not get the trust back", async () => {
    const given = await inside();
    const low = given.fn.pci.readConfig(0x10, 4);
    given.fn.pci.writeConfig(0x10, 4, 0x4000_0000);
    given.fn.pci.writeConfig(0x10, 4, low);
    expect(given.fn.interface.state).toBe("error");
    await recovers(given);
    await startsAgain(given);
  });

  test("that binds the device to a second guest is refused, and the first keeps it", async () => {
    const given = await inside();
    const second = given.stand.tee.startGuest();
    expect(await refusal(given.stand.run(given.stand.files.core.bind(given.fn, second, 1)))).toEqual([
      "ERR_DMA_TSM_BOUND",
      "EBUSY",
    ]);
    expect(given.device.trust).toBe("run");
  });

  test("that asks to debug is refused, whatever the device would say", async () => {
    const { stand, fn } = await inside();
    for (const scope of [2, 3]) {
      const request = { scope, request: new Uint8Array(4), responseBytes: 64 };
      expect(await refusal(stand.run(stand.files.core.guestRequest(fn, request)))).toEqual([
        "ERR_DMA_TSM_SCOPE",
        "EINVAL",
      ]);
    }
  });

  test("that takes a private page back gets zeros, and the guest's device no page of another owner", async () => {
    const { stand, buffer, engine, mapping, device } = await inside();
    stand.tee.pages.takeBack(PhysPage.of(buffer.phys), 1);
    const into = new Uint8Array(4096);
    expect([stand.tee.hostRead(buffer.phys, into), into.every((byte) => byte === 0)]).toEqual([true, true]);
    expect(engine.read(mapping.address, into)).toBe(false);
    expect(stand.tee.gate.refused.at(-1)).toMatchObject({ rule: 4, reason: "owner", trusted: true });
    expect(device.trust).toBe("run");
  });
});

const controlOf = (index: number): number => selectiveBlockAt(0, index, 2) + SELECTIVE_REGISTER.control;
const rootIde = ({ tee }: Stand) => tee.functions.find(({ kind, ide }) => kind === "root-port" && ide)!.ide!;

describe("a host in the middle of the mailbox", () => {
  /** Objects that carried TDISP or keys: sealed ones. */
  const record =
    (objects: Uint8Array[]): Carrier =>
    (object, way) => {
      if (way === "to-device") objects.push(object.slice());
      return object;
    };

  test("sees neither nonces nor keys: what matters is sealed, and looks different each time", async () => {
    const stand = new Stand();
    const { device, fn } = await stand.engine();
    const objects: Uint8Array[] = [];
    fn.mailbox!.carrier = record(objects);
    const nonces: Uint8Array[] = [];
    const lock = fn.interface.lock.bind(fn.interface);
    fn.interface.lock = (parameters) => {
      const answer = lock(parameters);
      if ("nonce" in answer) nonces.push(answer.nonce);
      return answer;
    };
    for (let i = 0; i < 2; i++) {
      await stand.run(device.start(stand.policy));
      await stand.run(device.stop());
    }
    expect(nonces).toHaveLength(2);
    const sealed = objects.filter((object) => decodeObject(object)!.type === OBJECT_TYPE.securedSpdm);
    expect(sealed.length).toBe(objects.length);
    for (const object of sealed)
      for (const nonce of nonces) expect(bufferOf(object).includes(bufferOf(nonce))).toBe(false);
    expect(new Set(sealed.map((object) => object.join())).size).toBe(sealed.length);
  });

  test("that repeats what was said before changes nothing", async () => {
    const given = await inside();
    const { fn, stand, device } = given;
    const objects: Uint8Array[] = [];
    fn.mailbox!.carrier = record(objects);
    await stand.run(device.check());
    given.mapping.unmap();
    await stand.run(device.stop());
    await stand.run(device.start(stand.policy));
    fn.mailbox!.carrier = undefined;
    const { state } = fn.interface;
    const answers: (number | undefined)[] = [];
    for (const object of objects) answers.push(decodeObject(await stand.run(fn.mailbox!.exchange(object)))?.type);
    // Not even an answer in the session: STOP and START of before included.
    expect(new Set(answers)).toEqual(new Set([OBJECT_TYPE.spdm]));
    expect([fn.interface.state, state, fn.device.responder.ignored]).toEqual(["run", "run", objects.length]);
    await stand.run(device.check());
    expect(device.trust).toBe("run");
  });

  test("that says TDISP in the clear, or begins a session of its own, is ignored while a function is locked", async () => {
    const { fn, stand, device } = await inside();
    const say = (payload: Uint8Array): Promise<Uint8Array> =>
      stand.run(fn.mailbox!.exchange(encodeObject({ vendor: PCI_SIG, type: OBJECT_TYPE.spdm, payload })));
    const stop = encodeRequest(functionId(fn.requester), { type: "stopInterface" });
    await say(encodeSpdmRequest({ type: "vendorDefined", protocol: PROTOCOL.tdisp, message: stop }));
    const own = stand.tee.keys.pair(stand.tee.random.fork("host"));
    const exchange = {
      type: "keyExchange",
      slot: 0,
      sessionId: 1,
      random: new Uint8Array(32),
      exchange: own.publicKey,
    } as const;
    const answer = decodeObject(await say(encodeSpdmRequest(exchange)))!;
    expect(answer.payload[2]).toBe(0x0a); // no more sessions
    expect(fn.interface.state).toBe("run");
    await stand.run(device.check());
    expect(device.trust).toBe("run");
  });

  test.each<[string, Carrier]>([
    ["changes a byte on the way there", (object, way) => (way === "to-device" ? flipped(object) : object)],
    ["changes a byte on the way back", (object, way) => (way === "from-device" ? flipped(object) : object)],
    ["loses the answer", (object, way) => (way === "from-device" ? undefined : object)],
    ["answers itself, in the clear", (object, way) => (way === "from-device" ? inTheClear(object) : object)],
  ])("that %s ends the trust: the manager cannot tell what the device does", async (_, carrier) => {
    const given = await inside();
    given.fn.mailbox!.carrier = carrier;
    await given.stand.run(given.device.check());
    // STOP does not get through: the stream is cut at the other end, and the device stays in ERROR until it is reset.
    await recovers(given, "error");
    given.fn.mailbox!.carrier = undefined;
    const { files } = given.stand;
    await given.stand.run(files.core.disconnect(given.fn, "tsm0"));
    await given.fn.pci.reset();
    await given.stand.bind(given.fn);
    await startsAgain(given);
  });

  test.each<[string, Carrier]>([
    ["gives another chain of certificates", (object, way) => (way === "from-device" ? flipped(object) : object)],
    ["gives keys of its own", (object) => (object.length > 60 ? flipped(object) : object)],
  ])("that %s while the device is connected is not believed", async (_, carrier) => {
    const stand = new Stand();
    const device = stand.plug("0.0", [new DmaEngine()]);
    device.mailbox.carrier = carrier;
    expect(await refusal(stand.connect(device.manager))).not.toBe("none");
    expect([stand.tee.firmware.sessions, stand.files.core.securedFunctions]).toEqual([0, 0]);
    device.mailbox.carrier = undefined;
    await stand.connect(device.manager);
  });
});

const flipped = (object: Uint8Array): Uint8Array =>
  object.map((byte, i) => (i === object.length - 5 ? byte ^ 4 : byte));
const inTheClear = (object: Uint8Array): Uint8Array =>
  encodeObject({ vendor: PCI_SIG, type: OBJECT_TYPE.spdm, payload: object.slice(8) });

describe("a board", () => {
  test("that listens sees sealed bytes of everything inside the trust", async () => {
    const { engine, mapping, leaks, stand } = await inside();
    const { sealed, plain } = stand.tee.wire;
    engine.read(mapping.address, new Uint8Array(4096));
    engine.write(mapping.address, MARK);
    expect([leaks(), stand.tee.wire.plain - plain]).toEqual([[], 0]);
    expect(stand.tee.wire.sealed).toBeGreaterThan(sealed);
  });

  test.each<[string, (packet: SealedPacket) => SealedPacket]>([
    ["changes a byte", (packet) => ({ ...packet, bytes: packet.bytes.map((byte) => byte ^ 1) })],
    ["clears the T bit", (packet) => ({ ...packet, trusted: false })],
  ])("that %s loses the stream and gets nothing; nothing is written", async (_, interposer) => {
    const given = await inside();
    const before = given.buffer.bytes.slice();
    given.stand.tee.wire.interposer = interposer;
    given.engine.write(given.mapping.address, new Uint8Array(64).fill(7));
    given.stand.tee.wire.interposer = undefined;
    expect(alike(given.buffer.bytes, before)).toBe(true);
    expect(given.losses).toEqual(["stream"]);
    await recovers(given);
  });

  test("that repeats a packet loses the stream", async () => {
    const given = await inside();
    let kept: SealedPacket | undefined;
    given.stand.tee.wire.interposer = (packet) => {
      kept ??= packet;
      return kept;
    };
    given.engine.write(given.mapping.address, new Uint8Array(64).fill(7));
    given.engine.write(given.mapping.address, new Uint8Array(64).fill(8));
    given.stand.tee.wire.interposer = undefined;
    expect(given.losses).toEqual(["stream"]);
    await recovers(given);
  });

  test("that sends requests of its own in the device's name reaches shared memory only, and with the T bit ends the trust", async () => {
    const given = await inside();
    const { gate } = given.stand.tee;
    expect(gate.inject(given.fn.node, given.buffer.phys, "read", false)).toBe("private");
    expect(given.device.trust).toBe("run");
    expect(gate.inject(given.fn.node, given.buffer.phys, "read", true)).toBe("stream");
    expect(gate.refused.at(-1)).toMatchObject({ rule: 3, trusted: true });
    await recovers(given);
  });

  test("whose stream runs out of keys loses the trust within one request; with new ones in time it does not", async () => {
    const given = await inside({ ide: { packetsPerKey: 40 } });
    const read = (): boolean => given.engine.read(given.mapping.address, new Uint8Array(16));
    for (let i = 0; i < 200; i++) {
      if (i % 30 === 29) await given.stand.run(given.stand.driver.refreshKeys(given.fn));
      expect(read()).toBe(true);
    }
    expect(given.device.trust).toBe("run");
    for (let i = 0; i < 100 && given.device.trust === "run"; i++) read();
    expect(given.losses).toEqual(["stream"]);
    await recovers(given);
  });

  test("from which the device is pulled out takes nothing along, and the guest gives everything back", async () => {
    const given = await inside();
    await given.stand.unplug(given.fn.device);
    expect(given.losses).toEqual(["gone"]);
    given.mapping.unmap();
    await given.stand.run(given.device.stop());
    expect([given.device.trust, given.leaks()]).toEqual(["none", []]);
    given.buffer.free();
    expect(await given.stand.tearDown()).toEqual([]);
  });
});

describe("a device", () => {
  test("outside the trust has no T bit, whatever address it is given: private memory is refused and counted", async () => {
    const stand = new Stand();
    const { engine } = await stand.engine();
    const buffer = stand.buffer(4096, 7);
    expect(engine.read(DmaAddr(buffer.phys), new Uint8Array(16))).toBe(false);
    expect(engine.write(DmaAddr(buffer.phys), new Uint8Array(16))).toBe(false);
    const { rejected, passed, refused } = stand.tee.gate;
    expect([rejected, passed.trusted, refused.map(({ rule }) => rule)]).toEqual([{ plain: 2, trusted: 0 }, 0, [4, 4]]);
    expect(buffer.bytes.every((byte) => byte === 7)).toBe(true);
  });

  test("that is locked and not running has none either", async () => {
    const stand = new Stand();
    const { engine, fn } = await stand.engine();
    await stand.run(stand.tee.interfaceOf(fn)!.lock());
    expect(fn.interface.state).toBe("configLocked");
    expect(engine.read(DmaAddr(stand.buffer(4096).phys), new Uint8Array(16))).toBe(false);
    expect(stand.tee.gate.passed.trusted).toBe(0);
  });

  test("whose other function is rogue reaches nothing that the first one may: the T bit is a function's own", async () => {
    const stand = new Stand();
    const [first, rogue] = [new DmaEngine(), new DmaEngine()];
    const made = stand.plug("0.0", [first, rogue]);
    await stand.bind(made.functions[0]!);
    const { device } = stand.assigned(made.functions[0]!);
    await stand.run(device.start(stand.policy));
    const buffer = stand.buffer(4096, 7);
    using mapping = device.openDma().map(buffer.phys, 4096, "bidirectional");
    expect(first.read(mapping.address, new Uint8Array(16))).toBe(true);
    expect(rogue.read(mapping.address, new Uint8Array(16))).toBe(false);
    expect(rogue.write(DmaAddr(buffer.phys), new Uint8Array(16))).toBe(false);
    expect([buffer.bytes.every((byte) => byte === 7), device.trust]).toEqual([true, "run"]);
    // And a rogue function's reset is not the other's.
    await made.functions[1]!.pci.reset();
    expect(made.functions[0]!.interface.state).toBe("run");
  });

  test("of another guest reaches nothing of this one, and its tables are not asked", async () => {
    const { stand, buffer, mapping } = await inside();
    const other = stand.tee.startGuest();
    const software = stand.softwareOf(other);
    const engine = new DmaEngine();
    const made = stand.plug("0.1", [engine]);
    await stand.bind(made.manager, other);
    const { device } = stand.assigned(made.manager, other, software);
    await stand.run(device.start(stand.policy));
    // Even if its own guest's table points there.
    const door = device.openDma();
    door.domain!.map(5 as never, PhysPage.of(buffer.phys), 1, 3);
    expect(engine.read(DmaAddr(5 * 4096), new Uint8Array(16))).toBe(false);
    expect(stand.tee.gate.refused.at(-1)).toMatchObject({ rule: 4, reason: "owner", trusted: true });
    expect(engine.read(mapping.address, new Uint8Array(16))).toBe(false);
    door.domain!.unmapNow(5 as never, 1);
  });

  test("that asks for what nobody mapped ends its trust: doubt is enough", async () => {
    const given = await inside();
    expect(given.engine.read(DmaAddr(given.mapping.address + 4096), new Uint8Array(16))).toBe(false);
    expect(given.losses).toEqual(["fault"]);
    await recovers(given);
    await startsAgain(given);
  });

  test("that ignores STOP reaches nothing afterwards: it has no T bit any more", async () => {
    const given = await inside();
    given.engine.obeysReset = false;
    given.mapping.unmap();
    given.engine.run([
      { do: "wait", ms: 5 },
      { do: "gather", segments: [{ address: given.mapping.address, length: 64 }] },
      { do: "gather", segments: [{ address: DmaAddr(given.buffer.phys), length: 64 }] },
    ]);
    await given.stand.run(given.device.stop());
    given.stand.tee.machine.clock.advance(10);
    expect(given.engine.results.map(({ ok }) => ok)).toEqual([false, false]);
    expect(given.leaks()).toEqual([]);
  });
});

test("a driver whose disk loses its trust under load is told by its requests, and everything is given back", async () => {
  const stand = new Stand();
  const disk = await stand.disk();
  const { device, fn, pci } = disk;
  const { clock } = stand.tee.machine;
  await stand.run(device.start(stand.policy));
  const nvme = await stand.run(Nvme.open(pci, device.openDma(), { clock, timeoutMs: 50, retries: 0 }));
  const buffer = stand.buffer(65_536, 1);
  const reads = Array.from({ length: 8 }, (_, i) =>
    nvme.read(i * 8, [{ phys: PhysAddr(buffer.phys + i * 8192), length: 4096 }]),
  );
  fn.pci.writeConfig(0x10, 4, 0x4000_0000);
  expect(device.trust).toBe("lost");
  const outcomes = await stand.run(Promise.allSettled(reads));
  expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
  await stand.run(nvme.close());
  await stand.run(device.stop());
  const again = await stand.run(device.start(stand.policy)).then(
    () => "in",
    (error: { code: string }) => error.code,
  );
  expect(again).toBe("in"); // the BAR is where the host says: the guest sees the same
  await stand.run(device.stop());
  buffer.free();
  expect(await stand.tearDown()).toEqual([]);
});

test("what a door of before would have mapped is never bounced for a device inside", async () => {
  const stand = new Stand();
  const { device } = await stand.engine();
  const legacy: Dma = device.openDma();
  const buffer = stand.buffer(4096, 3);
  const early = legacy.map(buffer.phys, 4096, "to-device");
  expect(await refusal(stand.run(device.start(stand.policy)))).toEqual(["ERR_DMA_TEE_LIVE", "EBUSY"]);
  early.unmap();
  await stand.run(device.start(stand.policy));
  const before = stand.guest.counters.bouncedBytes;
  const refused = ["ERR_DMA_TEE_CONTRACT", "EPERM"];
  const list = [{ phys: buffer.phys, length: 4096 }];
  expect(await refusal(() => legacy.map(buffer.phys, 4096, "to-device"))).toEqual(refused);
  expect(await refusal(() => legacy.mapScatterlist(list, "to-device"))).toEqual(refused);
  expect(await refusal(() => legacy.mapVecs(list, "to-device"))).toEqual(refused);
  expect(await refusal(() => legacy.mapLinear(list, "to-device"))).toEqual(refused);
  expect(await refusal(() => legacy.allocCoherent(4096))).toEqual(refused);
  expect(await refusal(() => legacy.tryReserveIova({ length: 4096 }))).toEqual(refused);
  expect(await refusal(() => legacy.batch("to-device", { maxBytes: 4096 }))).toEqual(refused);
  expect(stand.guest.counters.bouncedBytes).toBe(before);
});
