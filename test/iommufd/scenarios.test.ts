/** User mappings, case by case: what iommufd and type 1 containers do to tables, pins and accounts. */
import { describe, expect, test } from "vitest";
import {
  ALL_RULES,
  ChargedPages,
  type Ioas,
  Iommufd,
  readDirty,
  setDirtyTracking,
  type TableAccess,
} from "../../src/consumers/iommufd/index.ts";
import { Type1Container } from "../../src/consumers/vfio/index.ts";
import { SimulatedFile } from "../../src/hosts/simulated/process/index.ts";
import { amdV1 } from "../../src/layouts/pagetable/index.ts";
import { MiB, Stand, someUser, VA } from "./stand.ts";

const RW: TableAccess = { read: true, write: true, mmio: false };
const PAGE = 4096n;
const GROUND = 0x1000_0000n;
const errnoOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    return (error as { errno: string }).errno;
  }
};

/** A container of one device, with three mappings: 4, 4 and 2 pages, the first two side by side. */
function container(v2: boolean) {
  const stand = new Stand();
  const process = stand.process();
  const va = stand.memory(process, 64 * 4096);
  const device = stand.device();
  const type1 = new Type1Container({ v2 });
  type1.attach({ devices: [device] });
  const layout = [
    [GROUND, 4n],
    [GROUND + 4n * PAGE, 4n],
    [GROUND + 10n * PAGE, 2n],
  ] as const;
  for (const [iova, pages] of layout) type1.map(process, va + (iova - GROUND), iova, pages * PAGE, RW);
  return { stand, process, va, device, type1 };
}

describe("unmapping from a container goes by its type: [asked from page, pages, removed by v1, by v2]", () => {
  test.each([
    ["just one mapping", 0n, 4n, 4n, 4n],
    ["two mappings", 0n, 8n, 8n, 8n],
    ["a hole with them", 4n, 16n, 6n, 6n],
    ["from the middle of a mapping", 1n, 3n, 0n, "EINVAL"],
    ["from the middle, over whole ones", 1n, 11n, 0n, "EINVAL"],
    ["from the start into the middle", 0n, 2n, 4n, "EINVAL"],
    ["into the middle of a later one", 0n, 6n, 8n, "EINVAL"],
    ["where nothing is", 32n, 4n, 0n, 0n],
  ] as const)("%s", (_name, from, pages, v1, v2) => {
    for (const [isV2, expected] of [
      [false, v1],
      [true, v2],
    ] as const) {
      const { type1, process } = container(isV2);
      const before = process.memory.locked.pages;
      const unmap = (): bigint => type1.unmap(GROUND + from * PAGE, pages * PAGE);
      if (expected === "EINVAL") expect(errnoOf(unmap)).toBe("EINVAL");
      else expect(unmap()).toBe(expected * PAGE);
      const removed = expected === "EINVAL" ? 0 : Number(expected);
      expect(process.memory.locked.pages).toBe(before - removed);
    }
  });
});

describe("a limit of ten pages", () => {
  const setUp = (options = {}) => {
    const stand = new Stand();
    const process = stand.process({ memlockBytes: 10 * 4096 });
    const va = stand.memory(process, 16 * 4096);
    const iommufd = new Iommufd(options);
    const spaces = [iommufd.createIoas(), iommufd.createIoas()] as [Ioas, Ioas];
    for (const ioas of spaces) iommufd.attach(iommufd.bind(stand.device()), ioas.id);
    return { stand, process, va, iommufd, spaces };
  };

  test("holds six pages once: another container, or another map of them, is refused; a copy is not", () => {
    const { process, va, iommufd, spaces } = setUp();
    iommufd.map(spaces[0], process, va, { iova: GROUND, length: 6n * PAGE });
    expect(errnoOf(() => iommufd.map(spaces[1], process, va, { iova: GROUND, length: 6n * PAGE }))).toBe("ENOMEM");
    iommufd.copy(spaces[0], GROUND, spaces[1], { iova: GROUND, length: 6n * PAGE });
    expect([process.user.locked.pages, process.memory.pinned.pages]).toEqual([6, 6]);
    spaces[0].unmapAll();
    expect(process.user.locked.pages).toBe(6);
    spaces[1].unmapAll();
    expect([process.user.locked.pages, process.memory.pinned.pages]).toEqual([0, 0]);

    const other = container(true);
    other.process.memlockBytes = 12 * 4096; // ten are locked already
    const second = new Type1Container({ v2: true });
    second.attach({ devices: [other.stand.device()] });
    expect(errnoOf(() => second.map(other.process, other.va, GROUND, 6n * PAGE, RW))).toBe("ENOMEM");
    expect(other.process.memory.locked.pages).toBe(10);
  });

  test("beyond Linux: with pages charged once to a user, a second map of them costs nothing", () => {
    const { process, va, iommufd, spaces } = setUp({ chargedPages: new ChargedPages() });
    for (const ioas of spaces) iommufd.map(ioas, process, va, { iova: GROUND, length: 6n * PAGE });
    expect([process.user.locked.pages, process.memory.pinned.pages]).toEqual([6, 12]);
    spaces[0].unmapAll();
    expect(process.user.locked.pages).toBe(6);
    spaces[1].unmapAll();
    expect([process.user.locked.pages, process.memory.pinned.pages]).toEqual([0, 0]);
  });
});

test("two megabytes are one leaf, or 512 without large pages; a container may be cut only then", () => {
  const stand = new Stand({ hugePages: 4 });
  const process = stand.process();
  const va = stand.memory(process, 2 * MiB, VA, true);
  const leafAt = (large: boolean): [number, string] => {
    const iommufd = new Iommufd();
    const ioas = iommufd.createIoas();
    ioas.setLargePages(large);
    const device = iommufd.bind(stand.device());
    const hwpt = iommufd.attach(device, ioas.id);
    iommufd.map(ioas, process, va, { iova: 0x4000_0000n, length: BigInt(2 * MiB) });
    const { leafUnits } = hwpt.paging.table.leafAt(0x40000)!;
    return [leafUnits, errnoOf(() => ioas.cut(0x4000_0fffn))];
  };
  expect(leafAt(true)).toEqual([512, "EINVAL"]);
  expect(leafAt(false)).toEqual([1, "none"]);
});

test("three writes to a large leaf dirty all its pages, and three of small ones; reading clears unless told not to", () => {
  for (const [huge, dirty] of [
    [true, 512],
    [false, 3],
  ] as const) {
    const stand = new Stand({ layout: amdV1({ leafSizes: [0, 9] }), dirty: true, hugePages: 4 });
    const process = stand.process();
    const va = stand.memory(process, 2 * MiB, VA, true);
    const iommufd = new Iommufd();
    const ioas = iommufd.createIoas();
    if (!huge) ioas.setLargePages(false);
    const device = stand.device();
    const bound = iommufd.bind(device);
    const hwpt = iommufd.createHwpt({ device: bound.id, parent: ioas.id, flags: 2 }).paging;
    iommufd.attach(bound, hwpt.id);
    iommufd.map(ioas, process, va, { iova: 0x4000_0000n, length: BigInt(2 * MiB) });
    stand.reach(device, 0x4000_9000);
    setDirtyTracking(hwpt, true); // what was written before does not count
    for (const page of [1, 77, 300]) stand.reach(device, 0x4000_0000 + page * 4096);
    const read = (clear: boolean): number => {
      let pages = 0n;
      const request = { iova: 0x4000_0000n, length: BigInt(2 * MiB), pageBytes: PAGE, clear };
      readDirty(hwpt, request, (_page, count) => {
        pages += count;
      });
      return Number(pages);
    };
    expect([read(false), read(false), read(true), read(true)]).toEqual([dirty, dirty, dirty, 0]);
  }
});

test("an access that lets go lets an unmap through; one that does not ends it, and the area stays for devices alone", () => {
  const stand = new Stand();
  const process = stand.process();
  const va = stand.memory(process, 8 * 4096);
  const iommufd = new Iommufd();
  const ioas = iommufd.createIoas();
  const device = stand.device();
  iommufd.attach(iommufd.bind(device), ioas.id);
  iommufd.map(ioas, process, va, { iova: GROUND, length: 8n * PAGE });
  let asked = 0;
  let isStubborn = true;
  const access = iommufd.createAccess({
    pins: true,
    onUnmap: () => {
      asked++;
      if (!isStubborn) access.unpin(GROUND, PAGE);
    },
  });
  access.use(ioas);
  access.pin(GROUND, PAGE, true);
  expect(errnoOf(() => ioas.unmap(GROUND, 8n * PAGE))).toBe("EDEADLK");
  expect(asked).toBe(101);
  expect(stand.reach(device, Number(GROUND))).toBe(stand.pageOf(process.memory, VA));
  expect(errnoOf(() => access.pin(GROUND, PAGE, true))).toBe("EINVAL");
  isStubborn = false;
  expect(ioas.unmap(GROUND, 8n * PAGE)).toBe(8n * PAGE);
  expect(stand.reach(device, Number(GROUND))).toBe(-1);
  expect(process.memory.pinned.pages).toBe(0);
});

test("a replacement that fails leaves the old translation as it was", () => {
  const stand = new Stand();
  const process = stand.process();
  const va = stand.memory(process, 8 * 4096);
  const iommufd = new Iommufd();
  const [one, other] = [iommufd.createIoas(), iommufd.createIoas()];
  const device = stand.device();
  const bound = iommufd.bind(device);
  iommufd.attach(bound, one.id);
  iommufd.map(one, process, va, { iova: GROUND, length: PAGE });
  iommufd.map(other, process, va, { iova: 1n << 60n, length: PAGE }); // beyond what the table can hold
  expect(errnoOf(() => iommufd.replace(bound, other.id))).toBe("EADDRINUSE");
  expect(stand.reach(device, Number(GROUND))).toBe(stand.pageOf(process.memory, VA));
  expect([other.tables.length, other.usable]).toEqual([0, [{ first: 0n, last: 2n ** 64n - 1n }]]);
});

test("an unmap that would cut the last of three areas: Linux removes the others first; by the rule nothing is removed", () => {
  for (const rules of [{}, ALL_RULES]) {
    const stand = new Stand();
    const process = stand.process();
    const va = stand.memory(process, 16 * 4096);
    const iommufd = new Iommufd({ rules });
    const ioas = iommufd.createIoas();
    iommufd.attach(iommufd.bind(stand.device()), ioas.id);
    for (let i = 0n; i < 3n; i++) iommufd.map(ioas, process, va, { iova: GROUND + i * 4n * PAGE, length: 4n * PAGE });
    expect(errnoOf(() => ioas.unmap(GROUND, 10n * PAGE))).toBe("ENOENT");
    expect([ioas.areas.length, process.memory.pinned.pages]).toEqual("unmapIsAtomic" in rules ? [3, 12] : [1, 4]);
  }
});

test("pages that a copy or an access still has stay pinned when the first mapping goes with its whole leaf", () => {
  const stand = new Stand();
  const process = stand.process();
  const va = stand.memory(process, 8 * 4096);
  const iommufd = new Iommufd();
  const [one, other] = [iommufd.createIoas(), iommufd.createIoas()];
  for (const ioas of [one, other]) iommufd.attach(iommufd.bind(stand.device()), ioas.id);
  iommufd.map(one, process, va, { iova: GROUND, length: 8n * PAGE });
  iommufd.copy(one, GROUND + 2n * PAGE, other, { iova: GROUND, length: 2n * PAGE });
  const access = iommufd.createAccess({ pins: true });
  access.use(other);
  access.pin(GROUND, PAGE, true);
  expect(one.unmap(GROUND, 8n * PAGE)).toBe(8n * PAGE);
  expect(stand.pins(process.memory, 8)).toEqual([0, 0, 1, 1, 0, 0, 0, 0]);
  expect(process.user.locked.pages).toBe(2);
  access.unpin(GROUND, PAGE);
  other.unmapAll();
  expect([process.user.locked.pages, process.memory.pinned.pages]).toEqual([0, 0]);
});

test("files may change hands: over the new owner's limit nothing changes, and not with other memory among them", () => {
  const stand = new Stand();
  const [old, next] = [stand.process(), stand.process({ memlockBytes: 4 * 4096, user: someUser() })];
  const file = new SimulatedFile({ frames: stand.frames, name: "memory", length: 8 * 4096 });
  const iommufd = new Iommufd();
  const ioas = iommufd.createIoas();
  iommufd.attach(iommufd.bind(stand.device()), ioas.id);
  iommufd.mapFile(ioas, old, file, 0n, { iova: GROUND, length: 8n * PAGE });
  expect(errnoOf(() => iommufd.changeProcess(next))).toBe("ENOMEM");
  expect([old.user.locked.pages, next.user.locked.pages]).toEqual([8, 0]);
  next.memlockBytes = 8 * 4096;
  iommufd.changeProcess(next);
  expect([old.user.locked.pages, next.user.locked.pages, old.memory.pinned.pages]).toEqual([0, 8, 0]);
  iommufd.map(ioas, old, stand.memory(old, 4096), { iova: 2n * GROUND, length: PAGE });
  expect(errnoOf(() => iommufd.changeProcess(old))).toBe("EINVAL");
  ioas.unmapAll();
  expect([old.user.locked.pages, next.user.locked.pages]).toEqual([0, 0]);
});

test("a file that is sealed or has no memory is refused at once by the rule, and by Linux when pages are needed", () => {
  for (const [rules, expected] of [
    [{}, "none"],
    [ALL_RULES, "EPERM"],
  ] as const) {
    const stand = new Stand();
    const file = new SimulatedFile({ frames: stand.frames, name: "sealed", length: 4096 });
    file.seals.add("write");
    const iommufd = new Iommufd({ rules });
    const ioas = iommufd.createIoas();
    const map = (): bigint => iommufd.mapFile(ioas, stand.process(), file, 0n, { iova: GROUND, length: PAGE });
    expect(errnoOf(map)).toBe(expected);
    const other = { kind: "terminal", acquire: () => {}, release: () => {} };
    const mapOther = (): bigint => iommufd.mapFile(ioas, stand.process(), other, 0n, { length: PAGE });
    expect(errnoOf(mapOther)).toBe(expected === "none" ? "none" : "EINVAL");
  }
});

test("a dirty bitmap over a hole, or in pages of an odd size: Linux answers what is not so, the rules refuse", () => {
  for (const [rules, expected] of [
    [{}, "none"],
    [ALL_RULES, "EINVAL"],
  ] as const) {
    const stand = new Stand({ layout: amdV1(), dirty: true });
    const process = stand.process();
    const iommufd = new Iommufd({ rules });
    const ioas = iommufd.createIoas();
    const device = iommufd.bind(stand.device());
    const hwpt = iommufd.createHwpt({ device: device.id, parent: ioas.id, flags: 2 }).paging;
    iommufd.map(ioas, process, stand.memory(process, 4 * 4096), { iova: GROUND, length: 4n * PAGE });
    const read = (length: bigint, pageBytes: bigint): string =>
      errnoOf(() => readDirty(hwpt, { iova: GROUND, length, pageBytes, clear: true }, () => {}));
    expect([read(4n * PAGE, PAGE), read(8n * PAGE, PAGE), read(4n * PAGE, 0x1800n)]).toEqual([
      "none",
      expected,
      expected,
    ]);
  }
});
