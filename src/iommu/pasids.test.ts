/** PASIDs: who gets which number, and every reason not to attach one. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PASID_LIMIT, PasidAllocator, refusePasid } from "./index.ts";

describe("PASIDs", () => {
  test("are the lowest free ones, from 1 on", () => {
    const pasids = new PasidAllocator();
    expect([pasids.allocate(), pasids.allocate(), pasids.allocate()]).toEqual([1, 2, 3]);
    pasids.free(2);
    pasids.free(2);
    expect([pasids.allocate(), pasids.allocate()]).toEqual([2, 4]);
  });

  test("run out at the device's limit, and a failed allocation takes nothing", () => {
    const pasids = new PasidAllocator();
    for (let pasid = 1; pasid < 8; pasid++) expect(pasids.allocate(8)).toBe(pasid);
    expect(() => pasids.allocate(8)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_PASID_EXHAUSTED", errno: "ENOSPC" }),
    );
    expect([pasids.inUse, pasids.allocate(9)]).toEqual([7, 8]);
  });

  test("equal those of a plain search, whatever is freed", () =>
    fc.assert(
      fc.property(fc.array(fc.option(fc.integer({ min: 0, max: 20 }))), (steps) => {
        const pasids = new PasidAllocator();
        const model = new Set<number>();
        for (const freed of steps) {
          if (freed !== null) {
            pasids.free(freed);
            model.delete(freed);
            continue;
          }
          let lowest = 1;
          while (model.has(lowest)) lowest++;
          expect(pasids.allocate()).toBe(lowest);
          model.add(lowest);
        }
        expect(pasids.inUse).toBe(model.size);
      }),
    ));
});

describe("a PASID is attached", () => {
  const group = { devices: 1, pasidIsolated: false, owned: true, recovering: false };
  const good = { requester: 0x100, pasid: 5, supported: true, limit: PASID_LIMIT, inUse: false, group };

  test("if nothing speaks against it", () => {
    expect(refusePasid(good)).toBeUndefined();
    expect(refusePasid({ ...good, group: { ...group, devices: 2, pasidIsolated: true } })).toBeUndefined();
  });

  test.each([
    ["the device is in no group", { group: undefined }, "ENODEV"],
    ["the unit or its driver cannot", { supported: false }, "EOPNOTSUPP"],
    ["the device cannot send PASIDs", { limit: 1 }, "EINVAL"],
    ["it is the one of requests without", { pasid: 0 }, "EINVAL"],
    ["it is out of range", { pasid: PASID_LIMIT }, "EINVAL"],
    ["somebody else owns the group", { group: { ...group, owned: false } }, "EINVAL"],
    ["the group's devices are not isolated", { group: { ...group, devices: 2 } }, "EINVAL"],
    ["its entry is in use", { inUse: true }, "EBUSY"],
    ["the device is in recovery", { group: { ...group, recovering: true } }, "EBUSY"],
  ] as const)("not if %s", (_why, changed, errno) => {
    expect(refusePasid({ ...good, ...changed })).toMatchObject({ errno });
  });
});
