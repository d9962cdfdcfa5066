/** Every step of every call that maps is made to fail, one after the other: nothing of the call stays, and then it succeeds. */
import { expect, test } from "vitest";
import { type DomainTable, Iommufd } from "../../src/consumers/iommufd/index.ts";
import { NthFailure, Stand, VA } from "./stand.ts";

const PAGE = 4096n;
const GROUND = 0x1000_0000n;

test.each(["map", "copy", "another table", "attach", "pin"] as const)("%s", (call) => {
  const failures = new NthFailure();
  const stand = new Stand();
  const process = stand.process();
  const va = stand.memory(process, 32 * 4096);
  const iommufd = new Iommufd({ failurePoint: failures.point, pinBatchPages: 4 });
  const [ioas, bare] = [iommufd.createIoas(), iommufd.createIoas()];
  const device = iommufd.bind(stand.device());
  const hwpt = iommufd.attach(device, ioas.id);
  iommufd.map(ioas, process, va, { iova: GROUND, length: 8n * PAGE });
  iommufd.map(bare, process, va, { iova: GROUND, length: 16n * PAGE });
  const other = iommufd.bind(stand.device());
  const access = iommufd.createAccess({ pins: true, failurePoint: failures.point });
  access.use(bare);
  const to = { iova: 2n * GROUND, length: 16n * PAGE };
  const calls = {
    map: () => iommufd.map(ioas, process, va + 8n * PAGE, to),
    copy: () => iommufd.copy(ioas, GROUND, ioas, { ...to, length: 8n * PAGE }),
    "another table": () => iommufd.createHwpt({ device: device.id, parent: ioas.id }),
    attach: () => iommufd.attach(other, bare.id),
    pin: () => access.pin(GROUND, 16n * PAGE, true),
  };
  const state = (): unknown => ({
    ids: [...iommufd.objects].map(({ id, kind, users }) => [id, kind, users]),
    areas: [ioas, bare].map(({ areas, tables, alignment, usable }) => [areas.length, tables.length, alignment, usable]),
    entries: [...(hwpt.paging.table as DomainTable).domain.table.entries()].filter(({ leaf }) => leaf).length,
    pins: stand.pins(process.memory, 32),
    charged: [process.user.locked.pages, process.memory.pinned.pages],
    reached: stand.pageOf(process.memory, VA) === hwpt.paging.table.leafAt(Number(GROUND / PAGE))?.phys,
  });
  const before = state();
  let failed = 0;
  for (let n = 1; ; n++) {
    failures.left = n;
    failures.wasHit = false;
    try {
      calls[call]();
    } catch {
      expect(failures.wasHit).toBe(true);
    }
    if (!failures.wasHit) break;
    failed++;
    failures.left = 0;
    expect(state()).toEqual(before);
  }
  expect(failed).toBeGreaterThanOrEqual(1);
  expect(state()).not.toEqual(before);
});
