/** Capability registers: those of a real machine, and each bit by itself. */
import { describe, expect, test } from "vitest";
import { readCapabilities } from "./index.ts";

describe("a unit's capabilities", () => {
  test("of a machine with legacy mode", () =>
    expect(readCapabilities(0xd2008c222f0606n, 0xf42n, false)).toEqual({
      cachingMode: false,
      writeBuffer: false,
      invalidation: { slotWords: 4, pageSelective: true, maxOrder: 18, drainReads: true, drainWrites: true },
      faultRecords: 1,
      secondStageLevels: [3, 4],
      fiveLevelFirstStage: false,
      domainIds: 65536,
      queuedInvalidation: true,
      deviceTlb: false,
      passThrough: true,
      nested: false,
      pageRequests: false,
      scalableMode: false,
      secondStage: true,
      firstStage: false,
      pasidBits: 0,
      needsPhysicalFunction: false,
      walkSnoop: false,
    }));

  const cap = (bits: bigint) => readCapabilities(bits, 0n, true);
  const ecap = (bits: bigint) => readCapabilities(0n, bits, true);

  test("bit by bit, of CAP", () => {
    expect(cap(0n)).toMatchObject({ domainIds: 16, faultRecords: 1, secondStageLevels: [] });
    expect(cap(1n << 4n).writeBuffer).toBe(true);
    expect(cap(1n << 7n).cachingMode).toBe(true);
    expect(cap(0b1110n << 8n).secondStageLevels).toEqual([3, 4, 5]);
    expect(cap(1n << 39n).invalidation.pageSelective).toBe(true);
    expect(cap(0xffn << 40n).faultRecords).toBe(256);
    expect(cap(0x3fn << 48n).invalidation.maxOrder).toBe(63);
    expect(cap(1n << 54n).invalidation).toMatchObject({ drainWrites: true, drainReads: false });
    expect(cap(1n << 55n).invalidation).toMatchObject({ drainWrites: false, drainReads: true });
    expect(cap(1n << 60n).fiveLevelFirstStage).toBe(true);
  });

  test("bit by bit, of ECAP", () => {
    expect(ecap(1n << 1n).queuedInvalidation).toBe(true);
    expect(ecap(1n << 2n).deviceTlb).toBe(true);
    expect(ecap(1n << 6n).passThrough).toBe(true);
    expect(ecap(1n << 26n).nested).toBe(true);
    expect(ecap(1n << 29n).pageRequests).toBe(true);
    expect(ecap((1n << 40n) | (19n << 35n)).pasidBits).toBe(20);
    expect(ecap(19n << 35n).pasidBits).toBe(0);
    expect(ecap(1n << 41n).needsPhysicalFunction).toBe(true);
    expect(ecap(1n << 43n).scalableMode).toBe(true);
    expect(ecap(1n << 46n).secondStage).toBe(true);
    expect(ecap(1n << 47n).firstStage).toBe(true);
    expect(ecap(1n << 48n).walkSnoop).toBe(true);
  });
});
