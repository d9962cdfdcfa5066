/** Which explanation of a fault comes first, from hand-made surveys. */
import { describe, expect, test } from "vitest";
import type { Holder, Survey } from "./address-history.ts";
import { explain, type FaultInQuestion } from "./judge.ts";

const MS = 1e6;
const NOW = 10_000 * MS;

const holder = (more: Partial<Holder> = {}): Holder => ({
  device: 0,
  kind: 0,
  iova: 0x1000,
  length: 4096,
  direction: 2,
  phys: 0x777000,
  startNs: NOW - 100 * MS,
  endNs: -1,
  began: undefined,
  ended: undefined,
  unsynced: 0,
  linkedEnd: more.length ?? 4096,
  ...more,
});

const NOTHING: Survey = {
  live: [],
  ended: undefined,
  later: undefined,
  behind: undefined,
  before: undefined,
  cut: undefined,
  physical: undefined,
  other: undefined,
  mappings: 5,
};

const WRITE: FaultInQuestion = {
  page: 1,
  address: 0x1000,
  access: "write",
  entry: undefined,
  permission: undefined,
  detached: false,
  timeNs: NOW,
  deviceKnown: true,
};
const READ: FaultInQuestion = { ...WRITE, access: "read" };

const judged = (fault: FaultInQuestion, survey: Partial<Survey>): string[] =>
  explain(fault, { ...NOTHING, ...survey }, { startUnknown: false, namesDevices: true }).map(
    ({ relation, cause, confidence }) => `${relation} ${cause} ${confidence}`,
  );

describe("an address that is mapped", () => {
  test.each([
    ["a read of what was mapped from the device", READ, 2],
    ["a write of what was mapped to the device", WRITE, 1],
  ])("in the wrong direction: %s", (_, fault, direction) => {
    expect(judged(fault, { live: [holder({ direction })] })[0]).toBe("live wrong-direction certain");
  });

  test("is not in the wrong direction if the tables held nothing there", () => {
    const live = [holder({ direction: 1 })];
    const ended = holder({ endNs: NOW - 3 * MS, startNs: NOW - 50 * MS, direction: 2 });
    const best = judged(
      { ...WRITE, entry: "absent" },
      { live: [holder({ direction: 1, startNs: NOW - MS })], ended },
    )[0];
    expect(best).toBe("ended used-after-unmap likely");
    expect(judged({ ...WRITE, entry: "absent" }, { live })[0]).toBe("live wrong-direction possible");
  });

  test("and not synced, or not linked yet", () => {
    expect(judged(WRITE, { live: [holder({ unsynced: 4096 })] })[0]).toBe("live not-synced certain");
    expect(
      judged({ ...WRITE, page: 3, address: 0x3000 }, { live: [holder({ length: 0x8000, linkedEnd: 0x1000 })] })[0],
    ).toBe("live not-linked certain");
  });

  test("and allowed: something still knew what was there before", () => {
    expect(judged(WRITE, { live: [holder()] })).toEqual(["live stale-translation possible"]);
  });

  test("only since a moment ago: the one before was meant", () => {
    const ended = holder({ startNs: NOW - 200 * MS, endNs: NOW - 20 * MS });
    expect(judged(WRITE, { live: [holder({ startNs: NOW - 1 * MS })], ended })[0]).toBe(
      "ended used-after-unmap likely",
    );
    expect(judged(WRITE, { live: [holder({ startNs: NOW - 15 * MS })], ended })[0]).toBe(
      "live stale-translation possible",
    );
  });

  test("by an access that is not told is perhaps in the wrong direction", () => {
    expect(judged({ ...WRITE, access: "unknown" }, { live: [holder()] })[0]).toBe("live wrong-direction possible");
    expect(judged({ ...WRITE, access: "unknown" }, { live: [holder({ direction: 0 })] })[0]).toBe(
      "live stale-translation possible",
    );
  });
});

describe("an address that was mapped", () => {
  const at = (agoMs: number, direction = 2): Holder =>
    holder({ startNs: NOW - 99_000 * MS, endNs: NOW - agoMs * MS, direction });

  test.each([
    [0.1, "certain"],
    [900, "certain"],
    [5_000, "likely"],
    [80_000, "possible"],
  ])("until %d ms before was used too late", (ago, confidence) => {
    expect(judged(WRITE, { ended: at(ago) })[0]).toBe(`ended used-after-unmap ${confidence}`);
  });

  test("until just now, in the wrong direction, has two explanations", () => {
    expect(judged(READ, { ended: at(2) })).toEqual(
      ["ended used-after-unmap certain", "ended wrong-direction possible"].slice(0, 1),
    );
    expect(judged({ ...WRITE, entry: "read-only" }, { ended: at(2, 1) })[0]).toBe("ended wrong-direction certain");
  });

  test("long ago yields to a mapping right before it", () => {
    const behind = { holder: holder({ iova: 0 }), distanceBytes: 0 };
    expect(judged(WRITE, { ended: at(80_000), behind })[0]).toBe("near past-the-end likely");
    expect(judged(WRITE, { ended: at(100), behind })[0]).toBe("ended used-after-unmap certain");
  });
});

describe("an address beside a mapping", () => {
  const near = (distanceBytes: number, more: Partial<Holder> = {}): Survey["behind"] => ({
    holder: holder(more),
    distanceBytes,
  });
  test.each([
    ["right behind it", { behind: near(0) }, "near past-the-end likely"],
    ["some pages behind it", { behind: near(0x4000) }, "near past-the-end likely"],
    ["far behind it", { behind: near(0x20000) }, "near past-the-end possible"],
    ["right before it", { before: near(0x1000) }, "near before-the-start likely"],
  ])("%s", (_, survey, expected) => {
    expect(judged(WRITE, survey)[0]).toBe(expected);
  });
});

describe("an address that lost its upper bits", () => {
  test.each([24, 28, 30, 32, 36, 40, 48])("of %d bits", (bits) => {
    expect(judged(WRITE, { cut: { holder: holder(), bits } })[0]).toBe("cut address-cut likely");
  });

  test("is not the first thought where the very address was unmapped a moment before", () => {
    const ended = holder({ endNs: NOW - 10 * MS });
    expect(judged(WRITE, { cut: { holder: holder(), bits: 28 }, ended })[0]).toBe("ended used-after-unmap certain");
  });
});

describe("an address that was never mapped", () => {
  test.each([
    ["0", { ...WRITE, page: 0, address: 0 }, {}, "never no-address certain"],
    ["all ones", { ...WRITE, page: 2 ** 52 - 1, address: 2 ** 64 }, {}, "never failed-address likely"],
    ["32 ones", { ...WRITE, page: 0xfffff, address: 0xffff_ffff }, {}, "never failed-address likely"],
    ["the byte behind 32 ones", { ...WRITE, page: 0x10_0000, address: 2 ** 32 }, {}, "never unexplained likely"],
    ["the memory's own", WRITE, { physical: holder() }, "never physical-address likely"],
    ["another device's", WRITE, { other: holder({ device: 1 }) }, "never other-device possible"],
    ["of a device that maps nothing", WRITE, { mappings: 0 }, "never maps-nothing likely"],
    [
      "of a device that maps nothing, and another does",
      WRITE,
      { mappings: 0, other: holder({ device: 1 }) },
      "never other-device likely",
    ],
    ["of a device that has no tables", { ...WRITE, detached: true }, {}, "never not-attached certain"],
    ["unexplained", WRITE, {}, "never unexplained likely"],
  ])("%s", (_, fault, survey, expected) => {
    expect(judged(fault, survey)[0]).toBe(expected);
  });

  test("in a recording that began in the midst of things may be from before", () => {
    const found = explain(WRITE, NOTHING, { startUnknown: true, namesDevices: true });
    expect(found.map(({ cause }) => cause)).toEqual(["unexplained", "from-before"]);
    expect(found[0].confidence).toBe("possible");
  });

  test("in a recording without dma events is nobody's by name", () => {
    const found = explain(WRITE, { ...NOTHING, mappings: 0 }, { startUnknown: false, namesDevices: false });
    expect(found[0].cause).toBe("no-device-named");
  });
});

describe("a mapping that no event names a device for", () => {
  const nobodys = (more: Partial<Holder> = {}): Holder => holder({ device: 0xffff, direction: 255, ...more });
  const ask = (fault: FaultInQuestion, survey: Partial<Survey>, namesDevices: boolean): string[] =>
    explain(fault, { ...NOTHING, mappings: 0, ...survey }, { startUnknown: false, namesDevices }).map(
      ({ relation, cause, confidence }) => `${relation} ${cause} ${confidence}`,
    );

  test("makes nothing certain", () => {
    expect(judged(WRITE, { live: [nobodys({ direction: 1 })] })[0]).toBe("live wrong-direction likely");
  });

  test.each([true, false])("may be the device's where that has none by name (others have: %s)", (namesDevices) => {
    expect(ask(WRITE, { live: [nobodys()] }, namesDevices)[0]).toBe("live wrong-direction possible");
    expect(ask({ ...WRITE, entry: "read-only" }, { live: [nobodys()] }, namesDevices)[0]).toBe(
      "live wrong-direction likely",
    );
    expect(ask(WRITE, { ended: nobodys({ endNs: NOW - 10 * MS }) }, namesDevices)[0]).toBe(
      "ended used-after-unmap likely",
    );
    expect(ask(WRITE, { behind: { holder: nobodys(), distanceBytes: 0 } }, namesDevices)[0]).toBe(
      "near past-the-end likely",
    );
    for (const survey of [{ live: [nobodys()] }, { ended: nobodys({ endNs: NOW - 10 * MS }) }])
      expect(ask(WRITE, survey, namesDevices).join()).not.toContain("never");
  });
});

test("without comparable times nothing is certain", () => {
  const untimed = { ...WRITE, timeNs: undefined };
  expect(judged(untimed, { ended: holder({ endNs: NOW }) })[0]).toBe("ended used-after-unmap likely");
  expect(judged({ ...untimed, access: "read" }, { live: [holder()] })[0]).toBe("live wrong-direction likely");
});
