/** Requests and reports of a virtio-iommu, byte for byte as the specification draws them, and back. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { IovaPage, PhysPage } from "../../base/index.ts";
import { decodeFault, encodeFault, FAULT_REASON } from "./faults.ts";
import {
  decodeRequest,
  encodeRequest,
  MAP_FLAG,
  putStatus,
  STATUS,
  statusOf,
  type VirtioIommuRequest,
} from "./requests.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const page = (n: number): IovaPage => n as IovaPage;

describe("a request is", () => {
  test.each<[string, VirtioIommuRequest, string]>([
    [
      "attach: head, domain, endpoint, flags, reserved, tail",
      { type: "attach", domain: 7, endpoint: 0x0108 },
      "01000000" + "07000000" + "08010000" + "00000000" + "00000000" + "ff000000",
    ],
    [
      "detach: head, domain, endpoint, reserved, tail",
      { type: "detach", domain: 7, endpoint: 0x0108 },
      "02000000" + "07000000" + "08010000" + "0000000000000000" + "ff000000",
    ],
    [
      "map: head, domain, first and last byte, memory, flags, tail",
      {
        type: "map",
        domain: 1,
        first: page(0xfffff),
        last: page(0x100000),
        phys: 0x12_3456_7890 as PhysPage,
        flags: MAP_FLAG.read | MAP_FLAG.mmio,
      },
      "03000000" + "01000000" + "00f0ffff00000000" + "ff0f000001000000" + "0000896745230100" + "05000000" + "ff000000",
    ],
    [
      "unmap: head, domain, first and last byte, reserved, tail; up to the last of 64 bits",
      { type: "unmap", domain: 1, first: page(2 ** 52 - 1), last: page(2 ** 52 - 1) },
      "04000000" + "01000000" + "00f0ffffffffffff" + "ffffffffffffffff" + "00000000" + "ff000000",
    ],
  ])("%s", (_title, request, bytes) => {
    expect(hex(encodeRequest(request))).toBe(bytes);
    expect(decodeRequest(encodeRequest(request))).toEqual(request);
  });

  test("read back as it was written, whatever it is", () => {
    const number = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    const pages = fc
      .tuple(fc.maxSafeNat(), fc.maxSafeNat())
      .map((two) => two.map((n) => n % 2 ** 52).sort((a, b) => a - b));
    const requests = fc.oneof(
      fc.record({ type: fc.constantFrom("attach" as const, "detach" as const), domain: number, endpoint: number }),
      fc
        .record({ domain: number, pages, phys: fc.maxSafeNat(), flags: number })
        .map(({ domain, pages, phys, flags }) => ({
          type: "map" as const,
          domain,
          first: page(pages[0]!),
          last: page(pages[1]!),
          phys: (phys % 2 ** 52) as PhysPage,
          flags,
        })),
      fc.record({ domain: number, pages }).map(({ domain, pages }) => ({
        type: "unmap" as const,
        domain,
        first: page(pages[0]!),
        last: page(pages[1]!),
      })),
    );
    fc.assert(fc.property(requests, (request) => void expect(decodeRequest(encodeRequest(request))).toEqual(request)));
  });

  test("without a status until the device writes one", () => {
    const bytes = encodeRequest({ type: "detach", domain: 1, endpoint: 2 });
    expect(Object.values(STATUS)).not.toContain(statusOf(bytes));
    putStatus(bytes, STATUS.noEntry);
    expect(statusOf(bytes)).toBe(STATUS.noEntry);
  });
});

describe("bytes that are no request say why", () => {
  const map = encodeRequest({ type: "map", domain: 1, first: page(1), last: page(2), phys: 3 as PhysPage, flags: 1 });
  const changed = (bytes: Uint8Array, at: number, value: number): Uint8Array => {
    const copy = bytes.slice();
    copy[at] = value;
    return copy;
  };
  test.each<[string, Uint8Array, number]>([
    ["none at all", new Uint8Array(0), STATUS.unsupported],
    ["an unknown type", changed(map, 0, 9), STATUS.unsupported],
    ["too short", map.subarray(0, 39), STATUS.invalid],
    ["a first byte inside a page", changed(map, 8, 1), STATUS.range],
    ["a last byte inside a page", changed(map, 16, 0xfe), STATUS.range],
    ["memory inside a page", changed(map, 25, 1), STATUS.range],
    ["an end before the start", changed(map, 17, 0x0f), STATUS.invalid],
    [
      "flags of an attachment",
      changed(encodeRequest({ type: "attach", domain: 1, endpoint: 1 }), 12, 2),
      STATUS.invalid,
    ],
  ])("%s", (_title, bytes, status) => {
    expect(decodeRequest(bytes)).toEqual({ type: "invalid", status, reason: expect.any(String) });
  });

  test("and none makes the decoder throw", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 48 }), (bytes) => void decodeRequest(bytes)));
  });
});

describe("a fault report", () => {
  test("is reason, flags, endpoint, address", () => {
    const report = { reason: FAULT_REASON.mapping, access: "write", endpoint: 0x100, address: 0x12_3456_7000 } as const;
    expect(hex(encodeFault(report))).toBe("02000000" + "02010000" + "00010000" + "00000000" + "0070563412000000");
    expect(decodeFault(encodeFault(report))).toEqual(report);
  });

  test("without an address says 0; fewer bytes are none", () => {
    const bytes = encodeFault({ reason: FAULT_REASON.unknown, access: "read", endpoint: 1, address: 4096 });
    bytes[5] = 0;
    expect(decodeFault(bytes)?.address).toBe(0);
    expect(decodeFault(bytes.subarray(1))).toBeUndefined();
  });
});
