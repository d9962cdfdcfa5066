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
