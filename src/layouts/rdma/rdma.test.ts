/** Formats of RDMA: what is written is read back, and the bytes are those of the specification. */
import { describe, expect, test } from "vitest";
import { Random } from "../../base/index.ts";
import {
  ACCESS,
  COMPLETION_BYTES,
  isWritableAccess,
  KEY,
  KLM_BYTES,
  KNOWN_ACCESS,
  MTT,
  MTT_BYTES,
  OPERATION,
  type Packet,
  psnAfter,
  psnDistance,
  readCompletion,
  readKlm,
  readMtt,
  readPacket,
  readWork,
  WORK_BYTES,
  writeCompletion,
  writeKlm,
  writeMtt,
  writePacket,
  writeWork,
} from "./index.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

describe("page lists", () => {
  test("an entry is eight bytes, big endian, with its rights in the low bits", () => {
    const bytes = new Uint8Array(2 * MTT_BYTES);
    const view = new DataView(bytes.buffer);
    writeMtt(view, 1, 0x12_3456_7000, MTT.read | MTT.write);
    expect(hex(bytes)).toBe("00000000000000000000001234567003");
    expect(readMtt(view, 1)).toEqual({ address: 0x12_3456_7000, flags: 3 });
    writeMtt(view, 1, 0x12_3456_7000, 0);
    expect(readMtt(view, 1)).toEqual({ address: 0, flags: 0 });
  });

  test("a key entry is sixteen bytes: length, key, address", () => {
    const view = new DataView(new ArrayBuffer(KLM_BYTES));
    writeKlm(view, 0, { length: 0x1000, key: 0xabcd, address: 0x7fff_0000_0000n });
    expect(hex(new Uint8Array(view.buffer))).toBe("000010000000abcd00007fff00000000");
    expect(readKlm(view, 0)).toEqual({ length: 0x1000, key: 0xabcd, address: 0x7fff_0000_0000n });
  });

  test("a key is an index and a variant of 8 bits", () => {
    expect(KEY.of(5, 0x102)).toBe(0x502);
    expect([KEY.index(0x502), KEY.variant(0x502)]).toEqual([5, 2]);
    expect(KEY.of(2 ** 24 - 1, 255)).toBe(0xffff_ffff);
  });
});

describe("access bits", () => {
  test("have the numbers of verbs", () => {
    expect(Object.values(ACCESS)).toEqual([1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 1 << 20]);
    expect(KNOWN_ACCESS).toBe(0x3ff0_03ff);
  });

  test("writing means local, remote, atomic and windows", () => {
    expect([0x1, 0x2, 0x4, 0x8, 0x10, 0x20].map(isWritableAccess)).toEqual([true, true, false, true, true, false]);
  });
});

describe("packets", () => {
  const remote = { address: 0x1234_5678_9abcn, key: 0x0102_0304, length: 11 };
  const base = { transport: 0, destination: 0xabcde, psn: 0xff_ffff, wantsAnswer: true };
  const packet = (operation: number, rest: Partial<Packet> = {}): Packet => ({
    ...base,
    operation,
    payload: new Uint8Array(0),
    ...rest,
  });

  test("a write with an immediate has its headers in order, and padding", () => {
    const bytes = writePacket(
      packet(OPERATION.writeOnlyImmediate, { payload: new Uint8Array(11).fill(0xee), remote, immediate: 0x5566_7788 }),
    );
    expect(hex(bytes.subarray(0, 12))).toBe("0b10ffff000abcde80ffffff");
    expect(hex(bytes.subarray(12, 32))).toBe("0000123456789abc010203040000000b55667788");
    expect(bytes.length).toBe(12 + 16 + 4 + 11 + 1 + 4);
  });

  test("all operations come back as they were", () => {
    const answers = { syndrome: 0x61, messages: 77 };
    const kinds: Packet[] = [
      packet(OPERATION.sendMiddle, { payload: Uint8Array.from([1, 2, 3]) }),
      packet(OPERATION.writeFirst, { remote, payload: Uint8Array.from([1, 2, 3, 4]) }),
      packet(OPERATION.readRequest, { remote }),
      packet(OPERATION.readLast, { acknowledgement: answers, payload: Uint8Array.from([9]) }),
      packet(OPERATION.acknowledge, { acknowledgement: answers, wantsAnswer: false }),
      packet(OPERATION.atomicAcknowledge, { acknowledgement: answers, original: 2n ** 64n - 1n }),
      packet(OPERATION.compareSwap, { remote: { ...remote, length: 8 }, atomic: { swapOrAdd: 1n, compare: 2n } }),
    ];
    for (const each of kinds) expect(readPacket(writePacket(each))).toEqual(each);
  });

  test("damaged bytes are no packet, and never throw", () => {
    const random = Random.fromSeed(1);
    const whole = writePacket(packet(OPERATION.writeOnly, { remote, payload: new Uint8Array(64) }));
    for (let i = 0; i < 300; i++) {
      const bytes = whole.slice(0, 1 + random.below(whole.length));
      bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      expect(readPacket(bytes)).toBeUndefined();
    }
  });

  test("packet numbers go round", () => {
    expect(psnAfter(0xff_ffff, 2)).toBe(1);
    expect([psnDistance(1, 0xff_ffff), psnDistance(0xff_ffff, 1), psnDistance(5, 5)]).toEqual([2, -2, 0]);
  });
});

describe("work queues", () => {
  test("a request comes back as it was, with all its pieces", () => {
    const entry = {
      work: 3,
      signaled: true,
      immediate: 5,
      id: 2 ** 52 + 1,
      remoteAddress: 2n ** 63n,
      remoteKey: 0xffff_ffff,
      compare: 1n,
      swapOrAdd: 2n,
      pieces: Array.from({ length: 33 }, (_, i) => ({ address: 2 ** 40 + i, length: i, key: i })),
    };
    expect(writeWork(entry)).toHaveLength(WORK_BYTES);
    expect(readWork(writeWork(entry))).toEqual(entry);
  });

  test("a completion comes back as it was", () => {
    const entry = { id: 2 ** 50, lengthBytes: 9, immediate: undefined, queuePair: 3, work: 5, status: 4, phase: 1 };
    expect(writeCompletion(entry)).toHaveLength(COMPLETION_BYTES);
    expect(readCompletion(writeCompletion(entry))).toEqual(entry);
  });
});
