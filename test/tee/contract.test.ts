/** The mapping contract: what a device may be given, by its trust and by the memory; by the table, and by a door of each kind. */
import { describe, expect, test } from "vitest";
import { DmaAddr, PhysAddr, PhysPage } from "../../src/base/index.ts";
import { type ContractAnswer, contractAnswer, type MemoryTerms } from "../../src/consumers/tee/index.ts";
import { Dma, type DmaAttributes } from "../../src/dma/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import { SHARED_BIT } from "../../src/hosts/simulated/tee/index.ts";
import { alike, refusal, Stand } from "./stand.ts";

/** The table of the contract, row by row. */
const TABLE: readonly [trust: "untrusted" | "trusted", memory: MemoryTerms, ContractAnswer][] = [
  ["untrusted", { kind: "ram", page: "private", saysShared: false }, "bounced"],
  ["untrusted", { kind: "ram", page: "private", saysShared: false, requireCoherent: true }, { refused: "EPERM" }],
  ["untrusted", { kind: "ram", page: "private", saysShared: true }, { refused: "EINVAL" }],
  ["untrusted", { kind: "ram", page: "shared", saysShared: true }, "direct, T=0"],
  ["untrusted", { kind: "ram", page: "shared", saysShared: false }, "bounced"],
  ["untrusted", { kind: "mmio", page: "shared", saysShared: true }, "direct, T=0"],
  ["untrusted", { kind: "mmio", page: "shared", saysShared: false }, { refused: "EPERM" }],
  ["untrusted", { kind: "mmio", page: "private", saysShared: false }, { refused: "EPERM" }],
  ["untrusted", { kind: "mmio", page: "private", saysShared: true }, { refused: "EINVAL" }],
  ["trusted", { kind: "ram", page: "private", saysShared: false }, "translated, T=1"],
  ["trusted", { kind: "ram", page: "private", saysShared: true }, { refused: "EINVAL" }],
  ["trusted", { kind: "ram", page: "shared", saysShared: true }, "direct, T=0"],
  ["trusted", { kind: "ram", page: "shared", saysShared: false }, { refused: "EINVAL" }],
  ["trusted", { kind: "mmio", page: "private", saysShared: false }, "peer, T=1, if it is bound"],
  ["trusted", { kind: "mmio", page: "private", saysShared: true }, { refused: "EINVAL" }],
  ["trusted", { kind: "mmio", page: "shared", saysShared: true }, { refused: "EPERM" }],
  ["trusted", { kind: "mmio", page: "shared", saysShared: false }, { refused: "EINVAL" }],
];

/** A device of each trust, pages of each kind, and memory of another device. */
async function world(trust: "untrusted" | "trusted") {
  // A root complex that passes requests between its ports on.
  const cpu = { vendor: "AMD", family: 0x19 };
  const stand = new Stand({ bridges: [{ cpu, rootPorts: [{}, {}, {}] }] });
  const { device, engine, fn } = await stand.engine("0.0");
  const peer = await stand.engine("0.1");
  await stand.run(peer.device.start(stand.policy));
  if (trust === "trusted") await stand.run(device.start(stand.policy));
  const { pages, encryption } = stand.guest;
  const page = (kind: "private" | "shared"): PhysAddr => {
    const first = pages.allocatePages(4)!;
    if (kind === "shared") encryption.convert(first, 4, "shared");
    return PhysPage.start(first);
  };
  const outsider = stand.plug("0.2", [new DmaEngine({ memoryBytes: 4096 })]);
  const memory = {
    ram: { private: page("private"), shared: page("shared") },
    mmio: {
      private: PhysAddr(peer.fn.node.bars[0]!.phys),
      shared: PhysAddr(outsider.manager.node.bars[0]!.phys),
    },
  };
  return { stand, device, engine, fn, peer, door: device.openDma(), memory };
}

describe.each(TABLE)("%s, %j", (trust, terms, answer) => {
  test("is what the table says", () => expect(contractAnswer(trust, terms)).toEqual(answer));

  test("and what a door does", async () => {
    const { stand, door, engine, memory } = await world(trust);
    const { kind, page, saysShared, requireCoherent } = terms;
    const phys = memory[kind][page];
    const attributes: DmaAttributes = {
      ...(saysShared && { shared: true }),
      ...(kind === "mmio" && { mmio: true }),
      ...(requireCoherent && { requireCoherent }),
    };
    const { passed } = stand.tee.gate;
    const before = { ...passed };
    const bounced = stand.guest.counters.bouncedBytes;
    let address = DmaAddr(0);
    const refused = await refusal(() => {
      address = door.mapPhys(phys, 4096, "to-device", attributes);
    });
    if (typeof answer !== "string") {
      expect(refused[1]).toBe(answer.refused);
      expect(stand.guest.counters.bouncedBytes).toBe(bounced);
      return;
    }
    if (answer.startsWith("peer")) {
      expect(refused).toEqual(["ERR_DMA_TEE_PEER", "EPERM"]); // nobody bound it
      return;
    }
    expect(refused).toBe("none");
    if (kind === "ram") {
      const bytes = new Uint8Array(64).fill(0x42);
      stand.guest.write(phys, bytes);
      door.syncForDevice(address, 4096, "to-device");
      const read = new Uint8Array(64);
      expect([engine.read(address, read), alike(read, bytes)]).toEqual([true, true]);
    } else expect(engine.read(address, new Uint8Array(64))).toBe(true);
    expect({ plain: passed.plain - before.plain, trusted: passed.trusted - before.trusted }).toEqual(
      answer === "translated, T=1" ? { plain: 0, trusted: 1 } : { plain: 1, trusted: 0 },
    );
    expect(stand.guest.counters.bouncedBytes > bounced).toBe(answer === "bounced");
    if (answer === "direct, T=0") expect(address).toBe(trust === "trusted" ? phys + SHARED_BIT : phys);
    door.unmapPhys(address, 4096, "to-device", attributes);
  });
});

describe("as Linux has it, without this contract", () => {
  test("memory that is said to be shared is refused where bouncing is not forced, and behind an IOMMU", async () => {
    const direct = new Dma({ name: "direct" });
    expect(await refusal(() => direct.map(PhysAddr(4096), 64, "to-device", { shared: true }))).toEqual([
      "ERR_DMA_SHARED",
      "EOPNOTSUPP",
    ]);
    const { device, stand } = await world("untrusted");
    await stand.run(device.start(stand.policy));
    const { domain } = device.openDma();
    const plain = new Dma({ name: "plain", domain: domain! });
    expect(await refusal(() => plain.map(PhysAddr(4096), 64, "to-device", { shared: true }))).toEqual([
      "ERR_DMA_SHARED",
      "EOPNOTSUPP",
    ]);
    using range = plain.tryReserveIova({ length: 4096 })!;
    expect(await refusal(() => range.link(0, PhysAddr(4096), 4096, "to-device", { shared: true }))).toEqual([
      "ERR_DMA_SHARED",
      "EOPNOTSUPP",
    ]);
  });

  test("there are no addresses to reserve for a device outside the trust: every segment bounces", async () => {
    const { door } = await world("untrusted");
    expect([door.tryReserveIova({ length: 4096 }), door.device.forceBounce]).toEqual([undefined, true]);
  });
});

describe("two-step links say whether their memory is shared", () => {
  test("a range of private memory, and one of shared, each through the guest's table; the entry says which", async () => {
    const { door, engine, memory, stand } = await world("trusted");
    for (const kind of ["private", "shared"] as const) {
      const attributes = kind === "shared" ? { shared: true } : undefined;
      using range = door.tryReserveIova({ length: 16_384 })!;
      range.link(0, memory.ram[kind], 8192, "bidirectional", attributes);
      range.link(8192, PhysAddr(memory.ram[kind] + 8192), 8192, "bidirectional", attributes);
      range.sync();
      const bytes = Uint8Array.from({ length: 16_384 }, (_, i) => (i * 5) & 0xff);
      expect(engine.write(range.address, bytes)).toBe(true);
      const found = new Uint8Array(16_384);
      stand.guest.read(memory.ram[kind], found);
      expect(alike(found, bytes)).toBe(true);
      const entry = door.domain!.lookup((range.address / 4096) as never) * 4096;
      expect(entry).toBe(kind === "shared" ? memory.ram.shared + SHARED_BIT : memory.ram.private);
    }
    expect(stand.tee.gate.passed.plain).toBe(0);
  });

  test("a link of the other kind is EINVAL, and the first is as it was", async () => {
    const { door, engine, memory } = await world("trusted");
    for (const [first, second] of [
      ["private", "shared"],
      ["shared", "private"],
    ] as const) {
      const as = (kind: "private" | "shared"): DmaAttributes | undefined =>
        kind === "shared" ? { shared: true } : undefined;
      using range = door.tryReserveIova({ length: 8192 })!;
      range.link(0, memory.ram[first], 4096, "bidirectional", as(first));
      range.sync();
      expect(await refusal(() => range.link(4096, memory.ram[second], 4096, "bidirectional", as(second)))).toEqual([
        "ERR_DMA_SHARING",
        "EINVAL",
      ]);
      expect(engine.write(range.address, new Uint8Array(64).fill(9))).toBe(true);
      expect(range.linkedPages).toBe(1);
      // Once nothing is linked, it may be of the other kind.
      range.unlink(0, 4096);
      range.link(0, memory.ram[second], 4096, "bidirectional", as(second));
    }
  });

  test("what the mapping says and what the page is must agree, and a piece is of one kind", async () => {
    const { door, memory, stand } = await world("trusted");
    const sharing = ["ERR_DMA_SHARING", "EINVAL"];
    using range = door.tryReserveIova({ length: 16_384 })!;
    expect(await refusal(() => range.link(0, memory.ram.shared, 4096, "to-device"))).toEqual(sharing);
    expect(await refusal(() => range.link(0, memory.ram.private, 4096, "to-device", { shared: true }))).toEqual(
      sharing,
    );
    stand.guest.encryption.convert(PhysPage.of(PhysAddr(memory.ram.private + 4096)), 1, "shared");
    expect(await refusal(() => range.link(0, memory.ram.private, 8192, "to-device"))).toEqual(sharing);
    expect(range.linkedPages).toBe(0);
  });

  test("lists of pieces likewise: all private, or all said to be shared", async () => {
    const { door, memory } = await world("trusted");
    const at = (phys: number, length = 4096) => ({ phys: PhysAddr(phys), length });
    const mixed = [at(memory.ram.private), at(memory.ram.shared)];
    for (const attributes of [undefined, { shared: true }]) {
      expect(await refusal(() => door.mapVecs(mixed, "to-device", attributes))).toEqual(["ERR_DMA_SHARING", "EINVAL"]);
      expect(await refusal(() => door.mapLinear(mixed, "to-device", attributes))).toEqual([
        "ERR_DMA_SHARING",
        "EINVAL",
      ]);
    }
    door.mapVecs([at(memory.ram.private), at(memory.ram.private + 8192)], "to-device").unmap();
    door.mapVecs([at(memory.ram.shared), at(memory.ram.shared + 8192)], "to-device", { shared: true }).unmap();
    door.mapScatterlist([at(memory.ram.private + 100, 50)], "to-device").unmap(); // inside the trust, to the byte
    expect(door.device.bounces).toBe(0);
  });

  test("an entry that says the other thing than its page is refused by the hardware, and no byte moves", async () => {
    const { door, engine, memory, stand } = await world("trusted");
    const shared = (memory.ram.private + SHARED_BIT) / 4096;
    door.domain!.map(77 as never, shared as never, 1, 3); // a guest's bug, past every check
    expect(engine.read(DmaAddr(77 * 4096), new Uint8Array(16))).toBe(false);
    expect(stand.tee.gate.refused.at(-1)).toMatchObject({ rule: 7, reason: "sharing", trusted: true });
    door.domain!.unmapNow(77 as never, 1);
  });
});

describe("memory for both sides", () => {
  test("is shared for a device outside the trust, private for one inside, and zero for both", async () => {
    for (const trust of ["untrusted", "trusted"] as const) {
      const { door, engine, stand } = await world(trust);
      const memory = door.allocCoherent(8192);
      const { page } = memory.blocks[0]!;
      expect(stand.guest.encryption.isPrivate(page)).toBe(trust === "trusted");
      expect(engine.write(memory.address, new Uint8Array(16).fill(3))).toBe(true);
      const found = new Uint8Array(32);
      stand.guest.read(PhysPage.start(page), found);
      expect([...found.slice(14, 18)]).toEqual([3, 3, 0, 0]);
      memory.free();
    }
  });
});

describe("conversion", () => {
  test("under a mapping is EBUSY, whichever way it is mapped; after the unmap it is done, and the old address faults", async () => {
    const { device, door, engine, memory, stand } = await world("trusted");
    const page = PhysPage.of(memory.ram.private);
    const convert = (): boolean => stand.guest.encryption.convert(page, 1, "shared");
    const mapping = door.map(memory.ram.private, 4096, "bidirectional");
    expect(await refusal(convert)).toEqual(["ERR_DMA_CONVERT", "EBUSY"]);
    expect([stand.guest.encryption.isPrivate(page), engine.read(mapping.address, new Uint8Array(16))]).toEqual([
      true,
      true,
    ]);
    const old = mapping.address;
    mapping.unmap();
    const { conversions, shootdowns } = stand.tee.pages;
    expect(convert()).toBe(true);
    expect([stand.tee.pages.conversions - conversions, stand.tee.pages.shootdowns - shootdowns]).toEqual([1, 1]);
    expect(engine.read(old, new Uint8Array(16))).toBe(false);
    expect(device.trust).toBe("lost"); // it asked for what it has no more
  });

  test("loses what the page held, both ways, and says so of shared memory that is mapped", async () => {
    const { door, memory, stand } = await world("untrusted");
    const { encryption } = stand.guest;
    const page = PhysPage.of(memory.ram.private);
    const look = (): number => {
      const bytes = new Uint8Array(4096);
      stand.tee.machine.memory.read(memory.ram.private, bytes);
      return bytes.filter((byte) => byte !== 0).length;
    };
    stand.guest.write(memory.ram.private, new Uint8Array(4096).fill(1));
    expect([look(), encryption.convert(page, 1, "shared"), look()]).toEqual([4096, true, 0]);
    stand.guest.write(memory.ram.private, new Uint8Array(4096).fill(2));
    const mapping = door.map(memory.ram.private, 4096, "to-device", { shared: true });
    expect(await refusal(() => encryption.convert(page, 1, "private"))).toEqual(["ERR_DMA_CONVERT", "EBUSY"]);
    mapping.unmap();
    expect([encryption.convert(page, 1, "private"), look()]).toEqual([true, 0]);
  });

  test("that the machine cannot do leaves a page that nobody reaches", async () => {
    const { door, engine, memory, stand } = await world("trusted");
    stand.tee.pages.failures = 1;
    const page = PhysPage.of(memory.ram.private);
    expect(stand.guest.encryption.convert(page, 1, "shared")).toBe(false);
    using mapping = door.map(memory.ram.private, 4096, "to-device");
    expect(engine.read(mapping.address, new Uint8Array(16))).toBe(false);
    expect(stand.tee.hostRead(memory.ram.private, new Uint8Array(16))).toBe(false);
  });

  test("of another guest's page, or of one that was not given, is refused", async () => {
    const { memory, stand } = await world("untrusted");
    const other = stand.tee.startGuest();
    expect(other.encryption.convert(PhysPage.of(memory.ram.private), 1, "shared")).toBe(false);
    expect(other.encryption.isPrivate(PhysPage.of(memory.ram.private))).toBe(true);
  });
});

describe("what a driver must know", () => {
  test("a bounce takes 256 KiB at most; inside the trust there is no such limit", async () => {
    const outside = await world("untrusted");
    expect(outside.door.maxMappingSize).toBe(256 * 1024);
    const inside = await world("trusted");
    inside.door.map(inside.stand.buffer(1024 * 1024).phys, 1024 * 1024, "to-device").unmap();
    expect(inside.stand.guest.counters.bouncedBytes).toBe(0);
  });
});
