/** IDE streams: pools and order on the host's side, keys and packets on the hardware's. */
import { describe, expect, test } from "vitest";
import { MiB } from "../../src/base/index.ts";
import { BRIDGE_STREAMS, IdeBridge, IdePort, type IdeStream } from "../../src/consumers/tee/index.ts";
import { IdeEnd, type InsecureCause, type SealedPacket } from "../../src/hosts/simulated/tee/index.ts";
import {
  decodeAddresses,
  decodeRequesters,
  decodeSelectiveControl,
  IDE_REGISTER,
  KEY_STATUS,
  type KeyMessage,
  type KeyPlace,
  PLACEHOLDER_STREAM,
  SELECTIVE_REGISTER,
  selectiveBlockAt,
} from "../../src/layouts/ide/index.ts";

const ENDPOINT = 0x0100;
const ROOT = 0x0008;

/** The two ends of a link, and software's view of both. */
function link(options: { streams?: number; packetsPerKey?: number } = {}) {
  const lost: [string, number, InsecureCause][] = [];
  const made = { streams: 2, ...options };
  const endpoint = new IdeEnd({
    requester: ENDPOINT,
    ...made,
    onInsecure: (stream, cause) => lost.push(["endpoint", stream, cause]),
  });
  const root = new IdeEnd({
    requester: ROOT,
    ...made,
    onInsecure: (stream, cause) => lost.push(["root", stream, cause]),
  });
  const ports = {
    endpoint: new IdePort({ name: "endpoint", requester: ENDPOINT, registers: endpoint }),
    root: new IdePort({ name: "root", requester: ROOT, registers: root }),
  };
  const bridge = new IdeBridge("bridge");
  return { endpoint, root, ports, bridge, lost };
}

/** Brings keys to both ends, as a manager does. */
function bringKeys(a: IdeEnd, b: IdeEnd, stream: number, keySet: 0 | 1 = 0, seed = 1): void {
  const kinds = ["posted", "non-posted", "completion"] as const;
  kinds.forEach((kind, k) => {
    [
      [a, b],
      [b, a],
    ].forEach(([from, to], d) => {
      const key = new Uint8Array(32).fill(seed * 16 + k * 2 + d + 1);
      const place = { stream, portIndex: 0, keySet, kind } as const;
      const program = { type: "program", ...place, key, invocation: new Uint8Array(8) } as const;
      expect(to!.keyMessage({ ...program, direction: "receive" })).toMatchObject({ status: KEY_STATUS.success });
      expect(from!.keyMessage({ ...program, direction: "transmit" })).toMatchObject({ status: KEY_STATUS.success });
    });
  });
  for (const direction of ["receive", "transmit"] as const)
    for (const end of [a, b])
      for (const kind of kinds) end.keyMessage({ type: "go", stream, portIndex: 0, keySet, kind, direction });
}

/** A stream from its pools to its name. */
function secure(made: ReturnType<typeof link>, id = 5): IdeStream {
  const stream = made.bridge.allocate(made.ports.endpoint, made.ports.root);
  stream.setUp({ id, addresses: [{ start: 0x100_0000_0000, end: 0x100_0010_0000 }] });
  bringKeys(made.endpoint, made.root, id);
  stream.enable();
  stream.register();
  return stream;
}

const register = (end: IdeEnd, index: number, at: number): number => end.read32(selectiveBlockAt(0, index, 2) + at);
const errnoOf = (work: () => unknown): string => {
  try {
    work();
    return "none";
  } catch (error) {
    return (error as { errno: string }).errno;
  }
};

describe("a port, when it is found", () => {
  test("gives streams that nobody uses the placeholder id, so that a stale id cannot be taken for a stream", () => {
    const end = new IdeEnd({ requester: 1, streams: 3 });
    expect(decodeSelectiveControl(end.read32(selectiveBlockAt(0, 1, 2) + SELECTIVE_REGISTER.control)).id).toBe(0);
    new IdePort({ name: "port", requester: 1, registers: end });
    for (let i = 0; i < 3; i++)
      expect(decodeSelectiveControl(register(end, i, SELECTIVE_REGISTER.control)).id).toBe(PLACEHOLDER_STREAM);
  });

  test("has only the leading streams that have equally many address ranges", () => {
    const registers = new Map<number, number>([[IDE_REGISTER.capability, 0x2 | (3 << 16)]]);
    [2, 2, 1, 2].forEach((associations, i) => void registers.set(selectiveBlockAt(0, i, 2), associations));
    const port = new IdePort({
      name: "odd",
      requester: 1,
      registers: { read32: (at) => registers.get(at) ?? 0, write32: (at, value) => void registers.set(at, value) },
    });
    expect([port.capability.selectiveStreams, port.streams, port.associations]).toEqual([4, 2, 2]);
  });

  test("leaves firmware's streams alone, and their ids are taken", () => {
    const { endpoint, root, ports, bridge } = link();
    secure({ endpoint, root, ports, bridge, lost: [] }, 9);
    const again = new IdePort({ name: "again", requester: ENDPOINT, registers: endpoint });
    expect([again.idsInUse, again.inUse]).toEqual([[9], 1]);
    const other = new IdeBridge("other");
    other.adopt(again);
    expect(errnoOf(() => other.takeId(9))).toBe("EBUSY");
  });
});

describe("a stream", () => {
  test("is made in order: pools, both ports, keys, on, name; and its name is its indices", () => {
    const made = link();
    const stream = secure(made);
    expect([stream.name, stream.isSecure, [...made.bridge.registered.keys()]]).toEqual([
      "stream0.0.0",
      true,
      ["stream0.0.0"],
    ]);
    expect(errnoOf(() => stream.setUp({ id: 6 }))).toBe("EINVAL");
    expect(errnoOf(() => stream.enable())).toBe("EINVAL");
    expect(errnoOf(() => stream.register())).toBe("EINVAL");
  });

  test("says whose requests and which addresses are on it: the endpoint's at the root, the root's at the endpoint", () => {
    const made = link();
    secure(made);
    const requesters = (end: IdeEnd): object | undefined =>
      decodeRequesters(
        register(end, 0, SELECTIVE_REGISTER.requesters1),
        register(end, 0, SELECTIVE_REGISTER.requesters2),
      );
    expect(requesters(made.root)).toEqual({ base: ENDPOINT, limit: ENDPOINT, segment: 0 });
    expect(requesters(made.endpoint)).toEqual({ base: ROOT, limit: ROOT, segment: 0 });
    const words = [0, 4, 8].map((at) => register(made.root, 0, SELECTIVE_REGISTER.addresses + at));
    expect(decodeAddresses(words[0]!, words[1]!, words[2]!)).toEqual({
      start: 0x100_0000_0000,
      end: 0x100_0000_0000 + MiB,
    });
    expect(decodeSelectiveControl(register(made.endpoint, 0, SELECTIVE_REGISTER.control)).isDefault).toBe(true);
    expect(decodeSelectiveControl(register(made.root, 0, SELECTIVE_REGISTER.control)).isDefault).toBe(false);
  });

  test("is refused where a port has none", () => {
    const { bridge, ports } = link();
    const bare = new IdePort({ name: "bare", requester: 3, registers: { read32: () => 0, write32: () => {} } });
    expect(errnoOf(() => bridge.allocate(bare, ports.root))).toBe("EOPNOTSUPP");
    expect(errnoOf(() => bridge.allocate(ports.endpoint, bare))).toBe("EOPNOTSUPP");
    expect([bridge.inUse, ports.root.inUse, ports.endpoint.inUse]).toEqual([0, 0, 0]);
  });

  test("comes from three pools, and none is touched when another is empty", () => {
    const { bridge, ports } = link({ streams: 1 });
    bridge.allocate(ports.endpoint, ports.root);
    expect(errnoOf(() => bridge.allocate(ports.endpoint, ports.root))).toBe("ENOSPC");
    expect([bridge.inUse, ports.root.inUse, ports.endpoint.inUse]).toEqual([1, 1, 1]);
    const wide = link({ streams: 4 });
    const narrow = new IdeBridge("narrow", 1);
    narrow.allocate(wide.ports.endpoint, wide.ports.root);
    expect(errnoOf(() => narrow.allocate(wide.ports.endpoint, wide.ports.root))).toBe("ENOSPC");
    expect([wide.ports.root.inUse, new IdeBridge("usual").streams]).toEqual([1, BRIDGE_STREAMS]);
  });

  test.each([
    [254, "none"],
    [255, "EBUSY"],
    [256, "ENXIO"],
    [-1, "ENXIO"],
  ])("with id %i: %s", (id, expected) => {
    const { bridge, ports } = link();
    expect(errnoOf(() => bridge.allocate(ports.endpoint, ports.root).setUp({ id }))).toBe(expected);
  });

  test("with an id that another has is EBUSY, and free again when that is released", () => {
    const { bridge, ports } = link();
    const first = bridge.allocate(ports.endpoint, ports.root);
    const second = bridge.allocate(ports.endpoint, ports.root);
    first.setUp({ id: 7 });
    expect(errnoOf(() => second.setUp({ id: 7 }))).toBe("EBUSY");
    first.release();
    second.setUp({ id: 7 });
  });

  test("without its keys is not enabled (ENXIO), and both ports are off again", () => {
    const { bridge, ports, endpoint, root } = link();
    const stream = bridge.allocate(ports.endpoint, ports.root);
    stream.setUp({ id: 5 });
    expect(errnoOf(() => stream.enable())).toBe("ENXIO");
    for (const end of [endpoint, root])
      expect(decodeSelectiveControl(register(end, 0, SELECTIVE_REGISTER.control)).enabled).toBe(false);
    bringKeys(endpoint, root, 5);
    stream.enable();
    expect(stream.isSecure).toBe(true);
  });

  test.each([1, 2, 3, 4])("released after step %i gives back all that it took", (steps) => {
    const made = link();
    const stream = made.bridge.allocate(made.ports.endpoint, made.ports.root);
    if (steps > 1) stream.setUp({ id: 5 });
    if (steps > 2) {
      bringKeys(made.endpoint, made.root, 5);
      stream.enable();
    }
    if (steps > 3) stream.register();
    stream.release();
    stream.release();
    const { bridge, ports } = made;
    expect([bridge.inUse, bridge.registered.size, ports.root.inUse, ports.endpoint.inUse, bridge.hasId(5)]).toEqual([
      0,
      0,
      0,
      0,
      false,
    ]);
    expect(decodeSelectiveControl(register(made.root, 0, SELECTIVE_REGISTER.control)).id).toBe(PLACEHOLDER_STREAM);
  });

  test("that was secure when it was enabled may not be later: it is asked each time", () => {
    const made = link();
    const stream = secure(made);
    made.endpoint.forgetKeys();
    expect(stream.isSecure).toBe(false);
  });
});

describe("packets", () => {
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
  const send = ({ endpoint }: { endpoint: IdeEnd }, trusted = true): SealedPacket =>
    endpoint.seal(5, "posted", trusted, bytes)!;

  test("are on the wire as nobody wrote them, and open to what was sent", () => {
    const made = link();
    secure(made);
    const packet = send(made);
    expect(packet.bytes.every((byte, i) => byte !== bytes[i])).toBe(true);
    expect(made.root.open(packet)).toEqual(bytes);
  });

  test("with the same bytes look different each time", () => {
    const made = link();
    secure(made);
    expect(send(made).bytes).not.toEqual(send(made).bytes);
  });

  test.each<[string, (packet: SealedPacket) => SealedPacket]>([
    [
      "with a byte changed",
      (packet) => ({ ...packet, bytes: packet.bytes.map((byte, i) => (i === 50 ? byte ^ 1 : byte)) }),
    ],
    ["with its T bit changed", (packet) => ({ ...packet, trusted: !packet.trusted })],
    ["said to be of another kind", (packet) => ({ ...packet, kind: "completion" })],
    ["sealed with the other set", (packet) => ({ ...packet, keySet: 1 })],
    ["cut short", (packet) => ({ ...packet, bytes: packet.bytes.slice(0, -1) })],
  ])("%s do not open, and the stream is lost", (_, change) => {
    const made = link();
    const stream = secure(made);
    expect(made.root.open(change(send(made)))).toBeUndefined();
    expect([stream.isSecure, made.lost]).toEqual([false, [["root", 5, "integrity"]]]);
  });

  test("repeated, or after one that was left out, do not open", () => {
    const repeated = link();
    secure(repeated);
    const packet = send(repeated);
    expect(repeated.root.open(packet)).toEqual(bytes);
    expect(repeated.root.open(packet)).toBeUndefined();
    const gap = link();
    secure(gap);
    send(gap);
    expect(gap.root.open(send(gap))).toBeUndefined();
  });

  test("are no more when a key is used up: the stream is insecure until it has new ones", () => {
    const made = link({ packetsPerKey: 3 });
    const stream = secure(made);
    for (let i = 0; i < 3; i++) made.root.open(send(made));
    expect(made.endpoint.seal(5, "posted", true, bytes)).toBeUndefined();
    expect([stream.isSecure, made.lost]).toEqual([false, [["endpoint", 5, "key used up"]]]);
  });

  test("go on with new keys that came in time, in the other set", () => {
    const made = link({ packetsPerKey: 3 });
    const stream = secure(made);
    for (let round = 0; round < 6; round++) {
      for (let i = 0; i < 3; i++) expect(made.root.open(send(made))).toEqual(bytes);
      bringKeys(made.endpoint, made.root, 5, round % 2 === 0 ? 1 : 0, round + 2);
      for (const end of [made.endpoint, made.root]) stopSet(end, round % 2 === 0 ? 0 : 1);
    }
    expect([stream.isSecure, made.lost]).toEqual([true, []]);
  });
});

function stopSet(end: IdeEnd, keySet: 0 | 1): void {
  for (const direction of ["transmit", "receive"] as const)
    for (const kind of ["posted", "non-posted", "completion"] as const)
      end.keyMessage({ type: "stop", stream: 5, portIndex: 0, keySet, direction, kind });
}

describe("a stream is lost at once when", () => {
  const place: KeyPlace = { stream: 5, portIndex: 0, keySet: 0, direction: "transmit", kind: "posted" };
  const program: KeyMessage = { type: "program", ...place, key: new Uint8Array(32), invocation: new Uint8Array(8) };

  test("a key that is in use is replaced", () => {
    const made = link();
    const stream = secure(made);
    expect(made.endpoint.keyMessage(program)).toMatchObject({
      type: "programmed",
      status: KEY_STATUS.unspecifiedFailure,
    });
    expect([stream.isSecure, made.lost]).toEqual([false, [["endpoint", 5, "key replaced"]]]);
  });

  test("the set in use is stopped, or software switches it off or changes what is on it", () => {
    const ways: ((made: ReturnType<typeof link>) => void)[] = [
      ({ endpoint }) => endpoint.keyMessage({ type: "stop", ...place }),
      ({ endpoint }) => endpoint.write32(selectiveBlockAt(0, 0, 2) + SELECTIVE_REGISTER.control, 0),
      ({ endpoint }) => endpoint.write32(selectiveBlockAt(0, 0, 2) + SELECTIVE_REGISTER.requesters2, 0),
      ({ endpoint }) => endpoint.write32(selectiveBlockAt(0, 0, 2) + SELECTIVE_REGISTER.addresses, 1),
    ];
    for (const way of ways) {
      const made = link();
      const stream = secure(made);
      way(made);
      expect([stream.isSecure, made.lost]).toEqual([false, [["endpoint", 5, "switched off"]]]);
    }
  });

  test("the other end says that it failed; and what was written without a change does nothing", () => {
    const made = link();
    const stream = secure(made);
    const at = selectiveBlockAt(0, 0, 2) + SELECTIVE_REGISTER.control;
    made.endpoint.write32(at, made.endpoint.read32(at));
    expect(stream.isSecure).toBe(true);
    made.endpoint.fail(4);
    expect(stream.isSecure).toBe(true);
    made.endpoint.fail(5);
    expect(made.lost).toEqual([["endpoint", 5, "failed at the other end"]]);
  });

  test("and is secure again only when it was set up anew, with new keys", () => {
    const made = link();
    const stream = secure(made);
    made.endpoint.forgetKeys();
    bringKeys(made.endpoint, made.root, 5, 1, 3);
    expect(stream.isSecure).toBe(false); // the failure stands
    stream.release();
    expect(secure(made).isSecure).toBe(true);
  });
});

describe("messages about keys", () => {
  test("of the wrong length, for another port, or for a stream that is not there, are refused with their status", () => {
    const { endpoint, bridge, ports } = link();
    bridge.allocate(ports.endpoint, ports.root).setUp({ id: 5 });
    const place: KeyPlace = { stream: 5, portIndex: 0, keySet: 0, direction: "transmit", kind: "posted" };
    const program = (more: Partial<KeyMessage & { type: "program" }>): unknown =>
      (
        endpoint.keyMessage({
          type: "program",
          ...place,
          key: new Uint8Array(32),
          invocation: new Uint8Array(8),
          ...more,
        }) as { status: number }
      ).status;
    expect(program({ key: new Uint8Array(31) })).toBe(KEY_STATUS.incorrectLength);
    expect(program({ portIndex: 1 })).toBe(KEY_STATUS.unsupportedPortIndex);
    expect(program({ stream: 9 })).toBe(KEY_STATUS.unsupportedValue);
    expect(program({})).toBe(KEY_STATUS.success);
    expect(endpoint.keyMessage({ type: "go", ...place, kind: "completion" })).toBeUndefined();
  });

  test("a query says who the port is, and its capability", () => {
    const { endpoint } = link();
    expect(endpoint.keyMessage({ type: "query", portIndex: 0 })).toMatchObject({
      type: "queryResponse",
      requester: ENDPOINT,
      registers: [endpoint.read32(0), endpoint.read32(IDE_REGISTER.capability)],
    });
  });
});
