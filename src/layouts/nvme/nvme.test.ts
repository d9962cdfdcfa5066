import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CONFIGURATION_4K,
  commandId,
  completionDoorbell,
  decodeCapabilities,
  decodeCmb,
  decodeController,
  decodeNamespace,
  decodeNamespaceList,
  encodeCapabilities,
  encodeCmb,
  encodeController,
  encodeNamespace,
  encodeNamespaceList,
  eventOf,
  eventResult,
  generationOf,
  get64,
  NVME_STATUS,
  put64,
  putBlocks,
  putCommand,
  putCompletion,
  putDsmRange,
  putSgl,
  SGL_TYPE,
  statusName,
  submissionDoorbell,
  tagOf,
  versionName,
  versionOf,
  viewOf,
} from "./index.ts";

const bytesOf = (length: number, write: (view: DataView) => void): string => {
  const bytes = new Uint8Array(length).fill(0xa5);
  write(viewOf(bytes));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
};
const bit = (width: number) => fc.nat(2 ** width - 1);

describe("NVMe structures", () => {
  test("a data block descriptor is address, length, and a zero identifier", () => {
    expect(bytesOf(16, (view) => putSgl(view, 0, 0x123456000, 0x2000, SGL_TYPE.dataBlock))).toBe(
      "00 60 45 23 01 00 00 00 00 20 00 00 00 00 00 00",
    );
  });

  test("a last segment of 5 entries says so in its last byte", () => {
    expect(bytesOf(16, (view) => putSgl(view, 0, 0xabc00, 5 * 16, SGL_TYPE.lastSegment))).toBe(
      "00 bc 0a 00 00 00 00 00 50 00 00 00 00 00 00 30",
    );
  });

  test("a read command has opcode, id, namespace, first block and blocks less one where they belong", () => {
    const bytes = bytesOf(64, (view) => {
      putCommand(view, 0, 2, 1, commandId(5, 3));
      putBlocks(view, 0, 0x12_3456_789a, 8, 0x4000);
    }).split(" ");
    expect(bytes.slice(0, 8).join(" ")).toBe("02 00 05 30 01 00 00 00");
    expect(bytes.slice(8, 40).every((byte) => byte === "00")).toBe(true);
    expect(bytes.slice(40, 52).join(" ")).toBe("9a 78 56 34 12 00 00 00 07 00 00 40");
    expect(bytes.slice(52).every((byte) => byte === "00")).toBe(true);
  });

  test("a completion has its phase in the lowest bit of the status and the head beside the queue's id", () => {
    const entry = { result: 7, submissionHead: 9, submissionQueue: 2, id: 0x3005, status: 0x4013, phase: 1 };
    expect(bytesOf(16, (view) => putCompletion(view, 0, entry))).toBe(
      "07 00 00 00 00 00 00 00 09 00 02 00 05 30 27 80",
    );
  });

  test("a range of a dataset management command is attributes, blocks, first block", () => {
    expect(bytesOf(16, (view) => putDsmRange(view, 0, 0x1_0000_0002, 3))).toBe(
      "00 00 00 00 03 00 00 00 02 00 00 00 01 00 00 00",
    );
  });

  test("doorbells stand in pairs, at the distance that the controller says", () => {
    expect([
      submissionDoorbell(0, 0),
      completionDoorbell(0, 0),
      submissionDoorbell(3, 0),
      completionDoorbell(3, 2),
    ]).toEqual([0x1000, 0x1004, 0x1018, 0x1000 + 7 * 16]);
  });

  test("a driver of 4 KiB pages asks for entries of 64 and 16 bytes", () => {
    expect(CONFIGURATION_4K).toBe((6 << 16) | (4 << 20));
  });

  test("a 64-bit field gives back every whole number that a double holds", () => {
    const view = viewOf(new Uint8Array(8));
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        put64(view, 0, value);
        expect(get64(view, 0)).toBe(value);
      }),
    );
  });

  test("capabilities and controller memory come back as they were", () => {
    fc.assert(
      fc.property(bit(16), fc.boolean(), bit(8), bit(4), bit(4), bit(4), fc.boolean(), fc.boolean(), (...fields) => {
        const [maxQueueEntries0, contiguousQueuesRequired, timeout500Ms, doorbellStride, minPageShift, maxPageShift] =
          fields;
        const [, , , , , , controllerMemoryBuffer, readyTimeouts] = fields;
        const cap = {
          maxQueueEntries0,
          contiguousQueuesRequired,
          timeout500Ms,
          doorbellStride,
          minPageShift,
          maxPageShift,
          controllerMemoryBuffer,
          readyTimeouts,
        };
        expect(decodeCapabilities(...encodeCapabilities(cap))).toEqual(cap);
      }),
    );
    const cmb = {
      bar: 4,
      offsetUnits: 3,
      sizeUnits: 0xf_ffff,
      unitBytes: 65_536,
      submissionQueues: true,
      completionQueues: false,
      lists: true,
      readData: false,
      writeData: true,
    };
    expect(decodeCmb(...encodeCmb(cmb))).toEqual(cmb);
    expect(encodeCmb(cmb)).toEqual([0x3004, 0xffff_f115]);
  });

  test("identify data come back as they were, with the numbers where the specification puts them", () => {
    const controller = {
      vendorId: 0x1b36,
      serialNumber: "S-1",
      modelNumber: "a model",
      firmware: "9.9",
      maxTransferShift: 5,
      controllerId: 77,
      version: versionOf(1, 4),
      abortLimit0: 3,
      asyncEventLimit0: 2,
      namespaces: 4,
      optionalCommands: 13,
      volatileWriteCache: true,
      sgls: 0x8_0001,
      subsystem: "nqn.2014-08.org.example:x",
    };
    const bytes = encodeController(controller);
    expect(decodeController(bytes)).toEqual(controller);
    expect([bytes[77], bytes[512], bytes[513], viewOf(bytes).getUint32(536, true)]).toEqual([5, 0x66, 0x44, 0x8_0001]);
    const namespace = {
      blocks: 2 ** 40,
      capacity: 2 ** 39,
      used: 5,
      format: 1,
      extendedBlocks: false,
      formats: [
        { metadataBytes: 0, blockBytes: 512 },
        { metadataBytes: 8, blockBytes: 4096 },
      ],
    };
    expect(decodeNamespace(encodeNamespace(namespace))).toEqual(namespace);
    expect([...encodeNamespace(namespace).subarray(128, 136)]).toEqual([0, 0, 9, 0, 8, 0, 12, 0]);
    expect(decodeNamespaceList(encodeNamespaceList([1, 3, 900]))).toEqual([1, 3, 900]);
  });

  test("a command id is twelve bits of tag and four of generation, which wraps", () => {
    fc.assert(
      fc.property(bit(12), fc.nat(100), (tag, generation) => {
        const id = commandId(tag, generation);
        expect([id < 65_536, tagOf(id), generationOf(id)]).toEqual([true, tag, generation % 16]);
      }),
    );
  });

  test("events, statuses and versions are read as people name them", () => {
    expect(eventOf(eventResult(2, 0xab, 4))).toEqual({ type: 2, information: 0xab, logPage: 4 });
    expect([statusName(0x4013), statusName(0x7fe)]).toEqual(["prpOffset", "status 0x7fe"]);
    expect(new Set(Object.values(NVME_STATUS)).size).toBe(Object.keys(NVME_STATUS).length);
    expect(versionName(versionOf(2, 1))).toBe("2.1.0");
  });
});
