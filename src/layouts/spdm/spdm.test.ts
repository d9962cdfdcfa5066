import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeDiscovered,
  decodeMeasurements,
  decodeObject,
  decodeRecord,
  decodeSpdmRequest,
  decodeSpdmResponse,
  encodeDiscovered,
  encodeMeasurements,
  encodeObject,
  encodeRecord,
  encodeSpdmRequest,
  encodeSpdmResponse,
  type Measurement,
  OBJECT_TYPE,
  PCI_SIG,
  PROTOCOL,
  SPDM_REQUEST,
  SPDM_RESPONSE,
  type SpdmRequest,
  type SpdmResponse,
  withLength,
  withoutLength,
} from "./index.ts";

const filled = (value: number, length = 32): Uint8Array => new Uint8Array(length).fill(value);

describe("a data object", () => {
  test("is vendor, type, length in dwords with the header's two, and whole dwords", () => {
    const bytes = encodeObject({
      vendor: PCI_SIG,
      type: OBJECT_TYPE.securedSpdm,
      payload: Uint8Array.of(9, 8, 7, 6, 5),
    });
    expect([...bytes]).toEqual([1, 0, 2, 0, 4, 0, 0, 0, 9, 8, 7, 6, 5, 0, 0, 0]);
    expect(decodeObject(bytes)?.payload).toEqual(Uint8Array.of(9, 8, 7, 6, 5, 0, 0, 0));
  });

  test("is none unless it is as long as it says", () => {
    const bytes = encodeObject({ vendor: PCI_SIG, type: 1, payload: filled(1) });
    expect(decodeObject(bytes.slice(0, -4))).toBeUndefined();
    expect(decodeObject(bytes.slice(0, 7))).toBeUndefined();
  });

  test("the longest, 2^18 dwords, has length 0", () => {
    const bytes = encodeObject({ vendor: PCI_SIG, type: 1, payload: new Uint8Array(2 ** 20 - 8) });
    expect(bytes[4]! | bytes[5]! | bytes[6]!).toBe(0);
    expect(decodeObject(bytes)?.payload.length).toBe(2 ** 20 - 8);
  });

  test("discovery answers vendor, type, and the next index", () => {
    expect(decodeDiscovered(encodeDiscovered(PCI_SIG, 2, 0))).toEqual({ vendor: 1, type: 2, next: 0 });
  });
});

describe("SPDM", () => {
  const requests: SpdmRequest[] = [
    { type: "getVersion" },
    { type: "getDigests" },
    { type: "getCertificate", slot: 0, offset: 1024, length: 512 },
    { type: "getMeasurements", which: 0xff, slot: 0 },
    { type: "getMeasurements", which: 3, slot: 1, nonce: filled(5) },
    { type: "keyExchange", slot: 0, sessionId: 0xbeef, random: filled(1), exchange: filled(2) },
    { type: "finish", verify: filled(3) },
    { type: "endSession" },
    { type: "vendorDefined", protocol: PROTOCOL.tdisp, message: Uint8Array.of(0x10, 0x81) },
  ];
  const responses: SpdmResponse[] = [
    { type: "getVersion", versions: [0x12] },
    { type: "getDigests", slots: 0b11, digests: [filled(1), filled(2)] },
    { type: "getCertificate", slot: 0, portion: filled(4, 700), remainder: 20 },
    { type: "getMeasurements", blocks: 2, record: filled(1, 90), nonce: filled(2), signature: filled(3) },
    {
      type: "keyExchange",
      sessionId: 1,
      random: filled(1),
      exchange: filled(2),
      signature: filled(3),
      verify: filled(4),
    },
    { type: "finish" },
    { type: "endSession" },
    { type: "vendorDefined", protocol: PROTOCOL.ideKeys, message: filled(9, 12) },
    { type: "error", error: "decrypt" },
  ];

  test("codes are those of the specification", () => {
    expect(Object.values(SPDM_REQUEST)).toEqual([0x81, 0x82, 0x84, 0xe0, 0xe4, 0xe5, 0xec, 0xfe]);
    expect(Object.values(SPDM_RESPONSE)).toEqual([0x01, 0x02, 0x04, 0x60, 0x64, 0x65, 0x6c, 0x7e, 0x7f]);
  });

  test.each(requests)("the request $type comes back as it was sent, filled up to whole dwords or not", (request) => {
    const bytes = encodeSpdmRequest(request);
    expect(decodeSpdmRequest(bytes)).toEqual({ request });
    expect(decodeSpdmRequest(Uint8Array.of(...bytes, 0, 0, 0))).toEqual({ request });
  });

  test.each(responses)("the response $type comes back as it was sent, filled up to whole dwords or not", (response) => {
    const bytes = encodeSpdmResponse(response);
    expect(decodeSpdmResponse(bytes, { signed: true })).toEqual(response);
    expect(decodeSpdmResponse(Uint8Array.of(...bytes, 0, 0, 0), { signed: true })).toEqual(response);
  });

  test("what is cut short is an invalid request, what is unknown an unsupported one", () => {
    expect(decodeSpdmRequest(encodeSpdmRequest(requests[5]!).slice(0, 40))).toEqual({ error: "invalidRequest" });
    expect(decodeSpdmRequest(Uint8Array.of(0x12, 0xe6, 0, 0))).toEqual({ error: "unsupportedRequest" });
    expect(decodeSpdmRequest(Uint8Array.of(0x10, 0x81, 0, 0))).toEqual({ error: "invalidRequest" });
  });

  test("measurements come back as they were sent", () => {
    const blocks: Measurement[] = [
      { index: 1, measured: "immutableRom", value: filled(1) },
      { index: 2, measured: "mutableFirmware", value: filled(2) },
      { index: 3, measured: "firmwareConfiguration", value: Uint8Array.of(1, 2, 3), raw: true },
    ];
    const record = encodeMeasurements(blocks);
    expect([...record.subarray(0, 7)]).toEqual([1, 1, 35, 0, 0, 32, 0]);
    expect(decodeMeasurements(record)).toEqual(blocks);
    expect(decodeMeasurements(record.slice(0, -1))).toBeUndefined();
  });

  test("a record of a session is id, length, sealed bytes, tag", () => {
    const record = { sessionId: 0xffff_0001, sealed: withLength(filled(6, 5)), tag: filled(9, 16) };
    const bytes = encodeRecord(record);
    expect([...bytes.subarray(0, 6)]).toEqual([0x01, 0x00, 0xff, 0xff, 7 + 16, 0]);
    expect(decodeRecord(Uint8Array.of(...bytes, 0, 0))).toEqual(record);
    expect(withoutLength(record.sealed)).toEqual(filled(6, 5));
    expect(withoutLength(Uint8Array.of(9, 0, 1))).toBeUndefined();
  });

  test("no bytes make a decoder throw", () => {
    const code = fc.constantFrom(...Object.values(SPDM_REQUEST), ...Object.values(SPDM_RESPONSE));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), code, (bytes, second) => {
        bytes.set([0x12, second].slice(0, bytes.length));
        decodeSpdmRequest(bytes);
        decodeSpdmResponse(bytes, { signed: true });
        decodeObject(bytes);
        decodeRecord(bytes);
        decodeMeasurements(bytes);
      }),
    );
  });
});
