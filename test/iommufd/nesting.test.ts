/** A guest's own tables nested on an address space, walked in two stages by a VT-d unit. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, Random } from "../../src/base/index.ts";
import type { DomainTable, NestedHwpt } from "../../src/consumers/iommufd/index.ts";
import { HWPT_FLAGS } from "../../src/layouts/uapi/index.ts";
import { many } from "../effort.ts";
import { firstStage, invalidation, NestingStand, words } from "./nesting-stand.ts";
import { VA } from "./stand.ts";

const errnoOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    return (error as { errno: string }).errno;
  }
};

/** A guest whose memory is one area at 0, its device behind its own tables. */
function guest(ramBytes?: number) {
  const stand = new NestingStand(ramBytes);
  const { iommufd, device, process } = stand;
  const ram = iommufd.createIoas();
  iommufd.map(ram, process, BigInt(VA), { iova: 0n, length: stand.ramBytes });
  const parent = iommufd.createHwpt({ device: device.id, parent: ram.id, flags: HWPT_FLAGS.NEST_PARENT }).paging;
  const data = words(firstStage(BigInt(stand.root)));
  const nested = iommufd.createHwpt({ device: device.id, parent: parent.id, data }) as NestedHwpt;
  iommufd.attach(device, nested.id);
  return { stand, ram, parent, nested };
}

describe("a guest's tables below an address space", () => {
  test("lead its device to the guest's pages; what it clears is reached until it says so, and not after", () => {
    const { stand, nested } = guest();
    stand.map(0x7000_0000, 5 * PAGE_SIZE);
    expect(stand.reach(0x7000_0000)).toBe(stand.pageOf(5 * PAGE_SIZE));
    stand.clear(0x7000_0000);
    expect(stand.reach(0x7000_0000)).toBe(stand.pageOf(5 * PAGE_SIZE)); // the unit remembers it, as units do
    expect(nested.invalidation.invalidate([invalidation(0x7000_0000n, 1n)])).toEqual({ done: 1 });
    expect(stand.reach(0x7000_0000)).toBe(-1);
    stand.map(0x7000_0000, 6 * PAGE_SIZE);
    expect(stand.reach(0x7000_0000)).toBe(stand.pageOf(6 * PAGE_SIZE));
  });

  test("never lead beyond the memory that the host gave it, neither by a leaf nor by a table", () => {
    const { stand } = guest();
    const outside = Number(stand.ramBytes) + 7 * PAGE_SIZE;
    stand.map(0x7000_0000, outside);
    expect(stand.reach(0x7000_0000)).toBe(-1);
    const broken = guest().stand;
    broken.map(0x8000_0000, 0);
    const root = new Uint8Array(8);
    new DataView(root.buffer).setBigUint64(0, BigInt(outside + 0x27), true);
    broken.process.memory.write((VA + broken.root) as never, root);
    expect(broken.reach(0x8000_0000)).toBe(-1);
  });

  test("lose what the host takes from the guest, without a word of the guest", () => {
    const { stand, ram } = guest();
    stand.map(0x7000_0000, 5 * PAGE_SIZE);
    expect(stand.reach(0x7000_0000)).toBeGreaterThan(0);
    ram.unmapAll();
    expect(stand.reach(0x7000_0000)).toBe(-1);
    expect(stand.process.memory.pinned.pages).toBe(0);
  });

  test("keep their parent; destroyed in order they leave nothing", () => {
    const { stand, ram, parent, nested } = guest();
    const { iommufd, device } = stand;
    expect(errnoOf(() => iommufd.destroy(parent.id))).toBe("EBUSY");
    expect(errnoOf(() => iommufd.destroy(nested.id))).toBe("EBUSY"); // the device is at it
    iommufd.detach(device);
    expect(stand.reach(0x7000_0000)).toBe(-1);
    for (const { id } of [nested, parent, ram]) iommufd.destroy(id);
    expect([iommufd.objects.size, stand.process.memory.pinned.pages]).toEqual([1, 0]); // the device
    expect(stand.iommu.takeNumber()).toBe(1); // every domain number is free again
  });

  test("are refused where a table cannot be that", () => {
    const stand = new NestingStand();
    const { iommufd, device } = stand;
    const ram = iommufd.createIoas();
    const plain = iommufd.createHwpt({ device: device.id, parent: ram.id });
    const parent = iommufd.createHwpt({ device: device.id, parent: ram.id, flags: HWPT_FLAGS.NEST_PARENT });
    const make = (bytes: Uint8Array, on = parent.id, type = 1): string =>
      errnoOf(() => iommufd.createHwpt({ device: device.id, parent: on, data: words(bytes, type) }));
    expect({
      "not a parent": make(firstStage(0n), plain.id),
      "other words": make(firstStage(0n), parent.id, 2),
      "flags that the unit lacks": make(firstStage(0n, 48, 1n)),
      "a width that no table has": make(firstStage(0n, 39)),
      "a table in the middle of a page": make(firstStage(0x1008n)),
      "good words": make(firstStage(0x1000n)),
    }).toEqual({
      "not a parent": "EINVAL",
      "other words": "EOPNOTSUPP",
      "flags that the unit lacks": "EOPNOTSUPP",
      "a width that no table has": "EINVAL",
      "a table in the middle of a page": "EINVAL",
      "good words": "none",
    });
    // Five levels are beyond this unit: the table is made, as Linux makes it, and the attachment refused, changing nothing.
    iommufd.attach(device, plain.id);
    const wide = iommufd.createHwpt({ device: device.id, parent: parent.id, data: words(firstStage(0n, 57)) });
    expect(errnoOf(() => iommufd.replace(device, wide.id))).not.toBe("none");
    expect(device.hwptOf()).toBe(plain);
  });

  test("take invalidations in order up to a bad one, and say how many were done", () => {
    const { stand, nested } = guest();
    for (const page of [0, 1, 2]) stand.map(0x7000_0000 + page * PAGE_SIZE, page * PAGE_SIZE);
    const reached = (): boolean[] => [0, 1, 2].map((page) => stand.reach(0x7000_0000 + page * PAGE_SIZE) >= 0);
    expect(reached()).toEqual([true, true, true]);
    for (const page of [0, 1, 2]) stand.clear(0x7000_0000 + page * PAGE_SIZE);
    const { done, refused } = nested.invalidation.invalidate([
      invalidation(0x7000_0000n, 1n),
      invalidation(0x7000_1001n, 1n),
      invalidation(0x7000_2000n, 1n),
    ]);
    expect([done, (refused as unknown as { errno: string }).errno]).toEqual([1, "EINVAL"]);
    expect(reached()).toEqual([false, true, true]);
    expect(nested.invalidation.invalidate([invalidation(0n, 2n ** 64n - 1n)])).toEqual({ done: 1 });
    expect(reached()).toEqual([false, false, false]);
    const bad = [invalidation(0x1000n, 2n ** 64n - 1n), invalidation(0n, 0n), invalidation(0n, 1n, 2)];
    expect(bad.map((entry) => nested.invalidation.invalidate([entry]).done)).toEqual([0, 0, 0]);
  });

  test("say by their device what the unit is, for a virtual one", () => {
    const { device } = new NestingStand();
    const { type, data } = device.hardware.hardwareInfo(0);
    expect([type, data.length, new DataView(data.buffer).getBigUint64(16, true)]).toEqual([1, 24, 0x400_0000n]);
    expect(errnoOf(() => device.hardware.hardwareInfo(2))).toBe("EOPNOTSUPP");
  });

  test("work for one PASID beside the device's own", () => {
    const stand = new NestingStand();
    const { iommufd, device, process } = stand;
    const ram = iommufd.createIoas();
    iommufd.map(ram, process, BigInt(VA), { iova: 0n, length: stand.ramBytes });
    const flags = HWPT_FLAGS.NEST_PARENT | HWPT_FLAGS.PASID;
    const parent = iommufd.createHwpt({ device: device.id, parent: ram.id, flags }).paging;
    iommufd.attach(device, parent.id);
    const data = words(firstStage(BigInt(stand.root)));
    const nested = iommufd.createHwpt({ device: device.id, parent: parent.id, flags: HWPT_FLAGS.PASID, data });
    iommufd.attach(device, nested.id, 5);
    stand.map(0x7000_0000, 9 * PAGE_SIZE);
    const page = (0x7000_0000 / PAGE_SIZE) as never;
    expect(stand.hardware.translate(stand.requester, page, "read", 5)).toBe(stand.pageOf(9 * PAGE_SIZE));
    expect(stand.hardware.translate(stand.requester, 9 as never, "read")).toBe(stand.pageOf(9 * PAGE_SIZE));
    iommufd.detach(device, 5);
    expect(stand.hardware.translate(stand.requester, page, "read", 5)).toBe(-1);
    expect(stand.hardware.translate(stand.requester, 9 as never, "read")).toBe(stand.pageOf(9 * PAGE_SIZE));
  });
});

test("a storm of maps of a nested guest costs the host a call for 32 unmaps, and neither pins nor table writes", () => {
  const PAIRS = many(500);
  const LIVE = 64;
  const { stand, parent, nested } = guest(8 * 2 ** 20);
  const { counters } = (parent.table as DomainTable).domain;
  const { process } = stand;
  const random = Random.fromSeed(15);
  const live: number[] = [];
  const before = {
    written: counters.leavesWritten,
    cleared: counters.leavesCleared,
    locked: process.user.locked.pages,
  };
  const pinRuns = process.memory.pinRuns.bind(process.memory);
  let pins = 0;
  process.memory.pinRuns = (...args: Parameters<typeof pinRuns>) => {
    pins++;
    return pinRuns(...args);
  };
  let waiting: Uint8Array[] = [];
  let gone: number[] = [];
  let calls = 0;
  const forward = (): void => {
    calls++;
    expect(nested.invalidation.invalidate(waiting)).toEqual({ done: waiting.length });
    for (const iova of gone) expect(stand.reach(iova)).toBe(-1);
    [waiting, gone] = [[], []];
  };
  const unmap = (iova: number): void => {
    stand.clear(iova);
    waiting.push(invalidation(BigInt(iova), 1n));
    gone.push(iova);
    if (waiting.length === 32) forward();
  };
  const slots = 1024;
  for (let i = 0; i < PAIRS; i++) {
    const iova = 0x7000_0000 + (i % slots) * PAGE_SIZE;
    const target = random.below(1500) * PAGE_SIZE;
    stand.map(iova, target);
    expect(stand.reach(iova)).toBe(stand.pageOf(target));
    live.push(iova);
    if (live.length > LIVE) unmap(live.shift()!);
  }
  while (live.length > 0) unmap(live.shift()!);
  if (waiting.length > 0) forward();
  expect({
    pins,
    written: counters.leavesWritten - before.written,
    cleared: counters.leavesCleared - before.cleared,
    calls,
    locked: process.user.locked.pages,
  }).toMatchObject({ pins: 0, written: 0, cleared: 0, calls: Math.ceil(PAIRS / 32), locked: before.locked });
});
