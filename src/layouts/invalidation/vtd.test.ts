/** VT-d descriptors: the vectors, building and reading are inverse, reserved bits by hand, and what each cache needs. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { IovaPage, PhysAddr } from "../../base/index.ts";
import {
  blockStart,
  CONTEXT_GRANULARITY,
  type DeviceTlb,
  decodeVtd,
  END_OF_PAGES,
  encodeVtd,
  IOTLB_GRANULARITY,
  PAGE_RESPONSE,
  PASID_CACHE_GRANULARITY,
  PASID_IOTLB_GRANULARITY,
  VTD_TYPE,
  type VtdCacheTag,
  type VtdDescriptor,
  type VtdInvalidationTraits,
  writeCacheTag,
} from "./index.ts";

const page = (address: number): IovaPage => (address / 4096) as IovaPage;
const quads = (words: Uint32Array, at = 0): [bigint, bigint] => [
  (BigInt(words[at + 1]!) << 32n) | BigInt(words[at]!),
  (BigInt(words[at + 3]!) << 32n) | BigInt(words[at + 2]!),
];
const encoded = (descriptor: VtdDescriptor): Uint32Array => {
  const words = new Uint32Array(4).fill(0xa5a5a5a5);
  encodeVtd(descriptor, words, 0);
  return words;
};

const unit: VtdInvalidationTraits = {
  slotWords: 4,
  pageSelective: true,
  maxOrder: 18,
  drainReads: true,
  drainWrites: true,
};
const second: VtdCacheTag = { cache: "iotlb", stage: "second", domainId: 5, pasid: 0 };
const first: VtdCacheTag = { cache: "iotlb", stage: "first", domainId: 5, pasid: 0 };
const deviceTlb = (queueDepth: number): VtdCacheTag => ({
  cache: "device-tlb",
  device: { sourceId: 0x100, pfSourceId: 0, queueDepth },
  pasid: 0,
  whole: false,
  twice: false,
});
/** What is sent for the bytes [from, to]. */
const sent = (tag: VtdCacheTag, from: number, to: number, leafOnly = true, traits = unit): [bigint, bigint] => {
  const words = new Uint32Array(4);
  expect(writeCacheTag(words, 0, traits, tag, page(from), page(to + 1), leafOnly)).toBe(1);
  return quads(words);
};

describe("VT-d invalidation: vectors", () => {
  const everything = [0, END_OF_PAGES] as const;
  const whole = (tag: VtdCacheTag): [bigint, bigint] => {
    const words = new Uint32Array(4);
    writeCacheTag(words, 0, unit, tag, everything[0] as IovaPage, everything[1], false);
    return quads(words);
  };
  test("vector 4: two pages across 2 GiB are domain-selective on a unit that reaches order 18", () =>
    expect(sent(second, 0x7ffff000, 0x80000fff)).toEqual([0x500e2n, 0n]));
  test("vector 7: IOTLB page-selective", () =>
    expect(sent(second, 0xffffe000, 0xffffffff)).toEqual([0x500f2n, 0xffffe041n]));
  test("vector 8: PASID IOTLB page-selective", () =>
    expect(sent(first, 0xffffe000, 0xffffffff)).toEqual([0x50036n, 0xffffe041n]));
  test("vector 9: PASID IOTLB, all of a PASID", () => expect(whole(first)).toEqual([0x50026n, 0n]));
  test("vector 10: device TLB, two pages", () =>
    expect(sent(deviceTlb(8), 0xffffe000, 0xffffffff)).toEqual([0x0000010000080003n, 0xffffe001n]));
  test("vector 11: device TLB, four pages", () =>
    expect(sent(deviceTlb(8), 0xffffc000, 0xffffffff)).toEqual([0x0000010000080003n, 0xffffd001n]));
  test.each([
    [0xfffff000, 0, 0xfffff000n],
    [0xffffc000, 1, 0xffffc001n],
    [0xffff8000, 2, 0xffff9001n],
    [0xffff0000, 3, 0xffff3001n],
    [0xffc00000, 9, 0xffcff001n],
  ])("vector 11a: device TLB with queue depth 0 at %i, order %i", (address, order, qw1) =>
    expect(sent(deviceTlb(0), address, address + 4096 * 2 ** order - 1)).toEqual([0x0000010000000003n, qw1]),
  );
  test("vector 11b: IOTLB, whole domain", () => expect(whole(second)).toEqual([0x500e2n, 0n]));
  test("vector 11c: tables were freed, so cached pointers to them go too", () =>
    expect(sent(second, 0xff400000, 0xff7fffff, false)).toEqual([0x500f2n, 0xff40000an]));
  test("vector 11d: a new mapping in caching mode", () =>
    expect(sent(second, 0xffffc000, 0xffffdfff, false)).toEqual([0x500f2n, 0xffffc001n]));
  test("vector 12: wait", () => {
    const wait = { interrupt: false, statusWrite: true, fence: false, drainPageRequests: false, statusData: 2 };
    const statusAddress = 0x123456788 as PhysAddr;
    expect(quads(encoded({ type: "wait", ...wait, statusAddress }))).toEqual([0x0000000200000025n, 0x123456788n]);
  });
  test("vector 13: page-group response", () => {
    const answer = { pasidPresent: true, pasid: 0x123, requesterId: 0x100, groupIndex: 0x1a };
    const words = encoded({ type: "page-group-response", ...answer, code: PAGE_RESPONSE.success });
    expect(quads(words)).toEqual([0x0000012301000019n, 0xd0n]);
  });
});

describe("what a cache needs", () => {
  test("is domain-selective on a unit without page-selective invalidation", () =>
    expect(sent(second, 0x1000, 0x1fff, true, { ...unit, pageSelective: false })).toEqual([0x500e2n, 0n]));
  test("drains only what the unit can drain", () =>
    expect(sent(second, 0x1000, 0x1fff, true, { ...unit, drainReads: false })).toEqual([0x50072n, 0x1040n]));
  test("has no largest order in the first stage", () => expect(sent(first, 0, 2 ** 50 - 1)).toEqual([0x50036n, 0x66n]));
  test("is page-selective in the first stage up to half of everything", () => {
    const words = new Uint32Array(4);
    writeCacheTag(words, 0, unit, first, 0 as IovaPage, (2 ** 51) as IovaPage, true);
    expect(quads(words)).toEqual([0x50036n, 0x73n]);
    writeCacheTag(words, 0, unit, first, 0 as IovaPage, (2 ** 51 + 1) as IovaPage, true);
    expect(quads(words)).toEqual([0x50026n, 0n]);
  });
  test("names the PASID of a device's translations if there is one", () => {
    const device: DeviceTlb = { sourceId: 0x100, pfSourceId: 0x123, queueDepth: 32 };
    const tag: VtdCacheTag = { cache: "device-tlb", device, pasid: 7, whole: false, twice: false };
    expect(sent(tag, 0xffffc000, 0xffffffff)).toEqual([0x0120000701003008n, 0xffffd800n]);
  });
  test("is all of a device's translations behind nested tables, whatever the range", () => {
    const tag: VtdCacheTag = { ...(deviceTlb(8) as Extract<VtdCacheTag, { cache: "device-tlb" }>), whole: true };
    expect(sent(tag, 0x1000, 0x1fff)[1]).toBe(0x7ffffffffffff001n);
  });
  test.each([4, 8] as const)(
    "is the same descriptor twice for a device with the erratum, in slots of %i words",
    (slotWords) => {
      const tag: VtdCacheTag = { ...(deviceTlb(8) as Extract<VtdCacheTag, { cache: "device-tlb" }>), twice: true };
      const words = new Uint32Array(16);
      expect(writeCacheTag(words, 0, { ...unit, slotWords }, tag, page(0x1000), page(0x2000), true)).toBe(2);
      expect(quads(words, slotWords)).toEqual(quads(words));
      expect(quads(words)).toEqual([0x0000010000080003n, 0x1000n]);
    },
  );
});

const bits = (n: number): fc.Arbitrary<number> => fc.maxSafeNat().map((value) => value % 2 ** n);
const pages = fc
  .tuple(fc.integer({ min: 0, max: 52 }), bits(52))
  .map(([width, value]) => (value % 2 ** width) as IovaPage);
const blocks = fc
  .tuple(pages, fc.integer({ min: 0, max: 52 }))
  .map(([any, order]) => ({ page: blockStart(any, order), order }));
const flag = fc.boolean();
const devices = { sourceId: bits(16), pfSourceId: bits(16), queueDepth: fc.integer({ min: 1, max: 32 }) };
const oneOf = <T>(values: Record<string, T>): fc.Arbitrary<T> => fc.constantFrom(...Object.values(values));
const descriptors: fc.Arbitrary<VtdDescriptor> = fc.oneof(
  fc.record({
    type: fc.constant("context-cache" as const),
    granularity: oneOf(CONTEXT_GRANULARITY),
    domainId: bits(16),
    sourceId: bits(16),
    functionMask: bits(2),
  }),
  fc.record({
    type: fc.constant("iotlb" as const),
    granularity: oneOf(IOTLB_GRANULARITY),
    domainId: bits(16),
    page: pages,
    order: bits(6),
    leafOnly: flag,
    drainReads: flag,
    drainWrites: flag,
  }),
  fc.tuple(blocks, fc.record(devices)).map(([block, device]) => ({ type: "device-tlb" as const, ...block, ...device })),
  fc.record({
    type: fc.constant("interrupt-entry-cache" as const),
    selective: flag,
    index: bits(16),
    indexMask: bits(5),
  }),
  fc.record({
    type: fc.constant("wait" as const),
    interrupt: flag,
    statusWrite: flag,
    fence: flag,
    drainPageRequests: flag,
    statusData: bits(32),
    statusAddress: bits(50).map((value) => (value * 4) as PhysAddr),
  }),
  fc.record({
    type: fc.constant("pasid-iotlb" as const),
    granularity: oneOf(PASID_IOTLB_GRANULARITY),
    domainId: bits(16),
    pasid: bits(20),
    page: pages,
    order: bits(6),
    leafOnly: flag,
  }),
  fc.record({
    type: fc.constant("pasid-cache" as const),
    granularity: oneOf(PASID_CACHE_GRANULARITY),
    domainId: bits(16),
    pasid: bits(20),
  }),
  fc
    .tuple(blocks, fc.record(devices), bits(20))
    .map(([block, device, pasid]) => ({ type: "pasid-device-tlb" as const, pasid, ...block, ...device })),
  fc.record({
    type: fc.constant("page-group-response" as const),
    pasidPresent: flag,
    pasid: bits(20),
    requesterId: bits(16),
    code: oneOf(PAGE_RESPONSE),
    groupIndex: bits(9),
  }),
);

/** By type, the fields as the specification writes them: bits [high, low] of 128. */
const FIELDS: Readonly<Record<number, readonly (readonly [number, number])[]>> = {
  [VTD_TYPE.contextCache]: [
    [5, 0],
    [31, 16],
    [47, 32],
    [49, 48],
  ],
  [VTD_TYPE.iotlb]: [
    [7, 0],
    [31, 16],
    [69, 64],
    [70, 70],
    [127, 76],
  ],
  [VTD_TYPE.deviceTlb]: [
    [3, 0],
    [15, 12],
    [20, 16],
    [47, 32],
    [63, 52],
    [64, 64],
    [127, 76],
  ],
  [VTD_TYPE.interruptEntryCache]: [
    [4, 0],
    [31, 27],
    [47, 32],
  ],
  [VTD_TYPE.wait]: [
    [7, 0],
    [63, 32],
    [127, 66],
  ],
  [VTD_TYPE.pasidIotlb]: [
    [5, 0],
    [31, 16],
    [51, 32],
    [69, 64],
    [70, 70],
    [127, 76],
  ],
  [VTD_TYPE.pasidCache]: [
    [5, 0],
    [31, 16],
    [51, 32],
  ],
  [VTD_TYPE.pasidDeviceTlb]: [
    [8, 0],
    [15, 12],
    [31, 16],
    [51, 32],
    [63, 52],
    [75, 75],
    [127, 76],
  ],
  [VTD_TYPE.pageGroupResponse]: [
    [4, 0],
    [15, 12],
    [31, 16],
    [51, 32],
    [75, 67],
  ],
};

describe("a VT-d descriptor", () => {
  test("is read back as it was written, of every type and value", () => {
    fc.assert(
      fc.property(descriptors, (descriptor) => {
        expect(decodeVtd(encoded(descriptor), 0, 4)).toEqual(descriptor);
      }),
      { numRuns: 2_000 },
    );
  });

  test("sets no bit outside the fields of its type, and any such bit makes it invalid", () => {
    fc.assert(
      fc.property(descriptors, (descriptor) => {
        const words = encoded(descriptor);
        const fields = FIELDS[words[0]! & 0xf]!;
        for (let bit = 0; bit < 128; bit++) {
          if (fields.some(([high, low]) => bit >= low && bit <= high)) continue;
          const changed = words.map((word, i) => (i === bit >> 5 ? word ^ (1 << (bit & 31)) : word));
          expect([bit, changed[bit >> 5]! > words[bit >> 5]!, decodeVtd(changed, 0, 4)]).toEqual([
            bit,
            true,
            { type: "invalid", reason: bit >= 9 && bit <= 11 ? "unknown type" : "reserved bits" },
          ]);
        }
      }),
      { numRuns: 200 },
    );
  });

  test("leaves the upper half of a 256-bit slot alone, and is invalid with anything in it", () => {
    fc.assert(
      fc.property(descriptors, fc.integer({ min: 4, max: 7 }), (descriptor, i) => {
        const words = new Uint32Array(16);
        encodeVtd(descriptor, words, 8);
        expect([...words.subarray(0, 8), ...words.subarray(12)]).toEqual(new Array(12).fill(0));
        expect(decodeVtd(words, 8, 8)).toEqual(descriptor);
        words[8 + i] = 1;
        expect(decodeVtd(words, 8, 8)).toEqual({ type: "invalid", reason: "reserved bits" });
      }),
    );
  });

  test.each([0, 10, 11, 12, 13, 14, 15])("of type %i is invalid", (type) =>
    expect(decodeVtd(Uint32Array.of(type, 0, 0, 0), 0, 4)).toEqual({ type: "invalid", reason: "unknown type" }),
  );

  test.each([
    [VTD_TYPE.contextCache, 0],
    [VTD_TYPE.iotlb, 0],
    [VTD_TYPE.pasidIotlb, 0],
    [VTD_TYPE.pasidIotlb, 1],
    [VTD_TYPE.pasidCache, 2],
  ])("of type %i with granularity %i is invalid", (type, granularity) =>
    expect(decodeVtd(Uint32Array.of(type | (granularity << 4), 0, 0, 0), 0, 4)).toEqual({
      type: "invalid",
      reason: "granularity",
    }),
  );

  test("with a status address that no machine has is invalid, not misread", () =>
    expect(decodeVtd(Uint32Array.of(0x25, 2, 0, 0x200000), 0, 4)).toEqual({
      type: "invalid",
      reason: "address beyond 2^53",
    }));

  const responses = {
    type: "page-group-response",
    pasidPresent: true,
    pasid: 1,
    requesterId: 1,
    groupIndex: 1,
  } as const;
  const refused: readonly (readonly [string, VtdDescriptor])[] = [
    ["domainId", { type: "pasid-cache", granularity: 0, domainId: 0x10000, pasid: 0 }],
    ["pasid", { type: "pasid-cache", granularity: 0, domainId: 0, pasid: 2 ** 20 }],
    ["code", { ...responses, code: 16 }],
    ["groupIndex", { ...responses, code: 0, groupIndex: 512 }],
    ["sourceId", { type: "context-cache", granularity: 3, domainId: 0, sourceId: -1, functionMask: 0 }],
    ["functionMask", { type: "context-cache", granularity: 3, domainId: 0, sourceId: 0, functionMask: 4 }],
  ];
  test.each(refused)("whose %s does not fit is refused and writes nothing", (_field, descriptor) => {
    const words = Uint32Array.of(1, 2, 3, 4);
    expect(() => encodeVtd(descriptor, words, 0)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_INVALIDATION_FIELD", errno: "EINVAL" }),
    );
    expect([...words]).toEqual([1, 2, 3, 4]);
  });
});
