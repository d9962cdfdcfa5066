import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MiB } from "../../base/index.ts";
import {
  decodeAddresses,
  decodeIdeCapability,
  decodeKeyMessage,
  decodeRequesters,
  decodeSelectiveControl,
  decodeSelectiveStatus,
  encodeAddresses,
  encodeIdeCapability,
  encodeKeyMessage,
  encodeRequesters,
  encodeSelectiveControl,
  encodeSelectiveStatus,
  type IdeCapability,
  type KeyMessage,
  keyLengthFits,
  selectiveBlockAt,
  wholeMebibytes,
} from "./index.ts";

const PORT: IdeCapability = {
  link: true,
  selective: true,
  flowThrough: true,
  aggregation: false,
  keyManagement: true,
  configurationRequests: true,
  algorithms: 1,
  linkClasses: 2,
  selectiveStreams: 8,
  teeLimited: true,
};

describe("the IDE capability", () => {
  test("has its bits where the specification puts them", () => {
    expect(encodeIdeCapability(PORT).toString(16)).toBe("10721c7");
    expect(decodeIdeCapability(0x010721c7)).toEqual(PORT);
  });

  test("counts streams and classes from 1, and none where the kind is not there", () => {
    expect(decodeIdeCapability(0)).toMatchObject({ linkClasses: 0, selectiveStreams: 0 });
    expect(decodeIdeCapability(0x00ff_0002).selectiveStreams).toBe(256);
  });

  test("the block of stream i lies behind the link blocks, 20 bytes and 12 for each address range", () => {
    expect(selectiveBlockAt(0, 0, 3)).toBe(0xc);
    expect(selectiveBlockAt(2, 0, 3)).toBe(0xc + 16);
    expect(selectiveBlockAt(2, 5, 3)).toBe(0xc + 16 + 5 * (20 + 36));
  });
});

describe("a selective stream's registers", () => {
  test("control: enable 0, configuration 9, class 21:19, default 22, TEE-limited 23, id 31:24", () => {
    const control = {
      enabled: true,
      configurationRequests: true,
      trafficClass: 5,
      isDefault: true,
      teeLimited: true,
      id: 254,
    };
    expect(encodeSelectiveControl(control).toString(16)).toBe("fee80201");
    expect(decodeSelectiveControl(0xfee8_0201)).toEqual(control);
  });

  test("status: state 3:0, failure 31", () => {
    expect(decodeSelectiveStatus(encodeSelectiveStatus(2, true))).toEqual({ state: 2, failed: true });
    expect(encodeSelectiveStatus(2, true)).toBe(0x8000_0002);
  });

  test("requesters: limit 23:8 in the first; valid 0, base 23:8, segment 31:24 in the second", () => {
    expect(encodeRequesters({ base: 0x0100, limit: 0x01ff, segment: 3 })).toEqual([0x01_ff00, 0x0301_0001]);
    expect(decodeRequesters(...encodeRequesters(undefined))).toBeUndefined();
  });

  test("addresses: in MiB, the limit inclusive", () => {
    const range = { start: 0x103_4560_0000, end: 0x103_4570_0000 };
    expect(encodeAddresses(range).map((word) => word.toString(16))).toEqual(["45645601", "103", "103"]);
    expect(decodeAddresses(...encodeAddresses(range))).toEqual(range);
    expect(wholeMebibytes({ start: MiB - 1, end: MiB + 1 })).toEqual({ start: 0, end: 2 * MiB });
  });

  test("every range comes back as it was written", () => {
    const mebibytes = fc.integer({ min: 0, max: 2 ** 31 });
    fc.assert(
      fc.property(mebibytes, fc.integer({ min: 1, max: 2 ** 20 }), (first, count) => {
        const range = { start: first * MiB, end: (first + count) * MiB };
        expect(decodeAddresses(...encodeAddresses(range))).toEqual(range);
      }),
    );
  });
});

describe("messages about keys", () => {
  const place = { stream: 3, portIndex: 0, keySet: 1, direction: "transmit", kind: "completion" } as const;
  const messages: KeyMessage[] = [
    { type: "query", portIndex: 1 },
    { type: "queryResponse", portIndex: 1, requester: 0x02_0100, maxPortIndex: 1, registers: [0x1072_1c7, 0] },
    { type: "program", ...place, key: new Uint8Array(32).fill(7), invocation: new Uint8Array(8).fill(1) },
    { type: "programmed", ...place, status: 3 },
    { type: "go", ...place },
    { type: "stop", ...place, direction: "receive", kind: "posted", keySet: 0 },
    { type: "switched", ...place, kind: "non-posted" },
  ];

  test.each(messages)("$type comes back as it was sent", (message) => {
    expect(decodeKeyMessage(encodeKeyMessage(message))).toEqual(message);
  });

  test("the place is set 0, direction 1, kind 7:4", () => {
    expect(encodeKeyMessage(messages[4]!)[5]).toBe(0x23);
  });

  test("a key of another length is seen, not cut", () => {
    const bytes = encodeKeyMessage(messages[2]!);
    expect(keyLengthFits(decodeKeyMessage(bytes) as never)).toBe(true);
    expect(keyLengthFits(decodeKeyMessage(bytes.slice(0, -1)) as never)).toBe(false);
  });

  test("no bytes make the decoder throw", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => void decodeKeyMessage(bytes)));
  });
});
