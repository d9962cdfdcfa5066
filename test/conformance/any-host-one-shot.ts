/** What the calls that map at once promise on any host: bytes, directions, errors, memory of its own. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { PhysAddr } from "../../src/base/index.ts";
import type { Dma, DmaVec, PhysVec } from "../../src/dma/index.ts";
import { addressAt, believed, type Case, MOST_COPIED, type Stage, sameBytes } from "./any-host.ts";
import { outcome, pattern } from "./outcome.ts";

const BOTH = "bidirectional" as const;

interface Mapped {
  readonly outputs: readonly DmaVec[];
  toCpu(): void;
  unmap(): void;
}

/** The calls that map a list of pieces. */
const LISTS: Readonly<Record<string, (dma: Dma, list: readonly PhysVec[]) => Mapped>> = {
  mapScatterlist: (dma, list) => {
    const mapping = dma.mapScatterlist(list, BOTH);
    return { outputs: mapping.segments, toCpu: () => mapping.syncForCpu(), unmap: () => mapping.unmap() };
  },
  mapVecs: (dma, list) => {
    const mapping = dma.mapVecs(list, BOTH);
    return { outputs: mapping.vecs, toCpu: () => mapping.syncForCpu(), unmap: () => mapping.unmap() };
  },
  mapLinear: (dma, list) => {
    const mapping = dma.mapLinear(list, BOTH);
    equal(mapping.vecs.length, 1, "outputs");
    return { outputs: mapping.vecs, toCpu: () => mapping.syncForCpu(), unmap: () => mapping.unmap() };
  },
  batch: (dma, list) => {
    const granule = dma.domain?.granule ?? 4096;
    const batch = dma.batch(BOTH, { maxBytes: list.reduce((sum, { length }) => sum + length + 2 * granule, 0) });
    for (const vec of list) equal(batch.add(vec), "ok");
    return { outputs: batch.finalize(), toCpu: () => batch.syncForCpu(), unmap: () => batch.unmap() };
  },
};

/** Pieces apart from each other, that meet on granules; both ends are ragged. */
async function listMoves(stage: Stage, call: (dma: Dma, list: readonly PhysVec[]) => Mapped): Promise<void> {
  const { granule } = stage;
  const memory = stage.memory(7 * granule);
  const places = [
    [3 * granule - 512, 512],
    [5 * granule, granule],
    [0, 192],
  ] as const;
  const mapped = call(
    stage.dma,
    places.map(([offset, length]) => ({ phys: memory.at(offset), length })),
  );
  const total = places.reduce((sum, [, length]) => sum + length, 0);
  equal(
    mapped.outputs.reduce((sum, { length }) => sum + length, 0),
    total,
    "bytes of the outputs",
  );
  let start = 0;
  for (const [offset, length] of places) {
    const part = Math.min(length, 192);
    const from = offset + length - part;
    await stage.reads(
      addressAt(mapped.outputs, start + length - part),
      memory.bytes.slice(from, from + part),
      `device at ${offset}`,
    );
    start += length;
  }
  const written = pattern(64, 8);
  await stage.writes(addressAt(mapped.outputs, 512 + 64), written);
  memory.bytes.set(written, 5 * granule + 64);
  mapped.toCpu();
  memory.check();
  mapped.unmap();
  mapped.unmap();
  memory.check("memory after the end");
}

export const oneShotCases: readonly Case[] = [
  {
    name: "a one-shot mapping moves exactly its bytes, at any offset and of any length",
    async run(stage) {
      const { dma, granule } = stage;
      const atEnd = granule - (stage.host.missesLastBytes ? 2 : 1);
      for (const [inside, length] of [
        [0, 1],
        [atEnd, 1],
        [atEnd, 3],
        [100, granule],
        [64, 3 * granule - 128],
        [0, 2 * granule],
      ] as const) {
        const source = stage.memory(3 * granule, length);
        const target = stage.memory(3 * granule, 3);
        const from = dma.map(source.at(inside), length, "to-device");
        const to = dma.map(target.at(inside), length, "from-device");
        const part = Math.min(length, 4096);
        const last = length - part;
        await stage.host.copy(from.address + last, to.address + last, part);
        target.bytes.set(source.bytes.subarray(inside + last, inside + length), inside + last);
        from.unmap();
        to.unmap();
        target.check(`${length} bytes from ${inside}`);
        source.check("source");
      }
    },
  },
  {
    name: "addresses stay below what the device can emit",
    run(stage) {
      const mapping = stage.dma.map(stage.memory(3 * stage.granule).at(17), 2 * stage.granule, BOTH);
      ok(mapping.address + mapping.length - 1 <= stage.dma.device.mask, `address ${mapping.address}`);
      mapping.unmap();
    },
  },
  {
    name: "a mapping to the device is not written by it",
    needs: ["translation"],
    async run(stage) {
      const memory = stage.memory(stage.granule);
      const mapping = stage.dma.map(memory.phys, stage.granule, "to-device");
      await stage.reads(mapping.address, memory.bytes.slice(0, 64));
      await stage.writes(mapping.address, pattern(64, 9));
      mapping.unmap();
      memory.check();
    },
  },
  {
    name: "a mapping ends once: a second unmap does nothing, a sync after it is refused",
    run(stage) {
      const { dma } = stage;
      const other = dma.map(stage.memory(stage.granule).phys, stage.granule, BOTH);
      const mapping = dma.map(stage.memory(stage.granule).phys, stage.granule, BOTH);
      mapping.unmap();
      const after = [stage.host.state(), dma.counters.snapshot()];
      mapping.unmap();
      mapping[Symbol.dispose]();
      deepEqual([stage.host.state(), dma.counters.snapshot()], after);
      deepEqual(
        outcome(() => mapping.syncForCpu()),
        ["ERR_DMA_RELEASED", "EINVAL"],
      );
      deepEqual(
        outcome(() => other.syncForDevice(1, stage.granule)),
        ["ERR_DMA_OFFSET", "EINVAL"],
      );
      other.unmap();
    },
  },
  {
    name: "what was unmapped is out of the device's reach",
    needs: ["translation"],
    async run(stage) {
      const memory = stage.memory(2 * stage.granule);
      const mapping = stage.dma.map(memory.phys, 2 * stage.granule, BOTH);
      await stage.reads(mapping.address, memory.bytes.slice(0, 16));
      mapping.unmap();
      stage.host.settle();
      await stage.outOfReach(mapping.address, memory);
    },
  },
  {
    name: "what cannot be is refused, and leaves nothing",
    run(stage) {
      const { dma } = stage;
      const memory = stage.memory(stage.granule);
      const before = stage.host.state();
      const good = { phys: memory.phys, length: 64 };
      const negative = { phys: PhysAddr(-4096), length: 64 };
      for (const [call, wanted] of [
        [() => dma.map(memory.phys, 0, BOTH), ["ERR_DMA_LENGTH", "EINVAL"]],
        [() => dma.map(memory.phys, -1, BOTH), ["ERR_DMA_LENGTH", "EINVAL"]],
        [() => dma.map(memory.phys, 1.5, BOTH), ["ERR_DMA_LENGTH", "EINVAL"]],
        [() => dma.map(negative.phys, 64, BOTH), ["ERR_DMA_ADDRESS", "EINVAL"]],
        [() => dma.map(memory.phys, 64, "none" as never), ["ERR_DMA_DIRECTION", "EINVAL"]],
        [() => dma.mapScatterlist([good, negative], BOTH), ["ERR_DMA_ADDRESS", "EINVAL"]],
        [() => dma.mapVecs([good, { ...good, length: 0 }], BOTH), ["ERR_DMA_LENGTH", "EINVAL"]],
        [() => dma.mapLinear([good, good], BOTH), ["ERR_DMA_LINEAR", "ENXIO"]],
        [() => dma.allocCoherent(0), ["ERR_DMA_LENGTH", "EINVAL"]],
        [() => dma.tryReserveIova({ length: 0 }), ["ERR_DMA_LENGTH", "EINVAL"]],
      ] as const) {
        deepEqual(outcome(call), wanted, `${call}`);
        deepEqual(stage.host.state(), before, `${call}`);
      }
    },
  },
  ...Object.entries(LISTS).map(
    ([name, call]): Case => ({
      name: `${name}: pieces in order, byte for byte, and they end together`,
      ...(name === "mapLinear" && { needs: ["translation"] }),
      run: (stage) => listMoves(stage, call),
    }),
  ),
  {
    name: "a list whose last piece cannot be mapped leaves nothing of the others",
    needs: ["translation"],
    run(stage) {
      const memory = stage.memory(4 * stage.granule);
      const before = stage.host.state();
      const list = [0, 2].map((n) => ({ phys: memory.at(n * stage.granule), length: stage.granule }));
      const wide = (2 ** stage.dma.domain!.outputBits) as PhysAddr;
      const piece = { phys: wide, length: stage.granule };
      for (const [name, call] of Object.entries(LISTS)) {
        ok(outcome(() => call(stage.dma, [...list, piece])) !== "ok", name);
        deepEqual(stage.host.state(), before, name);
      }
    },
  },
  {
    name: "a batch that is full says so and stays as it was; one that is given up leaves nothing",
    run(stage) {
      const { dma, granule } = stage;
      const memory = stage.memory(4 * granule);
      const batch = dma.batch(BOTH, { maxBytes: 2 * granule });
      equal(batch.add({ phys: memory.phys, length: granule }), "ok");
      equal(batch.add({ phys: memory.at(granule), length: granule + 1 }), "full");
      equal(batch.bytes, granule);
      equal(batch.add({ phys: memory.at(2 * granule), length: granule }), "ok");
      batch.abort();
      batch.unmap();
      deepEqual(
        outcome(() => batch.finalize()),
        ["ERR_DMA_BATCH", "EINVAL"],
      );
    },
  },
  ...(["allocCoherent", "allocPages", "allocNoncontiguous"] as const).map(
    (call): Case => ({
      name: `${call}: zeroed, on a granule, and all of it comes back`,
      async run(stage) {
        const { dma, granule } = stage;
        const length = granule + 5000;
        const memory = call === "allocCoherent" ? dma.allocCoherent(length) : dma[call](length, BOTH);
        equal(memory.address % granule, 0, "start");
        await stage.reads(memory.address + length - 64, new Uint8Array(64), "device at first");
        if (call === "allocCoherent") {
          memory.write(4094, Uint8Array.of(1, 2, 3, 4));
          await stage.reads(memory.address + 4094, Uint8Array.of(1, 2, 3, 4));
          const atEnd = stage.host.missesLastBytes ? 4094 : 4095;
          await stage.writes(memory.address + atEnd, Uint8Array.of(5, 6, 7, 8));
          const seen = new Uint8Array(4);
          memory.read(atEnd, seen);
          sameBytes(seen, Uint8Array.of(5, 6, 7, 8), "CPU");
        }
        memory.free();
        memory.free();
        deepEqual(
          outcome(() => memory.read(0, new Uint8Array(1))),
          ["ERR_DMA_RELEASED", "EINVAL"],
        );
      },
    }),
  ),
  {
    name: "the capabilities are those of the machine that mapping works with",
    run({ dma, host }) {
      const { pool, caches, peers } = dma.device.machine;
      const { bounce, cacheControl, peerRoutes } = host.capabilities;
      deepEqual(
        { bounce, cacheControl, peerRoutes },
        { bounce: pool !== undefined, cacheControl: caches !== undefined, peerRoutes: peers !== undefined },
      );
    },
  },
  {
    name: "an untrusted device sees zeroes after its bytes",
    needs: ["translation", "bounce"],
    async run(stage) {
      const dma = believed(stage, { untrusted: true });
      const memory = stage.memory(stage.granule);
      const mapping = dma.map(memory.at(512), 64, BOTH);
      const expected = new Uint8Array(192);
      expected.set(memory.bytes.subarray(512, 576));
      await stage.reads(mapping.address, expected);
      mapping.unmap();
      memory.check();
    },
  },
  {
    name: "bytes of an untrusted device that would have to bounce are refused, and nothing is left",
    needs: ["translation"],
    lacks: "bounce",
    run(stage) {
      const dma = believed(stage, { untrusted: true });
      const memory = stage.memory(stage.granule);
      const before = stage.host.state();
      deepEqual(
        outcome(() => dma.map(memory.at(512), 64, BOTH)),
        ["ERR_DMA_BOUNCE_NONE", "ENOMEM"],
      );
      deepEqual(stage.host.state(), before);
      dma.map(memory.phys, stage.granule, BOTH).unmap(); // whole granules show nothing else
    },
  },
  {
    name: "a device that does not look into the caches sees what the CPU wrote after a sync",
    needs: ["cacheControl"],
    async run(stage) {
      const dma = believed(stage, { coherent: false });
      const memory = stage.memory(stage.granule);
      const mapping = dma.map(memory.phys, 1024, BOTH);
      await stage.reads(mapping.address, memory.bytes.slice(0, 64));
      mapping.syncForCpu();
      memory.write(0, pattern(64, 5));
      mapping.syncForDevice();
      await stage.reads(mapping.address, pattern(64, 5), "device after the sync");
      await stage.writes(mapping.address, pattern(64, 6));
      memory.bytes.set(pattern(64, 6));
      mapping.syncForCpu();
      memory.check("CPU after the sync");
      mapping.unmap();
    },
  },
  {
    name: "a peer's memory in a list is reached by its own route, and RAM beside it as ever",
    needs: ["peerRoutes"],
    async run(stage) {
      const memory = stage.memory(stage.granule);
      const peer = stage.peerMemory();
      const list = [
        { phys: memory.phys, length: stage.granule },
        { phys: peer.phys, length: MOST_COPIED },
      ];
      for (const call of [LISTS.mapScatterlist!, LISTS.mapVecs!, LISTS.batch!]) {
        const mapped = call(stage.dma, list);
        await stage.reads(addressAt(mapped.outputs, 0), memory.bytes.slice(0, 64), "RAM");
        const theirs = addressAt(mapped.outputs, stage.granule);
        await stage.reads(theirs, peer.bytes.slice(0, 64), "the peer's memory");
        await stage.writes(theirs, pattern(64, 3));
        peer.bytes.set(pattern(64, 3));
        mapped.unmap();
        peer.check();
        memory.check();
      }
    },
  },
  {
    name: "memory that nobody allocated can be mapped: addresses are the machine's",
    needs: ["physicalAddresses"],
    run(stage) {
      stage.dma.map(PhysAddr(16 * stage.granule), stage.granule, BOTH).unmap();
    },
  },
  {
    name: "memory that is not the process's is refused with the kernel's word, and nothing is left",
    lacks: "physicalAddresses",
    run(stage) {
      const before = stage.host.state();
      deepEqual(
        outcome(() => stage.dma.map(PhysAddr(stage.granule), stage.granule, BOTH)),
        ["ERR_DMA_SYSCALL", "EFAULT"],
      );
      deepEqual(stage.host.state(), before);
    },
  },
];
