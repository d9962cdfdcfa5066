import { expect, test } from "vitest";
import { SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { vtdSecondStage } from "../layouts/pagetable/index.ts";
import { DmaDomain, type DmaDomainOptions } from "./index.ts";

const given = (): DmaDomainOptions => ({
  layout: vtdSecondStage(),
  unit: new SimulatedUnit(),
  clock: new VirtualClock(),
  mode: "strict",
});

test.each(["layout", "unit", "clock"] as const)(
  "a domain without its %s is refused, and the message names it",
  (part) => {
    for (const wrong of [undefined, null, 1])
      expect(() => new DmaDomain({ ...given(), [part]: wrong } as never)).toThrow(
        expect.objectContaining({ code: "ERR_DMA_DOMAIN", errno: "EINVAL", message: expect.stringContaining(part) }),
      );
  },
);

test("a domain of nothing at all is refused", () => {
  expect(() => new DmaDomain(undefined as never)).toThrow(expect.objectContaining({ code: "ERR_DMA_DOMAIN" }));
});

test.each([-1, 2 ** 16, 2 ** 20, 1.5, Number.NaN, "1"])(
  "a domain number of %s is refused: 16 bits hold it",
  (domainId) => {
    expect(() => new DmaDomain({ ...given(), domainId: domainId as number })).toThrow(
      expect.objectContaining({ code: "ERR_DMA_DOMAIN", message: expect.stringContaining("65535") }),
    );
  },
);

test.each([0, -1, 0.5, Number.NaN])("a last page of %s is refused", (lastPage) => {
  expect(() => new DmaDomain({ ...given(), lastPage })).toThrow(
    expect.objectContaining({ code: "ERR_DMA_DOMAIN", message: expect.stringContaining("lastPage") }),
  );
});

test.each([true, false])(
  "checked %s: a range that is freed twice is given out once, or twice as in Linux",
  (checked) => {
    const domain = new DmaDomain({ ...given(), checked });
    const device = { prefer32: true, busLimitPfn: 0 };
    const reserve = (): number => domain.reserve(1, 0xfffff, device);
    const first = domain.reserve(1, 0xfffff, device);
    domain.release(first, 0, 1);
    domain.release(first, 0, 1);
    expect([reserve(), reserve() === first]).toEqual([first, !checked]);
  },
);

test.each([true, false])(
  "checked %s: a release of more than was reserved is none, or makes a larger range of it",
  (checked) => {
    const domain = new DmaDomain({ ...given(), checked });
    const device = { prefer32: true, busLimitPfn: 0 };
    const pair = domain.reserve(2, 0xfffff, device);
    domain.release(pair, 0, 1); // half of it: the other half is lost while the range is cached
    expect(domain.reserve(1, 0xfffff, device)).toBe(pair);
    domain.release(pair, 0, 2);
    expect(domain.reserve(2, 0xfffff, device) === pair).toBe(!checked);
  },
);
