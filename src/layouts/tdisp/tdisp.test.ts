import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeReport,
  decodeRequest,
  decodeResponse,
  encodeReport,
  encodeRequest,
  encodeResponse,
  functionId,
  type InterfaceReport,
  LOCK_FLAG,
  RANGE_ATTRIBUTE,
  requesterOf,
  responseCode,
  TDI_STATE,
  TDISP_ERROR,
  TDISP_REQUEST,
  type TdispRequest,
  type TdispRequestName,
  type TdispResponse,
} from "./index.ts";

const nonce = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);
const range = { firstPage: 0x100_0012_3000, pages: 17, attributes: RANGE_ATTRIBUTE.updatable, id: 4 };

const REQUESTS: Readonly<Record<TdispRequestName, TdispRequest>> = {
  getVersion: { type: "getVersion" },
  getCapabilities: { type: "getCapabilities", managerCapabilities: 0x8000_0001 },
  lockInterface: {
    type: "lockInterface",
    flags: LOCK_FLAG.lockMsix | LOCK_FLAG.noFirmwareUpdate,
    defaultStream: 7,
    mmioReportingOffset: 0x1234_5678_9000,
    p2pAddressMask: 0xf_0000_0000,
  },
  getInterfaceReport: { type: "getInterfaceReport", offset: 256, length: 512 },
  getInterfaceState: { type: "getInterfaceState" },
  startInterface: { type: "startInterface", nonce },
  stopInterface: { type: "stopInterface" },
  bindP2pStream: { type: "bindP2pStream", stream: 9 },
  unbindP2pStream: { type: "unbindP2pStream", stream: 9 },
  setMmioAttribute: { type: "setMmioAttribute", range },
};

const RESPONSES: readonly TdispResponse[] = [
  { type: "getVersion", versions: [0x10] },
  {
    type: "getCapabilities",
    deviceCapabilities: 1,
    requests: Uint8Array.of(0xfe, 0x07, ...new Uint8Array(14)),
    lockFlags: 0x1f,
    addressBits: 52,
    requestsThis: 1,
    requestsAll: 4,
  },
  { type: "lockInterface", nonce },
  { type: "getInterfaceReport", portion: nonce.slice(3), remainder: 900 },
  { type: "getInterfaceState", state: "error" },
  { type: "startInterface" },
  { type: "stopInterface" },
  { type: "bindP2pStream" },
  { type: "unbindP2pStream" },
  { type: "setMmioAttribute" },
  { type: "error", error: "invalidNonce", data: 5 },
];

describe("TDISP messages", () => {
  test("requests are codes 0x81 to 0x8a, and an answer's code is its request's less 0x80", () => {
    expect(Object.values(TDISP_REQUEST)).toEqual([0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a]);
    expect(responseCode("lockInterface")).toBe(0x03);
    expect(encodeResponse(0, { type: "error", error: "busy", data: 0 })[1]).toBe(0x7f);
  });

  test("states and errors have the numbers of the specification", () => {
    expect(TDI_STATE).toEqual({ configUnlocked: 0, configLocked: 1, run: 2, error: 3 });
    expect(Object.values(TDISP_ERROR)).toEqual([1, 3, 4, 5, 7, 0x41, 0x101, 0x102, 0x103, 0x104]);
  });

  test("a header is version, code, two reserved bytes, function id, eight reserved bytes", () => {
    expect([...encodeRequest(0x0100_1234, { type: "getVersion" })]).toEqual([
      0x10, 0x81, 0, 0, 0x34, 0x12, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
  });

  test("LOCK's payload is flags, stream, a reserved byte, reporting offset, address mask", () => {
    const bytes = encodeRequest(0, REQUESTS.lockInterface);
    expect([...bytes.subarray(16)]).toEqual([
      0x05, 0, 7, 0, 0x00, 0x90, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 0x0f, 0, 0, 0,
    ]);
  });

  test("a function id is requester 15:0, segment 23:16, and bit 24 where the segment counts", () => {
    expect(functionId(0x0123)).toBe(0x0123);
    expect(functionId(5 * 65_536 + 0x0123)).toBe(0x0105_0123);
    fc.assert(fc.property(fc.integer({ min: 0, max: 0xff_ffff }), (id) => requesterOf(functionId(id)) === id));
  });

  test.each(Object.values(REQUESTS))("the request $type comes back as it was sent", (request) => {
    expect(decodeRequest(encodeRequest(0x0108, request))).toEqual({ functionId: 0x0108, request });
  });

  test.each(RESPONSES)("the response $type comes back as it was sent", (response) => {
    expect(decodeResponse(encodeResponse(0x0108, response))).toEqual({ functionId: 0x0108, response });
  });

  test("what is wrong with a request is an error to answer with", () => {
    const start = encodeRequest(3, REQUESTS.startInterface);
    expect(decodeRequest(start.slice(0, -1))).toEqual({ functionId: 3, error: "invalidRequest" });
    expect(decodeRequest(start.map((byte, i) => (i === 0 ? 0x20 : byte)))).toMatchObject({ error: "versionMismatch" });
    expect(decodeRequest(start.map((byte, i) => (i === 1 ? 0xf0 : byte)))).toMatchObject({
      error: "unsupportedRequest",
    });
    expect(decodeRequest(start.slice(0, 15))).toBeUndefined();
  });

  test("no bytes make a decoder throw", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.integer({ min: 0x81, max: 0x8a }), (bytes, code) => {
        bytes.set([0x10, code].slice(0, bytes.length));
        decodeRequest(bytes);
        decodeResponse(bytes.map((byte, i) => (i === 1 ? byte - 0x80 : byte)));
        decodeReport(bytes);
      }),
    );
  });
});

describe("an interface report", () => {
  const report: InterfaceReport = {
    interfaceInfo: 0x07,
    msixControl: 0x8010,
    lnrControl: 0,
    tphControl: 0,
    ranges: [
      range,
      { firstPage: 0x2000, pages: 1, attributes: RANGE_ATTRIBUTE.msixTable | RANGE_ATTRIBUTE.nonTee, id: 0 },
    ],
    deviceInfo: Uint8Array.of(1, 2, 3),
  };

  test("comes back as it was sent", () => expect(decodeReport(encodeReport(report))).toEqual(report));

  test("is nothing unless it is whole, and nothing more", () => {
    const bytes = encodeReport(report);
    expect(bytes.length).toBe(16 + 2 * 16 + 4 + 3);
    for (const wrong of [bytes.slice(1), bytes.slice(0, -1), Uint8Array.of(...bytes, 0)])
      expect(decodeReport(wrong)).toBeUndefined();
  });

  test("that claims four thousand million ranges is none", () => {
    const bytes = encodeReport(report);
    bytes.fill(0xff, 12, 16);
    expect(decodeReport(bytes)).toBeUndefined();
  });
});
