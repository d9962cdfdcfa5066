/**
 * The stack on whole machines: random loads from a seed, on every way that mapping can take, against a model that knows
 * nothing but the bytes. What the device and the CPU see, what a device cannot reach, and that nothing is left behind.
 */
import { describe, expect, test } from "vitest";
import {
  DIRECTIONS,
  type DmaAddr,
  deviceReads,
  deviceWrites,
  GiB,
  MiB,
  PhysAddr,
  PhysPage,
  Random,
} from "../../base/index.ts";
import type { DmaOptions } from "../../dma/index.ts";
import { DmaEngine, SimulatedHost, type SimulatedHostOptions } from "./index.ts";

interface Way {
  readonly name: string;
  readonly machine: Omit<SimulatedHostOptions, "iommu">;
  readonly device?: Partial<DmaOptions>;
  readonly iommu?: "strict" | "lazy";
}

/** Two steps are refused there. */
const PRIVATE = "translated, private memory";
const POOL = { slots: 2048 };
const WAYS: readonly Way[] = [
  { name: "direct", machine: {} },
  { name: "direct, caches not looked into", machine: { coherent: false } },
  { name: "direct, everything bounced", machine: { pool: POOL }, device: { forceBounce: true } },
  {
    name: "direct, bounced, caches not looked into",
    machine: { pool: POOL, coherent: false },
    device: { forceBounce: true },
  },
  {
    name: "direct, a device of 32 bits",
    machine: { pool: POOL, memoryBytes: 64 * GiB },
    device: { mask: 2 ** 32 - 1 },
  },
  { name: "direct, minAlignMask 0xfff", machine: { pool: POOL }, device: { forceBounce: true, minAlignMask: 0xfff } },
  { name: "direct, private memory", machine: { pool: POOL, confidential: "refused" } },
  {
    name: "direct, ciphertext, caches not looked into",
    machine: { pool: POOL, confidential: "ciphertext", coherent: false },
  },
  { name: "translated", machine: {}, iommu: "strict" },
  { name: "translated, lazy", machine: {}, iommu: "lazy" },
  { name: "translated, caches not looked into", machine: { coherent: false }, iommu: "strict" },
  { name: "translated, untrusted", machine: { pool: POOL }, device: { untrusted: true }, iommu: "strict" },
  {
    name: "translated, untrusted, caches not looked into",
    machine: { pool: POOL, coherent: false },
    device: { untrusted: true },
    iommu: "strict",
  },
  { name: PRIVATE, machine: { pool: POOL, confidential: "refused" }, iommu: "strict" },
  { name: "direct, private memory, trusted device", machine: { confidential: "refused" }, device: { tdi: "run" } },
  {
    name: "translated, private memory, trusted device",
    machine: { confidential: "ciphertext" },
    device: { tdi: "run" },
    iommu: "strict",
  },
];

function build(way: Way, seed: number) {
  const { iommu } = way;
  const host = new SimulatedHost({
    memoryBytes: 8 * GiB,
    scattered: true,
    seed,
    ...way.machine,
    ...(iommu && { iommu: { mode: iommu } }),
  });
  const { machine } = host;
  const engine = new DmaEngine();
  const [device] = machine.plug("0.0", engine);
  device!.setBusMaster(true);
  device!.node.trusted = way.device?.tdi === "run";
  const { dma, domain } = host.openDevice(device!.name, { limits: way.device ?? {} });
  return { host, machine, engine, device: device!, dma, domain };
}

/** Bytes are equal; deep comparison of large arrays takes far longer. */
const same = (found: Uint8Array, wanted: Uint8Array): void => expect(Buffer.compare(found, wanted)).toBe(0);

const BUFFER = 16_384;

/** One run: buffers, mappings of parts of them, both sides at work, in any order. */
function run(way: Way, seed: number): void {
  const { machine, engine, dma } = build(way, seed);
  const random = Random.fromSeed(seed).fork("load");
  const coherent = way.machine.coherent ?? true;
  const noise = (length: number): Uint8Array => Uint8Array.from({ length }, () => random.below(256));
  const buffers = Array.from({ length: 3 }, () => {
    const memory = machine.ram.allocate(BUFFER);
    memory.bytes.set(noise(BUFFER));
    return { memory, bytes: memory.bytes.slice(), busy: false };
  });
  for (let step = 0; step < 12; step++) {
    const buffer = random.pick(buffers);
    // A device that shares cache lines with its neighbours is not what a driver may ask for.
    const unit = coherent ? 1 : 64;
    const offset = random.below(BUFFER / unit) * unit;
    const length = Math.min(random.between(1, 9000 / unit) * unit, BUFFER - offset);
    const direction = random.pick(DIRECTIONS);
    const { memory, bytes } = buffer;
    const mapping = dma.map(PhysAddr(memory.phys + offset), length, direction);
    const check = (): void => same(memory.bytes, bytes);
    for (let turn = random.below(3); turn >= 0; turn--) {
      machine.caches?.disturb(random, 5);
      if (deviceReads(direction)) {
        const seen = new Uint8Array(length);
        expect(engine.read(mapping.address, seen)).toBe(true);
        same(seen, bytes.slice(offset, offset + length));
      }
      if (deviceWrites(direction)) {
        const written = noise(length);
        expect(engine.write(mapping.address, written)).toBe(true);
        bytes.set(written, offset);
      }
      mapping.syncForCpu();
      check();
      const changed = noise(length);
      if (deviceReads(direction)) {
        memory.bytes.set(changed, offset);
        bytes.set(changed, offset);
      }
      mapping.syncForDevice();
    }
    mapping.unmap();
    check();
    machine.caches?.disturb(random, 5);
    // Whatever the device does now, no buffer changes: strictly translated it is refused, bounced it hits nobody's slot.
    if (way.iommu === "strict") expect(engine.write(mapping.address, noise(Math.min(length, 64)))).toBe(false);
    if (way.device?.forceBounce) engine.write(mapping.address, noise(length));
    check();
  }
  if (machine.encryption) expect(machine.encryption.touches).toEqual([]);
  for (const { memory } of buffers) memory.free();
  machine.clock.advance(1000);
  expect(machine.leaks()).toEqual([]);
}

describe("a load on a whole machine", () => {
  for (const way of WAYS)
    test(`${way.name}: both sides see what they should, and nothing is left behind`, () => {
      for (let seed = 1; seed <= 25; seed++)
        try {
          run(way, seed);
        } catch (error) {
          throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
        }
    });
});

describe("a driver that forgets a sync", () => {
  test("sees old bytes, every time, on a machine whose caches devices do not look into", () => {
    const { machine, engine, dma } = build({ name: "", machine: { coherent: false, memoryBytes: 64 * MiB } }, 1);
    const memory = machine.ram.allocate(4096);
    const mapping = dma.map(memory.phys, 4096, "bidirectional");
    memory.bytes.fill(1);
    const seen = new Uint8Array(4096);
    engine.read(mapping.address, seen);
    expect(seen).toEqual(new Uint8Array(4096));
    mapping.syncForDevice();
    engine.read(mapping.address, seen);
    expect(seen).toEqual(new Uint8Array(4096).fill(1));
    engine.write(mapping.address, new Uint8Array(4096).fill(2));
    expect(memory.bytes[0]).toBe(1);
    mapping.syncForCpu();
    expect(memory.bytes[0]).toBe(2);
  });
});

describe("memory that device and CPU share", () => {
  for (const way of WAYS)
    test(`${way.name}: needs no sync, either way`, () => {
      const { machine, engine, dma } = build(way, 3);
      const memory = dma.allocCoherent(10_000);
      const seen = new Uint8Array(4);
      memory.write(5000, Uint8Array.of(1, 2, 3, 4));
      expect(engine.read((memory.address + 5000) as DmaAddr, seen)).toBe(true);
      expect([...seen]).toEqual([1, 2, 3, 4]);
      expect(engine.write((memory.address + 4094) as DmaAddr, Uint8Array.of(5, 6, 7, 8))).toBe(true);
      memory.read(4094, seen);
      expect([...seen]).toEqual([5, 6, 7, 8]);
      memory.free();
      machine.clock.advance(1000);
      expect(machine.leaks()).toEqual([]);
    });
});

describe("two steps on a whole machine", () => {
  for (const way of WAYS.filter(({ iommu, name }) => iommu && name !== PRIVATE))
    test(`${way.name}: scattered pages are one range, and nothing is left behind`, () => {
      for (let seed = 1; seed <= 25; seed++) {
        const { machine, engine, dma } = build(way, seed);
        const random = Random.fromSeed(seed);
        const count = random.between(1, 12);
        const pages = Array.from({ length: count }, () => machine.ram.allocate(4096));
        const head = random.below(64) * 64;
        const length = count * 4096 - head - random.below(32) * 64;
        const bytes = Uint8Array.from({ length: count * 4096 }, () => random.below(256));
        pages.forEach((page, i) => {
          page.bytes.set(bytes.subarray(i * 4096, (i + 1) * 4096));
        });
        if (length <= 0) continue;
        const range = dma.tryReserveIova({ length, physOffset: head })!;
        let offset = 0;
        for (const [i, page] of pages.entries()) {
          const start = i === 0 ? head : 0;
          const piece = Math.min(4096 - start, length - offset);
          if (piece > 0) range.link(offset, PhysAddr(page.phys + start), piece, "bidirectional");
          offset += Math.max(0, piece);
        }
        range.sync();
        const seen = new Uint8Array(length);
        expect(engine.read(range.address, seen)).toBe(true);
        same(seen, bytes.slice(head, head + length));
        const written = Uint8Array.from({ length }, () => random.below(256));
        expect(engine.write(range.address, written)).toBe(true);
        bytes.set(written, head);
        const { address } = range;
        range.destroy();
        const all = Uint8Array.from(pages.flatMap((page) => [...page.bytes]));
        same(all, bytes);
        if (way.iommu === "strict") expect(engine.read(address, seen)).toBe(false);
        for (const page of pages) page.free();
        machine.clock.advance(1000);
        expect(machine.leaks()).toEqual([]);
      }
    });
});

describe("private memory behind an IOMMU, for a device outside the trust boundary", () => {
  const way: Way = { name: "", machine: { pool: POOL, confidential: "refused" }, iommu: "strict" };

  test("is refused to two steps, and reachable once it is shared", () => {
    const { machine, engine, dma } = build(way, 1);
    const memory = machine.ram.allocate(4096);
    using range = dma.tryReserveIova({ length: 4096 });
    expect(() => range!.link(0, memory.phys, 4096, "bidirectional")).toThrow(
      expect.objectContaining({ errno: "EPERM" }),
    );
    machine.encryption!.convert(PhysPage.of(memory.phys), 1, "shared");
    range!.link(0, memory.phys, 4096, "bidirectional");
    range!.sync();
    expect(engine.write(range!.address, Uint8Array.of(5))).toBe(true);
    expect(memory.bytes[0]).toBe(5);
  });
});

describe("peer memory on a whole machine", () => {
  const routing = { cpu: { vendor: "AMD", family: 0x19 } };
  for (const iommu of [undefined, "strict"] as const)
    for (const redirect of [false, true])
      for (const routesPeers of [false, true])
        test(`${iommu ?? "no"} IOMMU, ${redirect ? "redirected" : "not redirected"}, root complex ${routesPeers ? "routes" : "does not route"}: every byte arrives, or the list is refused`, () => {
          const host = new SimulatedHost({
            memoryBytes: 64 * MiB,
            iommu: iommu && { mode: iommu },
            bridges: [{ ...(routesPeers && routing), busOffset: -(2 ** 38), rootPorts: [{ switch: [{}, {}] }, {}] }],
          });
          const { machine } = host;
          const plug = (slot: string) => {
            const engine = new DmaEngine({ memoryBytes: 0x1_0000 });
            const [device] = machine.plug(slot, engine);
            device!.setBusMaster(true);
            host.peers.add(device!.node, device!.node.bars[0]!);
            return { engine, node: device!.node, bar: device!.node.bars[0]! };
          };
          const [client, near, far] = [plug("0.0.0"), plug("0.0.1"), plug("0.1")];
          if (redirect) near.node.parent!.acsControl = 0x04;
          const { dma } = host.openDevice(client.node.name, { limits: { maxSegmentSize: 8192 } });
          const ram = machine.ram.allocate(8192);
          const list = [
            { phys: ram.phys, length: 4096 },
            { phys: PhysAddr(near.bar.phys + 0x2000), length: 8192 },
            { phys: PhysAddr(ram.phys + 4096), length: 4096 },
          ];
          const lists = [list, [...list, { phys: PhysAddr(far.bar.phys), length: 4096 }]];
          for (const [which, vecs] of lists.entries()) {
            const arrives = routesPeers || (!redirect && which === 0);
            for (const map of ["mapScatterlist", "mapVecs"] as const) {
              if (!arrives) {
                expect(() => dma[map](vecs, "from-device")).toThrow(expect.objectContaining({ errno: "EREMOTEIO" }));
                continue;
              }
              const mapping = dma[map](vecs, "from-device");
              const outputs = "segments" in mapping ? mapping.segments : mapping.vecs;
              const total = vecs.reduce((sum, { length }) => sum + length, 0);
              const bytes = Uint8Array.from({ length: total }, (_, i) => (i * 7 + (i >> 8) + which) & 0xff);
              const turned = machine.fabric.turnedAround;
              expect(client.engine.scatter(outputs, bytes)).toBe(true);
              expect(machine.fabric.turnedAround > turned).toBe(!redirect);
              const found = new Uint8Array(total);
              let at = 0;
              for (const { phys, length } of vecs) {
                machine.memory.read(phys, found.subarray(at, at + length));
                at += length;
              }
              same(found, bytes);
              mapping.unmap();
            }
          }
          ram.free();
          machine.clock.advance(1000);
          expect(machine.fabric.refusals).toEqual([]);
        });
});

describe("a device that misbehaves", () => {
  const late = (way: Way) => {
    const parts = build({ ...way, machine: { ...way.machine, memoryBytes: 64 * MiB } }, 1);
    const memory = parts.machine.ram.allocate(4096);
    const mapping = parts.dma.map(memory.phys, 4096, "bidirectional");
    const segments = [{ address: mapping.address, length: 4096 }];
    parts.engine.read(mapping.address, new Uint8Array(1)); // the IOTLB knows the page
    const write = (value: number) => ({ do: "scatter", segments, bytes: new Uint8Array(4096).fill(value) }) as const;
    parts.engine.run([{ do: "wait", ms: 0.5 }, write(1), { do: "wait", ms: 1000 }, write(2)]);
    mapping.unmap();
    return { ...parts, memory };
  };

  test("reaches memory after the unmap without an IOMMU, for good", () => {
    const { machine, memory } = late({ name: "", machine: {} });
    machine.clock.advance(2000);
    expect(memory.bytes[0]).toBe(2);
  });

  test("does not reach it behind a strict IOMMU", () => {
    const { machine, engine, memory } = late({ name: "", machine: {}, iommu: "strict" });
    machine.clock.advance(2000);
    expect([memory.bytes[0], engine.results.map(({ ok }) => ok)]).toEqual([0, [false, false]]);
    expect(machine.fabric.refusals.map(({ reason }) => reason)).toEqual(["translation", "translation"]);
  });

  test("reaches it behind a lazy one until the queue is flushed", () => {
    const { machine, engine, memory } = late({ name: "", machine: {}, iommu: "lazy" });
    machine.clock.advance(1);
    expect(memory.bytes[0]).toBe(1);
    machine.clock.advance(2000);
    expect([memory.bytes[0], engine.results.map(({ ok }) => ok)]).toEqual([1, [true, false]]);
  });

  test("goes past the end of its buffer: to the end of the page when trusted, into zeroed padding when not", () => {
    const beyond = (untrusted: boolean) => {
      const { machine, engine, dma } = build(
        { name: "", machine: { pool: POOL, memoryBytes: 64 * MiB }, device: { untrusted }, iommu: "strict" },
        1,
      );
      const memory = machine.ram.allocate(4096);
      memory.bytes.fill(9);
      const mapping = dma.map(memory.phys, 100, "bidirectional");
      const segments = [{ address: mapping.address, length: 100 }];
      engine.run([
        { do: "gather", segments, beyond: 3997 },
        { do: "gather", segments, beyond: 3996 },
        { do: "scatter", segments, bytes: new Uint8Array(0), beyond: 3996 },
      ]);
      mapping.unmap();
      return [engine.results.map(({ ok }) => ok), engine.buffer[100], memory.bytes[99], memory.bytes[100]];
    };
    expect(beyond(false)).toEqual([[false, true, true], 9, 0xee, 0xee]);
    expect(beyond(true)).toEqual([[false, true, true], 0, 0xee, 9]);
  });

  test("that is pulled out leaves its mappings to be given back as ever", () => {
    for (const way of WAYS.filter(({ machine }) => !machine.confidential)) {
      const { machine, engine, dma, device } = build({ ...way, machine: { ...way.machine, scattered: false } }, 2);
      const memory = machine.ram.allocate(8192);
      const mapping = dma.map(memory.phys, 8192, "bidirectional");
      engine.run([
        { do: "wait", ms: 1 },
        { do: "scatter", segments: [mapping], bytes: new Uint8Array(8192).fill(1) },
      ]);
      machine.unplug(device.node);
      machine.clock.advance(1);
      mapping.unmap();
      expect([engine.results[0]!.ok, memory.bytes.every((byte) => byte === 0)]).toEqual([false, true]);
      memory.free();
      machine.clock.advance(1000);
      expect(machine.leaks()).toEqual([]);
    }
  });
});
