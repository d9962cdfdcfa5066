/** Shared buffers under way: moves, revocations, their races, and what happens when something fails in the middle. */
import { describe, expect, test } from "vitest";
import { many, orderSeeds } from "../../../test/effort.ts";
import { everyOrder, interleave } from "../../../test/models/interleaver.ts";
import {
  fillPage,
  POISON,
  pageValues,
  type SharingDevice,
  sharingMachine,
  untilItWaits,
} from "../../../test/models/sharing-machine.ts";
import { DmaError, KiB, type PhysAddr, PhysPage, Random } from "../../base/index.ts";
import { Dma, type DmaVec } from "../../dma/index.ts";
import { SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { finish, type Steps, WAITING } from "../../platform/index.ts";
import {
  type Attachment,
  DeviceMemoryBuffers,
  DmaBuf,
  Fence,
  type ImporterOps,
  type InPlaceMapping,
  type StorageVec,
  VfioDeviceMemory,
} from "./index.ts";

type Machine = ReturnType<typeof sharingMachine>;

/** Importers that keep track of themselves. */
class Follower {
  readonly name: string;
  readonly attachment: Attachment;
  calls: string[] = [];
  readonly #buffer: DmaBuf;

  constructor(buffer: DmaBuf, device: SharingDevice, kind: "in-place" | "re-maps" | "late", name = device.name) {
    this.name = name;
    this.#buffer = buffer;
    const ops: ImporterOps = {
      peerToPeer: true,
      invalidated: ({ why }) => {
        this.calls.push(why);
        if (kind === "re-maps" && this.attachment.mapping) this.attachment.unmap();
      },
      ...(kind === "in-place" && { movedInPlace: () => this.calls.push("moved") }),
    };
    this.attachment = buffer.attach({ name, dma: device.open.dma, ops });
  }

  map(): readonly DmaVec[] {
    return this.#buffer.reservation.locked(() => this.attachment.mapping ?? this.attachment.map("bidirectional"))
      .ranges;
  }

  unmap(): void {
    this.#buffer.reservation.locked(() => this.attachment.unmap());
  }
}

function deviceMemory(machine: Machine) {
  const { host, owner, ownPages } = machine;
  const { pages, memory } = host.machine;
  return new DeviceMemoryBuffers({
    name: owner.name,
    provider: owner.provider,
    devicePages: ownPages,
    systemPages: pages,
    memory,
  });
}

/** Page i of the storage is filled with i + 1. */
function number(machine: Machine, vecs: readonly StorageVec[]): void {
  let page = 0;
  for (const { phys, length } of vecs)
    for (let at = 0; at < length; at += 4096) fillPage(machine.host, (phys + at) as PhysAddr, ++page);
}

const counted = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe("a part of a buffer moves", () => {
  test("under a mapping that stays: addresses, bytes and all other entries are as before", () => {
    const machine = sharingMachine();
    const migrating = deviceMemory(machine).allocate(64 * KiB, "system");
    const { buffer } = migrating;
    number(machine, buffer.exporter.vectors());
    const follower = new Follower(buffer, machine.far, "in-place");
    const before = follower.map();
    const count = machine.counters(machine.far).snapshot();
    finish(migrating.migrate(16 * KiB, 8 * KiB, "device"));
    const { leavesCleared, leavesWritten, rangeInvalidations, mapSyncs, iovaAllocations } = machine
      .counters(machine.far)
      .since(count);
    expect([leavesCleared, leavesWritten, rangeInvalidations, mapSyncs, iovaAllocations]).toEqual([2, 2, 1, 1, 0]);
    expect(follower.map()).toEqual(before);
    expect(pageValues(machine.far.read(before))).toEqual(counted(1, 16));
    expect([migrating.placeOf(0), migrating.placeOf(16 * KiB), migrating.chunks]).toEqual(["system", "device", 3]);
    expect(follower.calls).toEqual(["move", "moved"]);
    expect(buffer.counts).toMatchObject({ maps: 1, invalidations: 1, movedInPlace: 1 });
  });

  test("and a neighbour below the same switch sees it by a bus address, without an entry", () => {
    const machine = sharingMachine();
    const migrating = deviceMemory(machine).allocate(32 * KiB, "system");
    number(machine, migrating.buffer.exporter.vectors());
    const follower = new Follower(migrating.buffer, machine.near, "in-place");
    follower.map();
    finish(migrating.migrate(8 * KiB, 8 * KiB, "device"));
    const ranges = follower.map();
    expect(ranges.map(({ length, bus }) => [length, bus ?? false])).toEqual([
      [8 * KiB, false],
      [8 * KiB, true],
      [16 * KiB, false],
    ]);
    expect(pageValues(machine.near.read(ranges))).toEqual(counted(1, 8));
    finish(migrating.migrate(0, 32 * KiB, "system"));
    expect(follower.map()).toHaveLength(1);
    expect(pageValues(machine.near.read(follower.map()))).toEqual(counted(1, 8));
  });

  test("and those that do not follow in place map anew; who does not let go loses it all the same", () => {
    const machine = sharingMachine();
    const migrating = deviceMemory(machine).allocate(16 * KiB, "system");
    number(machine, migrating.buffer.exporter.vectors());
    const prompt = new Follower(migrating.buffer, machine.far, "re-maps");
    const late = new Follower(migrating.buffer, machine.other, "late");
    const [one, two] = [prompt.map(), late.map()];
    finish(migrating.migrate(0, 16 * KiB, "device"));
    expect(machine.far.read(one)).toBeUndefined();
    expect(machine.other.read(two)).toBeUndefined();
    late.unmap(); // too late, and no misuse
    expect(() => late.unmap()).toThrow(expect.objectContaining({ code: "ERR_DMA_BUF_NOT_MAPPED" }));
    for (const [follower, device] of [
      [prompt, machine.far],
      [late, machine.other],
    ] as const)
      expect(pageValues(device.read(follower.map()))).toEqual(counted(1, 4));
  });

  test("but not while it is pinned, mapped by one that is static, or needed in RAM", () => {
    const machine = sharingMachine();
    const memory = deviceMemory(machine);
    const refused = (migrating: ReturnType<typeof memory.allocate>, to: "device" | "system"): string => {
      try {
        finish(migrating.migrate(0, 4096, to));
        return "moved";
      } catch (error) {
        return (error as DmaError).code;
      }
    };
    const migrating = memory.allocate(8192, "system");
    const { buffer } = migrating;
    const follower = new Follower(buffer, machine.far, "re-maps");
    buffer.reservation.locked(() => follower.attachment.pin());
    expect(refused(migrating, "device")).toBe("ERR_DMA_BUF_PINNED");
    buffer.reservation.locked(() => follower.attachment.unpin());
    const still = buffer.attach({ name: "static", dma: machine.other.open.dma });
    expect(refused(migrating, "device")).toBe("ERR_DMA_BUF_IMPORTER");
    expect(refused(migrating, "system")).toBe("moved");
    buffer.reservation.locked(() => still.map("to-device"));
    expect(refused(migrating, "system")).toBe("ERR_DMA_BUF_PINNED");
    still.detach();
    expect(refused(migrating, "device")).toBe("moved");
    expect(() => buffer.attach({ name: "static", dma: machine.other.open.dma })).toThrow(
      expect.objectContaining({ code: "ERR_DMA_BUF_IMPORTER" }),
    );
    expect(refused(migrating, "device")).toBe("moved"); // to another place in the same memory
  });

  test("after the fences of what devices do with it, and in no other order", () => {
    const machine = sharingMachine();
    const migrating = deviceMemory(machine).allocate(4096, "system");
    const { buffer } = migrating;
    const fence = new Fence("copy");
    buffer.reservation.locked(() => buffer.reservation.addFence(fence, "bookkeep"));
    const steps = migrating.migrate(0, 4096, "device");
    const points: string[] = [];
    for (let i = 0; i < 4; i++) points.push(steps.next().value as string);
    expect(points).toEqual(["called", WAITING, WAITING, WAITING]);
    expect(migrating.placeOf(0)).toBe("system");
    fence.signal();
    finish(steps);
    expect(migrating.placeOf(0)).toBe("device");
  });

  test("over and over, and no device ever reads what was left", { timeout: 60_000 }, () => {
    const moves = many(200);
    const machine = sharingMachine();
    const migrating = deviceMemory(machine).allocate(64 * KiB, "system");
    number(machine, migrating.buffer.exporter.vectors());
    const followers = [
      [new Follower(migrating.buffer, machine.near, "in-place"), machine.near],
      [new Follower(migrating.buffer, machine.far, "in-place"), machine.far],
      [new Follower(migrating.buffer, machine.other, "re-maps"), machine.other],
    ] as const;
    const random = Random.fromSeed(25);
    const start = machine.host.machine.snapshot();
    for (let i = 0; i < moves; i++) {
      const first = random.below(16);
      const length = 1 + random.below(16 - first);
      finish(migrating.migrate(first * 4096, length * 4096, random.below(2) === 0 ? "device" : "system"));
      const [follower, device] = followers[random.below(3)]!;
      const seen = pageValues(device.read(follower.map()));
      if (seen?.includes(POISON) || String(seen) !== String(counted(1, 16)))
        throw new Error(`after move ${i}: ${seen}`);
    }
    finish(migrating.migrate(0, 64 * KiB, "system"));
    expect(machine.host.machine.leaks(start)).toEqual([]);
  });
});

describe("a revocation", () => {
  function revocable(machine: Machine) {
    const { owner } = machine;
    const device = new VfioDeviceMemory(
      owner.name,
      new Map([[0, { lengthBytes: owner.provider.bar.length, provider: owner.provider }]]),
    );
    const { buffer } = device.export({ region: 0, openFlags: 2, flags: 0, ranges: [{ offset: 0n, length: 8192n }] });
    return { device, buffer };
  }

  test("calls each of many importers once, newest first, and names the one that is stuck", () => {
    const machine = sharingMachine();
    const { device, buffer } = revocable(machine);
    const calls: string[] = [];
    const attach = (from: SharingDevice, name: string, unmaps: boolean, pins: boolean): Attachment => {
      const attachment: Attachment = buffer.attach({
        name,
        dma: from.open.dma,
        ops: {
          peerToPeer: true,
          invalidated: () => {
            calls.push(name);
            if (unmaps && attachment.mapping) attachment.unmap();
          },
        },
      });
      buffer.reservation.locked(() => {
        if (pins) attachment.pin();
        attachment.map("bidirectional");
      });
      return attachment;
    };
    attach(machine.near, "bus", true, false);
    attach(machine.far, "bridge", true, false);
    const stuck = attach(machine.other, "stuck", false, false);
    const pinned = attach(machine.far, "pinned", true, true);
    let isReset = false;
    const reset = device.reset(() => {
      isReset = true;
      expect(buffer.liveMaps).toBe(0);
    });
    for (let i = 0; i < 50; i++) reset.next();
    expect([calls, buffer.stuck, isReset]).toEqual([["pinned", "stuck", "bridge", "bus"], ["stuck"], false]);
    buffer.reservation.locked(() => stuck.unmap());
    finish(reset);
    expect([isReset, calls.length]).toEqual([true, 8]); // each once more: usable again
    expect(buffer.isRevoked).toBe(false);
    expect(() => buffer.reservation.locked(() => pinned.map("bidirectional"))).toThrow(
      expect.objectContaining({ code: "ERR_DMA_BUF_REVOKED" }),
    );
    expect(() => buffer.reservation.locked(() => stuck.map("bidirectional"))).not.toThrow();
  });

  test("by memory decode, power, reset and close, with a restore where it is one", () => {
    const machine = sharingMachine();
    const { device, buffer } = revocable(machine);
    const follower = new Follower(buffer, machine.far, "re-maps");
    const states: unknown[] = [];
    const run = (steps: Steps<void>): void => {
      finish(steps);
      states.push([buffer.isRevoked, follower.calls.splice(0).join(" ")]);
    };
    run(device.writeCommand(6));
    run(device.writeCommand(4));
    run(device.setPowerState(3));
    run(device.setPowerState(0));
    run(device.writeCommand(6));
    run(device.setPowerState(3));
    run(device.writeCommand(4));
    run(device.setPowerState(0));
    run(device.reset());
    run(device.writeCommand(2));
    run(device.reset());
    run(device.close());
    run(device.writeCommand(2));
    expect(states).toEqual([
      [false, ""],
      [true, "revoke"],
      [true, ""],
      [true, ""],
      [false, "restore"],
      [true, "revoke"],
      [true, ""],
      [true, ""],
      [true, ""],
      [false, "restore"],
      [false, "revoke restore"],
      [true, "revoke"],
      [true, ""],
    ]);
  });

  test("under way: what is exported meanwhile is revoked from the start, and who is refused leaves nothing", () => {
    const machine = sharingMachine();
    const { device, buffer } = revocable(machine);
    const follower = new Follower(buffer, machine.far, "late");
    follower.map();
    const away = device.writeCommand(0);
    untilItWaits(away);
    const call = { region: 0, openFlags: 2, flags: 0, ranges: [{ offset: 0n, length: 4096n }] };
    const late = device.export(call);
    expect(late.buffer.isRevoked).toBe(true);
    follower.unmap();
    finish(away);
    finish(device.writeCommand(2));
    expect([late.buffer.isRevoked, buffer.isRevoked]).toEqual([false, false]);

    const migrating = deviceMemory(machine).allocate(4096, "system");
    finish(migrating.buffer.revoke());
    const needsRam = { name: "static", dma: machine.far.open.dma };
    expect(() => migrating.buffer.attach(needsRam)).toThrow(expect.objectContaining({ code: "ERR_DMA_BUF_REVOKED" }));
    finish(migrating.buffer.restore());
    finish(migrating.migrate(0, 4096, "device")); // nobody who needs RAM is left
  });

  test("and a detach wait for each other", () => {
    const machine = sharingMachine();
    const { device, buffer } = revocable(machine);
    const follower = new Follower(buffer, machine.far, "late");
    follower.map();
    const fence = new Fence("work");
    buffer.reservation.locked(() => buffer.reservation.addFence(fence, "bookkeep"));
    const away = device.close();
    untilItWaits(away);
    const leaving = follower.attachment.detachSteps();
    expect(leaving.next().value).toBe(WAITING);
    fence.signal();
    untilItWaits(away);
    expect(leaving.next().done).toBe(true);
    expect(away.next().done).toBe(true);
    expect([buffer.attachments.length, buffer.liveMaps]).toEqual([0, 0]);
  });

  test.each([
    ["dmalink: nothing is reachable when the unmap returns", {}, undefined],
    ["Linux: a stale translation lives until the queue is flushed", { linuxCompatible: true }, [1, 2]],
  ] as const)("in lazy mode: %s", (_name, limits, expected) => {
    const machine = sharingMachine({ mode: "lazy", far: limits });
    const { device, buffer } = revocable(machine);
    number(machine, buffer.exporter.vectors());
    const follower = new Follower(buffer, machine.far, "re-maps");
    const ranges = follower.map();
    expect(pageValues(machine.far.read(ranges))).toEqual([1, 2]); // the IOTLB has them now
    const before = machine.counters(machine.far).snapshot();
    finish(device.writeCommand(0));
    const { flushQueueEntries, rangeInvalidations } = machine.counters(machine.far).since(before);
    expect([flushQueueEntries, rangeInvalidations]).toEqual(expected === undefined ? [0, 1] : [1, 0]);
    expect(pageValues(machine.far.read(ranges))).toEqual(expected);
    machine.host.clock.advance?.(1_000);
    expect(machine.far.read(ranges)).toBeUndefined();
  });

  const seeds = orderSeeds(50);
  test(`races with maps, unmaps, moves and restores: ${seeds.length} orders`, { timeout: 600_000 }, () =>
    everyOrder(seeds, race),
  );

  /** Two importers that map and unmap, one that only hears, a device that goes and comes. Nobody reaches it while it is away. */
  function race(seed: number): void {
    const machine = sharingMachine();
    const { owner } = machine;
    const device = new VfioDeviceMemory(
      owner.name,
      new Map([[0, { lengthBytes: owner.provider.bar.length, provider: owner.provider }]]),
    );
    const { buffer } = device.export({
      region: 0,
      openFlags: 2,
      flags: 0,
      ranges: [
        { offset: 0n, length: 4096n },
        { offset: 8192n, length: 4096n },
      ],
    });
    number(machine, buffer.exporter.vectors());
    let isAway = false;
    const importers = [machine.far, machine.other].map(
      (from, i) => new Follower(buffer, from, i === 0 ? "re-maps" : "late"),
    );
    const known: (readonly [SharingDevice, readonly DmaVec[]])[] = [];
    function* use(follower: Follower, from: SharingDevice): Steps<void> {
      const { reservation } = buffer;
      for (let i = 0; i < 3; i++) {
        yield* reservation.acquire();
        let mapping = follower.attachment.mapping;
        try {
          mapping ??= follower.attachment.map("bidirectional");
        } catch (error) {
          if ((error as DmaError).errno !== "ENODEV") throw error;
        } finally {
          reservation.release();
        }
        if (mapping) known.push([from, mapping.ranges]);
        yield "used";
        yield* reservation.acquire();
        if (follower.attachment.mapping) follower.attachment.unmap();
        reservation.release();
        yield "let go";
      }
    }
    function* events(): Steps<void> {
      const away = (): void => {
        isAway = true;
      };
      for (let i = 0; i < 2; i++) {
        yield* device.writeCommand(0);
        away();
        yield "away";
        isAway = false;
        yield* device.writeCommand(2);
        yield "back";
        yield* device.reset(away);
        isAway = false;
      }
    }
    /** A second hand on the device: power, at the same time as decode and resets. */
    function* power(): Steps<void> {
      yield* device.setPowerState(3);
      if (buffer.liveMaps > 0) throw new Error("mapped while the device sleeps");
      yield "asleep";
      yield* device.setPowerState(0);
    }
    interleave(
      Random.fromSeed(seed),
      [
        { name: "power", steps: power() },
        { name: "far", steps: use(importers[0]!, machine.far) },
        { name: "other", steps: use(importers[1]!, machine.other) },
        { name: "device", steps: events() },
      ],
      () => {
        if (!isAway) return;
        if (buffer.liveMaps > 0) throw new Error("mapped while the device is away");
        for (const [from, ranges] of known) if (from.read(ranges)) throw new Error("reached while the device is away");
      },
    );
    expect([seed, buffer.liveMaps, buffer.isRevoked, buffer.reservation.isHeld]).toEqual([seed, 0, false, false]);
    for (const from of [machine.far, machine.other]) {
      const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = machine.counters(from);
      expect([seed, leavesWritten - leavesCleared, iovaAllocations - iovaFrees]).toEqual([seed, 0, 0]);
    }
  }

  test(
    `moves race with maps of those who follow and those who do not: ${seeds.length} orders`,
    { timeout: 600_000 },
    () =>
      everyOrder(seeds, (seed) => {
        const machine = sharingMachine();
        const migrating = deviceMemory(machine).allocate(16 * KiB, "system");
        const { buffer } = migrating;
        number(machine, buffer.exporter.vectors());
        const [one, two] = [new Follower(buffer, machine.near, "in-place"), new Follower(buffer, machine.far, "late")];
        function* use(follower: Follower, from: SharingDevice): Steps<void> {
          for (let i = 0; i < 3; i++) {
            yield* buffer.reservation.acquire();
            const { ranges } = follower.attachment.mapping ?? follower.attachment.map("bidirectional");
            const seen = pageValues(from.read(ranges));
            buffer.reservation.release();
            if (String(seen) !== "1,2,3,4") throw new Error(`${follower.name} read ${seen}`);
            yield "used";
          }
        }
        function* moves(): Steps<void> {
          yield* migrating.migrate(4096, 8192, "device");
          yield "moved";
          yield* migrating.migrate(0, 8192, "device");
          yield* migrating.migrate(0, 16 * KiB, "system");
        }
        interleave(
          Random.fromSeed(seed),
          [
            { name: "near", steps: use(one, machine.near) },
            { name: "far", steps: use(two, machine.far) },
            { name: "mover", steps: moves() },
          ],
          () => {},
        );
      }),
  );
});

describe("one buffer, four kinds of memory", () => {
  test("48 entries, 16 bus addresses, one reservation; a peer without a way refuses all of it", () => {
    const machine = sharingMachine();
    const { host, owner, near, far } = machine;
    const { pages } = host.machine;
    const page = (): PhysAddr => PhysPage.start(pages.allocatePages(1)!);
    // Every second page: scattered.
    const scattered: StorageVec[] = [];
    for (let i = 0; i < 16; i++) {
      scattered.push({ phys: page(), length: 4096 });
      page();
    }
    const huge = PhysPage.start(pages.allocatePages(15)!);
    const vecs: StorageVec[] = [
      ...scattered,
      { phys: owner.provider.bar.phys, length: 16 * 4096, provider: owner.provider },
      { phys: far.provider.bar.phys, length: 16 * 4096, provider: far.provider },
      { phys: huge, length: 15 * 4096 },
      { phys: page(), length: 4096 },
    ];
    number(machine, vecs);
    const buffer = new DmaBuf({
      name: "mixed",
      lengthBytes: 64 * 4096,
      form: "vectors",
      teardown: "at-once",
      vectors: () => vecs,
    });
    const attachment = buffer.attach({
      name: "near",
      dma: near.open.dma,
      ops: { peerToPeer: true, invalidated: () => {} },
    });
    const before = machine.counters(near).snapshot();
    const { ranges } = buffer.reservation.locked(() => attachment.map("to-device"));
    const { leavesWritten, iovaAllocations, mapSyncs } = machine.counters(near).since(before);
    expect([leavesWritten, iovaAllocations, mapSyncs]).toEqual([48, 1, 1]);
    expect(ranges.map(({ length, bus }) => [length / 4096, bus ?? false])).toEqual([
      [16, false],
      [16, true],
      [32, false],
    ]);
    expect(pageValues(near.read(ranges))).toEqual(counted(1, 64));
    expect(buffer.counts.bytesBy).toEqual({ memory: 32 * 4096, "host-bridge": 16 * 4096, bus: 16 * 4096 });
    attachment.detach();
    expect(machine.counters(near).since(before).rangeInvalidations).toBe(1);

    const apart = sharingMachine({ amd: false });
    const stranger = new DmaBuf({
      name: "mixed",
      lengthBytes: 3 * 4096,
      form: "vectors",
      teardown: "at-once",
      vectors: () => [
        { phys: apart.owner.provider.bar.phys, length: 4096, provider: apart.owner.provider },
        ...vecs.slice(0, 1),
        { phys: apart.far.provider.bar.phys, length: 4096, provider: apart.far.provider },
      ],
    });
    const refused = stranger.attach({
      name: "near",
      dma: apart.near.open.dma,
      ops: { peerToPeer: true, invalidated: () => {} },
    });
    const start = apart.counters(apart.near).snapshot();
    expect(() => stranger.reservation.locked(() => refused.map("to-device"))).toThrow(
      expect.objectContaining({ code: "ERR_DMA_BUF_UNREACHABLE" }),
    );
    expect(apart.counters(apart.near).since(start)).toMatchObject({ leavesWritten: 0, iovaAllocations: 0 });
  });
});

describe("when something fails in the middle", () => {
  test("a link, at any vector: nothing is left, and the same map works afterwards", () => {
    const vecs = Array.from({ length: 4 }, (_, i) => ({ phys: (2 ** 30 + i * 2 ** 22) as PhysAddr, length: 2 ** 22 }));
    for (let k = 0; k < 4; k++) {
      const { domain, dma } = plain();
      let calls = 0;
      let at = k;
      const cursor = domain.openLinks.bind(domain);
      domain.openLinks = () => {
        const real = cursor();
        const link = real.map.bind(real);
        real.map = (...args) => {
          if (calls++ === at) throw new DmaError("ERR_DMA_TABLE_MEMORY", "ENOMEM", "no table");
          link(...args);
        };
        return real;
      };
      for (const inPlace of [false, true]) {
        calls = 0;
        at = k;
        const buffer = new DmaBuf({
          name: "own",
          lengthBytes: 2 ** 24,
          form: "vectors",
          teardown: "at-once",
          vectors: () => vecs,
        });
        const ops: ImporterOps = {
          peerToPeer: true,
          invalidated: () => {},
          ...(inPlace && { movedInPlace: () => {} }),
        };
        const attachment = buffer.attach({ name: "one", dma, ops });
        const map = () => buffer.reservation.locked(() => attachment.map("bidirectional"));
        expect(map).toThrow(expect.objectContaining({ code: "ERR_DMA_TABLE_MEMORY" }));
        expect(leftOf(dma)).toEqual([0, 0]);
        at = -1;
        expect(map().ranges).toHaveLength(1);
        attachment.detach();
        expect(leftOf(dma)).toEqual([0, 0]);
      }
    }
  });

  test("a move: no memory, a copy that fails, a link of the new place that fails", () => {
    const machine = sharingMachine();
    const { host, owner, ownPages } = machine;
    const { memory } = host.machine;
    let copies = Number.POSITIVE_INFINITY;
    const failingMemory = {
      read: memory.read.bind(memory),
      write: (address: PhysAddr, bytes: Uint8Array) => {
        if (copies-- <= 0) throw new DmaError("ERR_DMA_BUF_COPY", "EIO", "the copy fails");
        memory.write(address, bytes);
      },
    };
    const buffers = new DeviceMemoryBuffers({
      name: owner.name,
      provider: owner.provider,
      devicePages: ownPages,
      systemPages: host.machine.pages,
      memory: failingMemory,
    });
    const migrating = buffers.allocate(16 * KiB, "system");
    number(machine, migrating.buffer.exporter.vectors());
    const follower = new Follower(migrating.buffer, machine.far, "in-place");
    const ranges = follower.map();
    const start = host.machine.snapshot();
    const code = (steps: Steps<void>): string => {
      try {
        finish(steps);
        return "moved";
      } catch (error) {
        return (error as DmaError).code;
      }
    };
    expect(code(migrating.migrate(0, 16 * KiB * 1024, "device"))).toBe("ERR_DMA_BUF_NO_MEMORY");
    copies = 4;
    expect(code(migrating.migrate(0, 16 * KiB, "device"))).toBe("moved");
    copies = 0;
    expect(code(migrating.migrate(0, 8 * KiB, "system"))).toBe("ERR_DMA_BUF_COPY");
    copies = Number.POSITIVE_INFINITY;
    expect([migrating.placeOf(0), migrating.buffer.reservation.isHeld]).toEqual(["device", false]);
    expect(pageValues(machine.far.read(ranges))).toEqual(counted(1, 4));
    finish(migrating.migrate(0, 16 * KiB, "system"));
    expect(host.machine.leaks(start)).toEqual([]);

    // The mapping cannot follow: it is lost, the importer is told, and maps anew.
    const mapping = follower.attachment.mapping as InPlaceMapping;
    mapping.put = () => {
      throw new DmaError("ERR_DMA_TABLE_MEMORY", "ENOMEM", "no table");
    };
    follower.calls = [];
    expect(code(migrating.migrate(0, 8 * KiB, "device"))).toBe("moved");
    expect([follower.calls, follower.attachment.mapping]).toEqual([["move", "move"], undefined]);
    expect(machine.far.read(ranges)).toBeUndefined();
    expect(pageValues(machine.far.read(follower.map()))).toEqual(counted(1, 4));
  });

  test("a scheduler that lets a move go unfinished leaves the old place, and no lock", () => {
    const machine = sharingMachine();
    const migrating = deviceMemory(machine).allocate(4096, "system");
    const start = machine.host.machine.snapshot();
    const steps = migrating.migrate(0, 4096, "device");
    steps.next();
    steps.return();
    expect([migrating.placeOf(0), migrating.buffer.reservation.isHeld]).toEqual(["system", false]);
    expect(machine.host.machine.leaks(start)).toEqual([]);
  });

  const plain = () => {
    const domain = new DmaDomain({
      layout: vtdSecondStage(),
      unit: new SimulatedUnit(),
      clock: new VirtualClock(),
      mode: "strict",
    });
    return { domain, dma: new Dma({ domain }) };
  };
  const leftOf = ({ counters }: Dma): number[] => [
    counters.leavesWritten - counters.leavesCleared,
    counters.iovaAllocations - counters.iovaFrees,
  ];
});
