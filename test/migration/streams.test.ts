/** The data stream of a function: what is read before and after the stop, and what becomes of it on the other side. */
import { describe, expect, test } from "vitest";
import { DmaError, type Errno, IovaPage, type PhysPage, Random } from "../../src/base/index.ts";
import {
  type DataFile,
  decodeRecord,
  encodeRecord,
  RECORD_HEADER_BYTES,
  RECORD_TAG,
} from "../../src/consumers/vfio/index.ts";
import { NIC_BEGIN_ANEW, NIC_COMMAND, NIC_FUNCTION_REGISTER, NIC_STATUS } from "../../src/layouts/nic/index.ts";
import { packet, type Stand, type StandFunction, type StandOptions, stand, startReceiving, stateOf } from "./stand.ts";

/** What reading says instead of bytes. */
const errnoOf = (call: () => unknown): Errno | undefined => {
  try {
    call();
    return undefined;
  } catch (error) {
    if (error instanceof DmaError) return error.errno;
    throw error;
  }
};

/** Reads in pieces until there is no more for now; what it ended with: the end (0), or an errno. */
function drain(place: Stand, file: DataFile, pieceBytes = 10_000): { bytes: Uint8Array; end: 0 | Errno } {
  const pieces: Uint8Array[] = [];
  for (;;) {
    const piece = new Uint8Array(pieceBytes);
    let length = 0;
    const errno = errnoOf(() => {
      length = file.read(piece);
    });
    if (errno === "EAGAIN") {
      expect(file.isReady).toBe(false);
      expect(place.host.clock.step()).toBe(true);
    } else if (errno || length === 0) return { bytes: Buffer.concat(pieces), end: errno ?? 0 };
    else pieces.push(piece.subarray(0, length));
  }
}

/** Takes a whole stream in, in pieces that chance cuts. */
function fill(target: StandFunction, bytes: Uint8Array, random = Random.fromSeed(1)): void {
  const file = target.migration.setState("resuming")!;
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random.below(9000);
    at += file.write(bytes.subarray(at, at + length));
  }
}

const busy = (options?: StandOptions): Stand => {
  const place = stand(options);
  startReceiving(place.first);
  for (let i = 0; i < 50; i++) expect(place.first.model.receive(packet(i))).toBe(true);
  return place;
};

/** A command fails once, after it has been asked `skip` times. */
function failingAt(skip: number): { status: number; count: number } {
  let asked = 0;
  return {
    status: NIC_STATUS.REFUSED,
    get count() {
      return asked++ === skip ? 1 : 0;
    },
    set count(_value) {},
  };
}

/** Records of a stream: header and what follows. */
function recordsOf(bytes: Uint8Array): Uint8Array[] {
  const records: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = RECORD_HEADER_BYTES + decodeRecord(bytes.subarray(at)).bytes;
    records.push(bytes.subarray(at, at + length));
    at += length;
  }
  return records;
}

describe("copying before the stop", () => {
  test("initial bytes fall to 0, a pause is no end, and after the stop the end is 0; the copy is the same function", () => {
    const [a, b] = [busy(), stand()];
    const { first } = a;
    const file = first.migration.setState("pre-copy")!;
    expect(file.preCopyInfo().initialBytes).toBeGreaterThan(0);
    const parts: Uint8Array[] = [];
    let seen = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 10; round++) {
      const { initialBytes } = file.preCopyInfo();
      expect(initialBytes).toBeLessThanOrEqual(seen);
      seen = initialBytes;
      const { bytes, end } = drain(a, file);
      expect(end).toBe("ENOMSG");
      parts.push(bytes);
      for (let i = 0; i < 20; i++) first.model.receive(packet(round * 100 + i, 50)); // 1000 bytes a round
    }
    expect(seen).toBe(0);
    expect(first.migration.setState("stop-copy")).toBeUndefined();
    const last = drain(a, file);
    expect(last.end).toBe(0);
    expect(file.read(new Uint8Array(10))).toBe(0);
    parts.push(last.bytes);
    const stopped = stateOf(first);
    expect(first.model.receive(packet(1))).toBe(false);
    expect(stateOf(first)).toEqual(stopped);

    fill(b.first, Buffer.concat(parts));
    b.first.migration.setState("running");
    expect(stateOf(b.first)).toEqual(stopped);
    expect(b.first.model.receive(packet(2))).toBe(true);
    expect([a.close(), b.close()]).toEqual([[], []]);
  });

  test("asking has the effect that an increment is saved, once all has been read and something has changed", () => {
    const a = busy();
    const file = a.first.migration.setState("pre-copy")!;
    drain(a, file);
    expect(file.preCopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0, beganAnew: false });
    expect(errnoOf(() => file.read(new Uint8Array(1)))).toBe("ENOMSG");
    a.first.model.receive(packet(7));
    expect(errnoOf(() => file.read(new Uint8Array(1)))).toBe("ENOMSG"); // nobody asked
    const { dirtyBytes } = file.preCopyInfo();
    expect(dirtyBytes).toBeGreaterThan(4096);
    const { bytes } = drain(a, file);
    expect(bytes).toHaveLength(dirtyBytes);
    a.close();
  });

  test("a suspended device has no increments", () => {
    const a = busy();
    const file = a.first.migration.setState("pre-copy")!;
    drain(a, file);
    a.first.model.receive(packet(7));
    a.first.migration.setState("pre-copy-p2p");
    expect(file.preCopyInfo().dirtyBytes).toBe(0);
    a.first.migration.setState("pre-copy");
    expect(file.preCopyInfo().dirtyBytes).toBeGreaterThan(0);
    a.close();
  });

  test("a device that begins anew says so to whoever opted in, once, and its initial bytes count anew", () => {
    for (const optsIn of [false, true]) {
      const a = busy();
      if (optsIn) a.first.migration.sayBeganAnew();
      const file = a.first.migration.setState("pre-copy")!;
      drain(a, file);
      a.first.device.bar(0)!.write32(NIC_FUNCTION_REGISTER.CONTROL, NIC_BEGIN_ANEW);
      const info = file.preCopyInfo();
      expect(info.beganAnew).toBe(optsIn);
      expect([info.initialBytes > 0, info.dirtyBytes > 0]).toEqual([optsIn, !optsIn]);
      const { bytes } = drain(a, file);
      expect(bytes).toHaveLength(info.initialBytes + info.dirtyBytes);
      expect(file.preCopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0, beganAnew: false });
      a.close();
    }
  });

  test("an increment that the card refuses is a pause, and the last image is a whole one", () => {
    const [a, b] = [busy(), stand()];
    const file = a.first.migration.setState("pre-copy")!;
    const parts = [drain(a, file).bytes];
    a.card.failing.set(NIC_COMMAND.BEGIN_IMAGE, { status: NIC_STATUS.REFUSED, count: 1 });
    a.first.model.receive(packet(7));
    expect(file.preCopyInfo().dirtyBytes).toBeGreaterThan(0);
    expect(errnoOf(() => file.read(new Uint8Array(1)))).toBe("ENOMSG");
    a.first.migration.setState("stop-copy");
    parts.push(drain(a, file).bytes);
    fill(b.first, Buffer.concat(parts));
    b.first.migration.setState("stop");
    expect(stateOf(b.first)).toEqual(stateOf(a.first));
    a.close();
    b.close();
  });

  test("going back to running ends the session: the file says ENODEV, and nothing is left of it", () => {
    const a = busy();
    const file = a.first.migration.setState("pre-copy")!;
    a.first.migration.setState("running");
    expect(errnoOf(() => file.read(new Uint8Array(1)))).toBe("ENODEV");
    expect(errnoOf(() => file.preCopyInfo())).toBe("EINVAL");
    expect(a.close()).toEqual([]);
  });
});

describe("chunks", () => {
  const small = { driver: { chunkBytes: 8192 }, card: { memoryPages: 64, saveBytesPerMs: 8192 } };

  test("two are saved or wait to be read; a third waits until one has been", () => {
    const a = busy(small);
    const file = a.first.migration.setState("stop-copy")!;
    const { clock } = a.host;
    clock.advance(100);
    expect(a.first.driver.bufferCounters.built - a.first.driver.bufferCounters.freed).toBeLessThanOrEqual(2 * 2); // headers too
    const before = clock.pending;
    expect(before).toBe(0); // the card has nothing to do
    file.read(new Uint8Array(RECORD_HEADER_BYTES + 8191));
    expect(clock.pending).toBe(0);
    file.read(new Uint8Array(1));
    expect(clock.pending).toBe(2); // the chunk, and the time it has
    expect(drain(a, file).end).toBe(0);
    expect(a.close()).toEqual([]);
  });

  test("a file with nothing ready says EAGAIN, and that it is not ready", () => {
    const a = busy(small);
    const file = a.first.migration.setState("stop-copy")!;
    expect([file.isReady, errnoOf(() => file.read(new Uint8Array(1)))]).toEqual([false, "EAGAIN"]);
    a.host.clock.step();
    expect(file.isReady).toBe(true);
    a.close();
  });

  test("none is longer than the limit, and buffers are used again", () => {
    const a = busy(small);
    const file = a.first.migration.setState("stop-copy")!;
    const records = recordsOf(drain(a, file).bytes);
    expect(Math.max(...records.map(({ length }) => length))).toBe(RECORD_HEADER_BYTES + 8192);
    expect(a.first.driver.stopCopyLength()).toBe(records.reduce((sum, { length }) => sum + length, 0));
    expect(a.first.driver.bufferCounters.reused).toBeGreaterThan(50);
    expect(a.close()).toEqual([]);
  });
});

describe("a stream that is not what it was", () => {
  const [source, whole] = (() => {
    const a = busy({ driver: { chunkBytes: 16_384 } });
    const file = a.first.migration.setState("pre-copy")!;
    const parts = [drain(a, file).bytes];
    a.first.model.receive(packet(7));
    file.preCopyInfo();
    parts.push(drain(a, file).bytes);
    a.first.model.receive(packet(8));
    a.first.migration.setState("stop-copy");
    parts.push(drain(a, file).bytes);
    return [stateOf(a.first), new Uint8Array(Buffer.concat(parts))];
  })();

  /** It is refused on the way, or at the end; then a reset makes the device good for the whole stream. */
  function expectRefused(bytes: Uint8Array): void {
    const b = stand();
    const file = b.first.migration.setState("resuming")!;
    const untouched = stateOf(b.first);
    const onTheWay = errnoOf(() => file.write(bytes));
    expect(errnoOf(() => b.first.migration.setState("stop"))).toBeDefined();
    expect(["resuming", "error"]).toContain(b.first.migration.state);
    if (onTheWay) expect(errnoOf(() => file.write(new Uint8Array(1)))).toBe("ENODEV");
    expect(stateOf(b.first)).toEqual(untouched);
    b.first.migration.reset();
    expect(errnoOf(() => file.write(new Uint8Array(1)))).toBe("ENODEV");
    fill(b.first, whole);
    b.first.migration.setState("stop");
    expect(stateOf(b.first)).toEqual(source);
    expect(b.close()).toEqual([]);
  }

  test("cut anywhere it is refused, and a reset recovers", () => {
    const random = Random.fromSeed(3);
    const cuts = [
      0,
      1,
      15,
      16,
      17,
      24,
      25,
      whole.length - 1,
      ...Array.from({ length: 30 }, () => random.below(whole.length)),
    ];
    for (const cut of cuts) expectRefused(whole.subarray(0, cut));
  });

  test("with any byte of an image changed it is refused", () => {
    const random = Random.fromSeed(4);
    // The header of a record that may be skipped says nothing that matters; everything behind it does.
    for (let run = 0; run < 40; run++) {
      const bytes = whole.slice();
      bytes[24 + random.below(bytes.length - 24)]! ^= 1 << random.below(8);
      expectRefused(bytes);
    }
  });

  test("with a record missing, doubled, or in another place it is refused", () => {
    const records = recordsOf(whole).slice(1);
    const random = Random.fromSeed(5);
    for (let run = 0; run < 20; run++) {
      const changed = [...records];
      const at = random.below(changed.length);
      if (run % 3 === 0) changed.splice(at, 1);
      else if (run % 3 === 1) changed.splice(at, 0, changed[at]!);
      else {
        const other = (at + 1 + random.below(changed.length - 1)) % changed.length;
        [changed[at], changed[other]] = [changed[other]!, changed[at]!];
      }
      if (changed.every((record, i) => record === records[i])) continue;
      expectRefused(new Uint8Array(Buffer.concat(changed)));
    }
  });

  test("cut into other pieces it is the same stream", () => {
    for (let seed = 0; seed < 5; seed++) {
      const b = stand();
      fill(b.first, whole, Random.fromSeed(seed));
      b.first.migration.setState("stop");
      expect(stateOf(b.first)).toEqual(source);
      b.close();
    }
  });

  test.each([
    ["an unknown record that may be skipped is skipped", { bytes: 5, isOptional: true, tag: 99 }, undefined],
    ["an unknown record that may not is refused", { bytes: 5, isOptional: false, tag: 99 }, "EOPNOTSUPP"],
    [
      "a record longer than the device takes is refused",
      { bytes: 2 ** 40, isOptional: false, tag: RECORD_TAG.IMAGE },
      "ENOMEM",
    ],
    ["a record of no bytes is refused", { bytes: 0, isOptional: true, tag: RECORD_TAG.IMAGE }, "EINVAL"],
  ] as const)("%s", (_what, header, errno) => {
    const b = stand();
    const file = b.first.migration.setState("resuming")!;
    expect(errnoOf(() => file.write(encodeRecord(header)))).toBe(errno);
    if (!errno) {
      file.write(new Uint8Array(header.bytes));
      file.write(whole);
      b.first.migration.setState("stop");
      expect(stateOf(b.first)).toEqual(source);
    }
    expect(b.close()).toEqual([]);
  });

  test("an image of a card with other memory is refused", () => {
    const b = stand({ card: { memoryPages: 17 } });
    const file = b.first.migration.setState("resuming")!;
    expect(errnoOf(() => file.write(whole))).toBe("EINVAL");
    b.close();
  });
});

describe("a step that fails", () => {
  const streamOf = (options?: StandOptions): Uint8Array => {
    const a = busy(options);
    const { bytes, end } = drain(a, a.first.migration.setState("stop-copy")!);
    expect([end, a.close()]).toEqual([0, []]);
    return bytes;
  };

  test("without room for addresses each page is mapped by itself, and the stream is the same", () => {
    const usual = streamOf();
    const a = busy();
    const { dma } = a.physical;
    dma.tryReserveIova = () => undefined;
    const { bytes } = drain(a, a.first.migration.setState("stop-copy")!);
    expect(Buffer.from(bytes).equals(usual)).toBe(true);
    expect(a.close()).toEqual([]);
  });

  test("a page that cannot be linked fails the change of state; the device goes on running, and nothing is left", () => {
    const a = busy();
    const { domain, dma } = a.physical;
    const probe = dma.tryReserveIova({ length: 17 * 4096 })!;
    const first = IovaPage.of(probe.address);
    probe.destroy();
    domain!.map(IovaPage.add(first, 9), 77 as PhysPage, 1, 3);
    const before = [dma.counters.leavesWritten - dma.counters.leavesCleared, a.host.machine.ram.pagesInUse];
    expect(errnoOf(() => a.first.migration.setState("pre-copy"))).toBe("EADDRINUSE");
    expect(a.first.migration.state).toBe("running");
    expect(a.first.model.receive(packet(3))).toBe(true);
    expect([dma.counters.leavesWritten - dma.counters.leavesCleared, a.host.machine.ram.pagesInUse]).toEqual(before);
    domain!.unmapNow(IovaPage.add(first, 9), 1);
    expect(a.close()).toEqual([]);
  });

  const COMMANDS = Object.entries(NIC_COMMAND).filter(([name]) => !/LOG|MESSAGE|RESET/.test(name));
  test.each(COMMANDS)(
    "%s, the first to the fifth time it is asked: the source runs on or says so, and nothing is left",
    (_name, command) => {
      for (let skip = 0; skip < 5; skip++) {
        const [a, b] = [busy({ driver: { chunkBytes: 32_768 } }), stand()];
        const failing = failingAt(skip);
        a.card.failing.set(command, failing);
        b.card.failing.set(command, failing);
        const errors = [
          errnoOf(() => {
            const file = a.first.migration.setState("pre-copy")!;
            const parts = [drain(a, file).bytes];
            a.first.model.receive(packet(9));
            file.preCopyInfo();
            parts.push(drain(a, file).bytes);
            a.first.migration.setState("stop-copy");
            const last = drain(a, file);
            if (last.end) throw new DmaError("ERR_DMA_TEST", last.end, "the stream broke");
            fill(b.first, Buffer.concat([...parts, last.bytes]));
            b.first.migration.setState("running");
          }),
        ];
        if (errors[0] === undefined && b.first.migration.state === "running") {
          expect(stateOf(b.first)).toEqual(stateOf(a.first));
        }
        if (a.first.migration.state === "error") a.first.migration.reset();
        a.card.failing.clear();
        if (a.first.migration.state !== "running") a.first.migration.setState("running");
        expect(a.first.model.suspended).toBe(0);
        expect(a.first.model.receive(packet(1))).toBe(true);
        b.card.failing.clear();
        expect([a.close(), b.close()]).toEqual([[], []]);
      }
    },
  );

  test("memory that the card cannot reach fails the session: ENODEV, and stopping again works", () => {
    const a = busy();
    const { unit } = a.host;
    const { device, domain } = a.physical;
    const file = a.first.migration.setState("stop-copy")!;
    unit!.detach(device.requester);
    expect(drain(a, file)).toEqual({ bytes: Buffer.alloc(0), end: "ENODEV" });
    unit!.attach(device.requester, domain!.tables);
    a.first.migration.setState("stop");
    const again = a.first.migration.setState("stop-copy")!;
    expect(drain(a, again).end).toBe(0);
    expect(a.close()).toEqual([]);
  });

  test("a card that does not say when it has saved fails the session after its time", () => {
    const a = busy();
    const file = a.first.migration.setState("stop-copy")!;
    a.physical.device.setBusMaster(false); // no interrupt can come
    expect(drain(a, file).end).toBe("ENODEV");
    expect(a.host.clock.nowMs()).toBe(5000);
    a.physical.device.setBusMaster(true);
    expect(a.close()).toEqual([]);
  });

  test("an arc that fails half-way is taken back", () => {
    const a = busy();
    a.first.migration.setState("running-p2p");
    a.card.failing.set(NIC_COMMAND.BEGIN_IMAGE, { status: NIC_STATUS.REFUSED, count: 9 });
    const file = errnoOf(() => a.first.migration.setState("pre-copy-p2p"));
    expect([file, a.first.migration.state, a.first.model.suspended]).toEqual(["EIO", "running-p2p", 1]);
    a.card.failing.clear();
    expect(a.close()).toEqual([]);
  });

  test("what cannot be taken back leaves state error, which only a reset ends", () => {
    const a = busy();
    const file = a.first.migration.setState("pre-copy-p2p")!;
    drain(a, file);
    // The last image cannot be taken, and then what it answers to cannot be resumed.
    a.card.failing.set(NIC_COMMAND.BEGIN_IMAGE, { status: NIC_STATUS.REFUSED, count: 9 });
    a.card.failing.set(NIC_COMMAND.RESUME, { status: NIC_STATUS.REFUSED, count: 9 });
    expect(errnoOf(() => a.first.migration.setState("stop-copy"))).toBe("EIO");
    expect([a.first.migration.state, file.isOver]).toEqual(["error", true]);
    a.card.failing.clear();
    for (const state of ["running", "stop", "error"] as const)
      expect(errnoOf(() => a.first.migration.setState(state))).toBe("EINVAL");
    void a.first.device.reset();
    a.first.migration.reset();
    expect([a.first.migration.state, a.first.model.suspended]).toEqual(["running", 0]);
    expect(a.close()).toEqual([]);
  });

  test("a card that is gone answers ENOTCONN, and is given back all the same", () => {
    const a = busy();
    const file = a.first.migration.setState("pre-copy")!;
    a.host.machine.unplug(a.physical.device.node);
    expect(errnoOf(() => a.first.migration.setState("stop-copy"))).toBe("ENOTCONN");
    expect(errnoOf(() => file.preCopyInfo())).toBeDefined();
    a.first.migration.reset();
    a.first.driver.detach();
    a.commands.close();
    expect(a.first.driver.bufferCounters.metadataBytes).toBe(0);
  });
});
