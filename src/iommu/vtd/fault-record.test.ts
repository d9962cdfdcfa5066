/** Fault records: vectors, every field, and a reason in words for every code of the specification. */
import { describe, expect, test } from "vitest";
import { decodeFaultRecord } from "./index.ts";

describe("a fault record", () => {
  test("vector 14: a write without PASID", () =>
    expect(decodeFaultRecord(0x12345000, 0, 0x00000100, 0x80000005)).toEqual({
      requester: 0x100,
      pasid: undefined,
      page: 0x12345,
      access: "write",
      reason: 5,
      meaning: "not mapped for writing",
    }));

  test("vector 15: a read with PASID", () =>
    expect(decodeFaultRecord(0, 0, 0x80000100, 0xc0012371)).toEqual({
      requester: 0x100,
      pasid: 0x123,
      page: 0,
      access: "read",
      reason: 0x71,
      meaning: "not mapped in the first stage",
    }));

  test("of the highest address, PASID and device", () =>
    expect(decodeFaultRecord(-4096, -1, -1, -1)).toMatchObject({
      requester: 0xffff,
      pasid: 0xfffff,
      page: 2 ** 52 - 1,
      access: "read",
      reason: 0xff,
    }));

  const ranges = [
    [0x00, 0x0d],
    [0x20, 0x26],
    [0x30, 0x32],
    [0x38, 0x3a],
    [0x40, 0x48],
    [0x50, 0x52],
    [0x58, 0x5d],
    [0x70, 0x7c],
    [0x80, 0x87],
    [0x90, 0x90],
  ] as const;

  test("says in words what each reason means, and no more than the specification has", () => {
    const known = (reason: number) => ranges.some(([first, last]) => reason >= first && reason <= last);
    for (let reason = 0; reason < 256; reason++) {
      const { meaning } = decodeFaultRecord(0, 0, 0, reason);
      expect([reason, meaning !== "a reason that the specification reserves"]).toEqual([reason, known(reason)]);
    }
  });
});
