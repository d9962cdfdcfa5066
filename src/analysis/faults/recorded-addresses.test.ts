/** The address history of a recording, against a slow one that is obviously right; and that its memory is bounded. */
import { describe, expect, test } from "vitest";
import { Random } from "../../base/index.ts";
import { SampleTrace } from "../findings/sample-trace.ts";
import { History, type Place } from "../lifetimes/history.ts";
import { LifetimeTable, TRANSLATED } from "../lifetimes/table.ts";
import type { Survey } from "./address-history.ts";
import { RecordedAddresses, RING_ROWS, type Unattributed, type UnattributedPieces } from "./recorded-addresses.ts";

const NOBODYS: Unattributed = {
  pieces: () => ({ used: 0, isLive: () => false }) as unknown as UnattributedPieces,
  takenBy: () => new Map(),
};

interface Life {
  readonly device: number;
  readonly iova: number;
  readonly length: number;
  readonly startNs: number;
  readonly endNs: number;
}

/** A history that was fed `lives`; those that end at -1 are live. */
function recorded(lives: readonly Life[]): RecordedAddresses {
  const table = new LifetimeTable();
  const history = new History();
  const now = { timeNs: 0, cpu: 3, pid: 42, task: 1, type: 5, site: 0 };
  const addresses = new RecordedAddresses(table, now as Place, history, NOBODYS);
  const ordered = [...lives].sort((a, b) => (a.endNs < 0 ? 1 : 0) - (b.endNs < 0 ? 1 : 0) || a.endNs - b.endNs);
  for (const { device, iova, length, startNs, endNs } of ordered) {
    const row = take(table, device, iova, length);
    table.startNs[row] = startNs;
    table.endNs[row] = endNs;
    if (endNs < 0) continue;
    now.timeNs = endNs;
    addresses.lifetime(table, row);
    table.release(row);
  }
  return addresses;
}

function take(table: LifetimeTable, device: number, iova: number, length: number): number {
  const row = table.take();
  table.device[row] = device;
  table.iova[row] = iova;
  table.handle[row] = -1;
  table.kind[row] = 0;
  table.direction[row] = 2;
  table.reached[row] = TRANSLATED;
  table.length[row] = length;
  table.reserved[row] = length;
  table.phys[row] = iova + 2 ** 40;
  table.enter(row);
  return row;
}

const ask = (addresses: RecordedAddresses, device: number, address: number, timeNs: number | undefined): Survey =>
  addresses.survey({ device, page: Math.floor(address / 4096), address, timeNs, toleranceNs: 0 });

const holds = ({ iova, length }: Life, address: number): boolean =>
  Math.floor(address / 4096) >= Math.floor(iova / 4096) &&
  Math.floor(address / 4096) <= Math.floor((iova + length - 1) / 4096);

describe("who had this address at this time", () => {
  test("is answered as one would by looking at all lives", () => {
    const random = Random.fromSeed(3);
    for (let round = 0; round < 40; round++) {
      const lives = Array.from({ length: 60 }, (): Life => {
        const startNs = random.below(1000);
        const live = random.chance(1, 6);
        return {
          device: random.below(3),
          iova: random.below(64) * 4096 + random.below(4096),
          length: 1 + random.below(8192),
          startNs,
          endNs: live ? -1 : startNs + 1 + random.below(300),
        };
      });
      const addresses = recorded(lives);
      for (let i = 0; i < 30; i++) {
        const [device, address, timeNs] = [random.below(3), random.below(70) * 4096, random.below(1200)];
        const survey = ask(addresses, device, address, timeNs);
        const own = lives.filter((life) => life.device === device && holds(life, address) && life.startNs <= timeNs);
        const live = own.filter(({ endNs }) => endNs < 0 || endNs > timeNs);
        expect(survey.live.map(({ iova }) => iova).sort()).toEqual(
          [...live]
            .sort((a, b) => b.startNs - a.startNs)
            .slice(0, 4)
            .map(({ iova }) => iova)
            .sort(),
        );
        const ended = own.filter(({ endNs }) => endNs >= 0 && endNs <= timeNs);
        expect(survey.ended?.endNs).toBe(ended.length === 0 ? undefined : Math.max(...ended.map(({ endNs }) => endNs)));
      }
    }
  });

  test("says how far off the neighbours are, live ones before those that have ended", () => {
    const addresses = recorded([
      { device: 0, iova: 0xe000, length: 0x800, startNs: 0, endNs: -1 },
      { device: 0, iova: 0x20000, length: 0x1000, startNs: 0, endNs: -1 },
      { device: 0, iova: 0x11000, length: 0x800, startNs: 0, endNs: 50 },
    ]);
    const { behind, before } = ask(addresses, 0, 0x12000, 100);
    expect(behind).toMatchObject({ holder: { iova: 0x11000 }, distanceBytes: 0x800 });
    expect(before).toMatchObject({ holder: { iova: 0x20000 }, distanceBytes: 0xe000 });
    const close = recorded([
      { device: 0, iova: 0x11000, length: 0x800, startNs: 0, endNs: -1 },
      { device: 0, iova: 0x11900, length: 0x100, startNs: 0, endNs: 50 },
    ]);
    expect(ask(close, 0, 0x12000, 100).behind).toMatchObject({ holder: { iova: 0x11000 }, distanceBytes: 0x800 });
  });

  test.each([
    [0x0ffff000, 0xfffff000, 28],
    [0x0ffff000, 0x1_0fff_f000, 32],
    [0x7654_3000, 0x12_7654_3000, 33],
    [0x00ab_c000, 0xff_00ab_c000, 32],
  ])("knows 0x%d as 0x%d with its upper bits lost", (address, iova, bits) => {
    const addresses = recorded([{ device: 0, iova, length: 0x1000, startNs: 0, endNs: -1 }]);
    expect(ask(addresses, 0, address, 100).cut).toMatchObject({ holder: { iova }, bits });
  });

  test("finds no lost bits where the page is another, or the device", () => {
    const addresses = recorded([{ device: 0, iova: 0xfffff000, length: 0x1000, startNs: 0, endNs: -1 }]);
    expect(ask(addresses, 0, 0x0fffe000, 100).cut).toBeUndefined();
    expect(ask(addresses, 1, 0x0ffff000, 100).cut).toBeUndefined();
  });

  test("knows the memory's own address, and another device's", () => {
    const addresses = recorded([{ device: 1, iova: 0x5000, length: 0x1000, startNs: 0, endNs: -1 }]);
    expect(ask(addresses, 1, 0x5000 + 2 ** 40, 100).physical).toMatchObject({ iova: 0x5000 });
    expect(ask(addresses, 0, 0x5000, 100)).toMatchObject({ live: [], other: { device: 1 } });
  });

  test("without a time counts everything, and nothing is later", () => {
    const addresses = recorded([{ device: 0, iova: 0x5000, length: 0x1000, startNs: 500, endNs: 600 }]);
    expect(ask(addresses, 0, 0x5000, 100)).toMatchObject({ live: [], ended: undefined, later: { startNs: 500 } });
    expect(ask(addresses, 0, 0x5000, undefined)).toMatchObject({ live: [{ startNs: 500 }], ended: { endNs: 600 } });
  });
});

test("memory is bounded: what has fallen out of the ring is known by its last end", () => {
  const table = new LifetimeTable();
  const history = new History();
  const now = { timeNs: 0, cpu: 0, pid: 1, task: 1, type: 1, site: 0 };
  const addresses = new RecordedAddresses(table, now as Place, history, NOBODYS);
  const end = (i: number, iova: number): void => {
    const row = take(table, 0, iova, 4096);
    table.startNs[row] = i;
    table.endNs[row] = i + 1;
    now.timeNs = i + 1;
    const start = { timeNs: i, cpu: 0, pid: 1, task: 1, type: 1, site: 0 };
    history.ended(0, iova, 4096, start, now);
    addresses.lifetime(table, row);
    table.release(row);
  };
  end(0, 0x7777_0000); // once, and never again
  const count = RING_ROWS * 2;
  for (let i = 1; i < count; i++) end(i, (i % 1000) * 4096);
  expect(ask(addresses, 0, 0x7777_0000, count).ended).toMatchObject({ startNs: 0, endNs: 1, direction: 255 });
  // What is in both is told as the ring has it, with everything.
  expect(ask(addresses, 0, 5 * 4096, count).ended).toMatchObject({ direction: 2, phys: 5 * 4096 + 2 ** 40 });
});

test("the event that ended a mapping is remembered with its task", async () => {
  const trace = new SampleTrace()
    .map("0000:00:04.0", 0x1000, 0x9000, 512)
    .on(1, "other-7")
    .unmap("0000:00:04.0", 0x1000, 512);
  const { findings } = await trace
    .event("io_page_fault", "IOMMU:nvme 0000:00:04.0 iova=0x0000000000001000 flags=0x0001")
    .check();
  expect(findings[0]).toMatchObject({
    rule: "device-fault",
    mapping: { relation: "ended", mappedBy: "test-1", endedBy: "other-7" },
  });
});
