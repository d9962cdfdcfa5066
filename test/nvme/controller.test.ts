/** The simulated controller against a driver that makes every mistake it can: each has its status, none stops the controller. */
import { beforeEach, describe, expect, test } from "vitest";
import { PhysAddr } from "../../src/base/index.ts";
import {
  ADMIN,
  COMMAND,
  CONFIGURATION,
  CONFIGURATION_4K,
  DO_NOT_RETRY,
  decodeController,
  decodeNamespace,
  decodeNamespaceList,
  IO,
  NVME_STATUS,
  POINTERS,
  put64,
  putBlocks,
  putSgl,
  QUEUE,
  REGISTER,
  SGL_TYPE,
  STATUS_REGISTER,
  submissionDoorbell,
  viewOf,
} from "../../src/layouts/nvme/index.ts";
import type { HostBuffer } from "../../src/platform/index.ts";
import { ENTRIES, RawDriver, type RawQueue } from "./raw-driver.ts";

const AT = COMMAND.dataPointer;
let driver: RawDriver;
beforeEach(() => {
  driver = new RawDriver();
});

describe("bringing a controller up", () => {
  test("takes time, and then it is ready", () => {
    expect(driver.status & STATUS_REGISTER.ready).toBe(0);
    driver.enable();
    expect(driver.status).toBe(STATUS_REGISTER.ready);
    driver.registers.write32(REGISTER.configuration, CONFIGURATION_4K);
    expect(driver.status).toBe(0);
  });

  test("with entries or pages of other sizes, or queues that are not on pages, is fatal", () => {
    driver.enable(4 << CONFIGURATION.completionEntryAt);
    expect(driver.status).toBe(STATUS_REGISTER.fatal);
    driver = new RawDriver();
    driver.enable(CONFIGURATION_4K | (5 << CONFIGURATION.pageShiftAt));
    expect(driver.status).toBe(STATUS_REGISTER.fatal);
    driver = new RawDriver();
    Object.assign(driver.admin, {
      commands: { ...driver.admin.commands, phys: PhysAddr(driver.admin.commands.phys + 64) },
    });
    driver.enable();
    expect(driver.status).toBe(STATUS_REGISTER.fatal);
  });

  test("queue memory that cannot be reached is fatal, data that cannot is not", () => {
    driver.enable();
    driver.device.setBusMaster(false);
    driver.put(driver.admin, ADMIN.identify, 1);
    driver.ring(driver.admin);
    expect(driver.status & STATUS_REGISTER.fatal).toBe(STATUS_REGISTER.fatal);
    driver.device.setBusMaster(true);
    driver.registers.write32(REGISTER.configuration, 0);
    driver.admin.tail = 0;
    driver.enable();
    expect(driver.send(ADMIN.identify, 1, (view) => put64(view, AT, 2 ** 51))).toBe("dataTransferError");
    expect(driver.status).toBe(STATUS_REGISTER.ready);
  });

  test("a shutdown says when it is complete", () => {
    driver.enable();
    driver.registers.write32(
      REGISTER.configuration,
      CONFIGURATION_4K | CONFIGURATION.enable | CONFIGURATION.shutdownNormal,
    );
    expect(driver.status & STATUS_REGISTER.shutdownMask).toBe(0);
    driver.machine.clock.advance(10);
    expect(driver.status & STATUS_REGISTER.shutdownMask).toBe(STATUS_REGISTER.shutdownComplete);
  });
});

describe("admin commands", () => {
  beforeEach(() => driver.enable());

  const identify = (namespace: number, what: number): [string, Uint8Array] => {
    const buffer = driver.machine.ram.allocate(4096);
    const status = driver.send(ADMIN.identify, namespace, (view) => {
      put64(view, AT, buffer.phys);
      view.setUint32(COMMAND.cdw10, what, true);
    });
    return [status, buffer.bytes];
  };

  test("identify says what there is", () => {
    expect(decodeController(identify(0, 1)[1])).toMatchObject({ namespaces: 2, vendorId: 0x1b36 });
    expect(decodeNamespaceList(identify(0, 2)[1])).toEqual([1, 2]);
    expect(decodeNamespaceList(identify(1, 2)[1])).toEqual([2]);
    expect(decodeNamespace(identify(2, 0)[1]).formats).toEqual([{ blockBytes: 4096, metadataBytes: 0 }]);
    expect(identify(3, 0)[0]).toBe("invalidNamespace*");
    expect(identify(1, 99)[0]).toBe("invalidField*");
  });

  test("queues are refused for each mistake, and say which", () => {
    expect(driver.createCq(0)).toBe("queueIdInvalid*");
    expect(driver.createCq(9)).toBe("queueIdInvalid*");
    expect(driver.createCq(1, 0)).toBe("queueSizeInvalid*");
    expect(driver.createCq(1, 1024)).toBe("queueSizeInvalid*");
    expect(driver.createCq(1, 15, 0)).toBe("invalidField*");
    expect(driver.createCq(1, 15, QUEUE.contiguous | QUEUE.interrupts | (9 << 16))).toBe("interruptVectorInvalid*");
    expect(driver.createCq(1, 15, QUEUE.contiguous, 0x10_0010)).toBe("prpOffset*");
    expect(driver.createCq(1)).toBe("success");
    expect(driver.createCq(1)).toBe("queueIdInvalid*");
    expect(driver.createSq(1, 2)).toBe("completionQueueInvalid*");
    expect(driver.createSq(1, 1, 0)).toBe("queueSizeInvalid*");
    expect(driver.createSq(1, 1, 15, 0)).toBe("invalidField*");
    expect(driver.createSq(1, 1, 15, 1, 0x10_0010)).toBe("prpOffset*");
    expect(driver.createSq(1, 1)).toBe("success");
    expect(driver.createSq(1, 1)).toBe("queueIdInvalid*");
  });

  test("queues are deleted in order: commands' queues first", () => {
    driver.ioQueue();
    expect(driver.delete(ADMIN.deleteCompletionQueue, 1)).toBe("queueDeletionInvalid*");
    expect(driver.delete(ADMIN.deleteSubmissionQueue, 2)).toBe("queueIdInvalid*");
    expect(driver.delete(ADMIN.deleteSubmissionQueue, 1)).toBe("success");
    expect(driver.delete(ADMIN.deleteCompletionQueue, 1)).toBe("success");
    expect(driver.delete(ADMIN.deleteCompletionQueue, 1)).toBe("queueIdInvalid*");
    expect(driver.delete(ADMIN.deleteSubmissionQueue, 0)).toBe("queueIdInvalid*");
  });

  test("others are unknown, as are features, log pages, and SGLs here", () => {
    expect(driver.send(0x7f)).toBe("invalidOpcode*");
    expect(driver.send(ADMIN.setFeatures, 0, (view) => view.setUint32(COMMAND.cdw10, 0x99, true))).toBe(
      "invalidField*",
    );
    expect(driver.send(ADMIN.getLogPage, 0, (view) => view.setUint32(COMMAND.cdw10, 0x99, true))).toBe(
      "logPageInvalid*",
    );
    expect(driver.send(ADMIN.identify, 1, (view) => view.setUint8(COMMAND.flags, POINTERS.sgl))).toBe("invalidField*");
  });

  test("an id that is in flight is refused", () => {
    for (let i = 0; i < 2; i++)
      driver.put(driver.admin, ADMIN.asyncEvent, 0, (view) => view.setUint16(COMMAND.id, 0x77, true));
    driver.ring(driver.admin);
    expect(driver.take(driver.admin)).toMatchObject({ id: 0x77, status: NVME_STATUS.commandIdConflict | DO_NOT_RETRY });
  });

  test("a doorbell of an unknown queue or beyond the ring is an event, once somebody asks, and not fatal", () => {
    driver.registers.write32(submissionDoorbell(5, 0), 1);
    driver.registers.write32(submissionDoorbell(0, 0), ENTRIES);
    driver.machine.clock.advance(1);
    driver.put(driver.admin, ADMIN.asyncEvent, 0);
    driver.put(driver.admin, ADMIN.asyncEvent, 0);
    driver.ring(driver.admin);
    expect([driver.take(driver.admin)?.result, driver.take(driver.admin)?.result]).toEqual([0x1_0000, 0x1_0100]);
    expect(driver.status).toBe(STATUS_REGISTER.ready);
  });

  test("more requests for events than it keeps are refused", () => {
    for (let i = 0; i < 5; i++) driver.put(driver.admin, ADMIN.asyncEvent, 0);
    driver.ring(driver.admin);
    expect(driver.take(driver.admin)?.status).toBe(NVME_STATUS.asyncEventLimit | DO_NOT_RETRY);
    expect(driver.take(driver.admin)).toBeUndefined();
  });
});

describe("I/O commands", () => {
  let io: RawQueue;
  let buffer: HostBuffer;
  beforeEach(() => {
    driver.enable();
    io = driver.ioQueue();
    buffer = driver.machine.ram.allocate(64 * 4096);
  });

  /** A read of `blocks` blocks with these pointers. */
  const read = (blocks: number, prp1: number, prp2 = 0, firstBlock = 0, opcode: number = IO.read): string =>
    driver.send(
      opcode,
      1,
      (view) => {
        putBlocks(view, 0, firstBlock, blocks, 0);
        put64(view, AT, prp1);
        put64(view, AT + 8, prp2);
      },
      io,
    );

  test("PRPs that break a rule are refused, each with its status", () => {
    const { phys } = buffer;
    const list = viewOf(driver.machine.ram.allocate(8192).bytes);
    const listAt = buffer.phys + 32 * 4096;
    const slots = viewOf(buffer.bytes.subarray(32 * 4096));
    expect(list.byteLength).toBe(8192);
    expect(read(8, phys)).toBe("success");
    expect(read(8, phys + 2)).toBe("prpOffset*"); // not on a dword
    expect(read(16, phys, 0)).toBe("invalidField*"); // no second
    expect(read(16, phys, phys + 4096 + 8)).toBe("prpOffset*"); // inside a page
    expect(read(16, phys + 4, phys + 4096)).toBe("invalidField*"); // three pages: the second is a list, of zeroes
    expect(read(24, phys, listAt + 4)).toBe("prpOffset*"); // a list that is not on eight bytes
    expect(read(24, phys, listAt)).toBe("invalidField*"); // a list of zeroes
    put64(slots, 0, phys + 4096);
    put64(slots, 8, phys + 8192 + 4);
    expect(read(24, phys, listAt)).toBe("prpOffset*"); // an entry inside a page
    put64(slots, 8, phys + 8192);
    expect(read(24, phys, listAt)).toBe("success");
    expect(read(24, phys, 2 ** 51)).toBe("dataTransferError"); // a list that is nowhere
    expect(read(8, 2 ** 51)).toBe("dataTransferError");
  });

  test("a list that starts inside a page has as many slots as are left of it, the last one leading on", () => {
    const { phys } = buffer;
    const view = viewOf(buffer.bytes);
    driver.controller.namespaces.get(1)!.store.write(0, new Uint8Array(5 * 4096).fill(7));
    put64(view, 4080, phys + 2 * 4096); // two slots left: data, and where to go on
    put64(view, 4088, phys + 4096);
    put64(view, 4096, phys + 3 * 4096);
    put64(view, 4104, phys + 4 * 4096);
    put64(view, 4112, phys + 5 * 4096);
    expect(read(40, phys + 6 * 4096, phys + 4080)).toBe("success");
    for (const page of [2, 3, 4, 5, 6]) expect(buffer.bytes[page * 4096 + 5]).toBe(7);
  });

  test("a circle of lists ends", () => {
    put64(viewOf(buffer.bytes), 4088, buffer.phys + 4088);
    expect(read(24, buffer.phys + 4096, buffer.phys + 4088)).toBe("invalidField*");
  });

  const sgl = (blocks: number, fill: (view: DataView) => void, opcode: number = IO.read): string =>
    driver.send(
      opcode,
      1,
      (view) => {
        putBlocks(view, 0, 0, blocks, 0);
        view.setUint8(COMMAND.flags, POINTERS.sgl);
        fill(view);
      },
      io,
    );

  test("SGLs that break a rule are refused, each with its status", () => {
    const { phys } = buffer;
    const segment = phys + 4096;
    const view = viewOf(buffer.bytes.subarray(4096));
    const last = (length: number) => sgl(8, (command) => putSgl(command, AT, segment, length, SGL_TYPE.lastSegment));
    const chain = (length: number) => sgl(8, (command) => putSgl(command, AT, segment, length, SGL_TYPE.segment));
    expect(sgl(8, (command) => putSgl(command, AT, phys, 4096, SGL_TYPE.dataBlock))).toBe("success");
    expect(sgl(8, (command) => putSgl(command, AT, phys, 4095, SGL_TYPE.dataBlock))).toBe("sglDataLength*");
    expect(sgl(8, (command) => putSgl(command, AT, phys, 4096, SGL_TYPE.keyed))).toBe("sglDescriptorType*");
    expect(sgl(8, (command) => putSgl(command, AT, phys, 4096, 0xf0))).toBe("sglDescriptorType*");
    expect([last(0), last(24)]).toEqual(["sglInvalidSegment*", "sglInvalidSegment*"]);
    putSgl(view, 0, phys, 2048, SGL_TYPE.dataBlock);
    putSgl(view, 16, phys + 8192, 2048, SGL_TYPE.dataBlock);
    expect(last(32)).toBe("success");
    expect(chain(32)).toBe("sglInvalidSegment*"); // it says that it goes on, and does not
    putSgl(view, 16, segment + 64, 16, SGL_TYPE.lastSegment);
    expect(last(32)).toBe("sglInvalidSegment*"); // the last one must not go on
    expect(chain(48)).toBe("sglDescriptorCount*"); // and going on is the last thing a segment does
    putSgl(view, 64, phys + 8192, 2048, SGL_TYPE.dataBlock);
    expect(chain(32)).toBe("success");
    putSgl(view, 64, phys + 8192, 2044, SGL_TYPE.dataBlock);
    expect(chain(32)).toBe("sglDataLength*");
    expect(sgl(8, (command) => putSgl(command, AT, 2 ** 51, 16, SGL_TYPE.lastSegment))).toBe("dataTransferError");
  });

  test("a bit bucket takes what nobody wants", () => {
    driver.controller.namespaces.get(1)!.store.write(
      0,
      Uint8Array.from({ length: 4096 }, (_, i) => i >> 8),
    );
    const view = viewOf(buffer.bytes.subarray(4096));
    putSgl(view, 0, 0, 2048, SGL_TYPE.bitBucket);
    putSgl(view, 16, buffer.phys, 2048, SGL_TYPE.dataBlock);
    expect(sgl(8, (command) => putSgl(command, AT, buffer.phys + 4096, 32, SGL_TYPE.lastSegment))).toBe("success");
    expect([buffer.bytes[0], buffer.bytes[2047], buffer.bytes[2048]]).toEqual([8, 15, 0]);
  });

  test("a controller that wants dwords says so, one without SGLs refuses them", () => {
    driver = new RawDriver({ sgls: 2 });
    driver.enable();
    io = driver.ioQueue();
    expect(sgl(8, (command) => putSgl(command, AT, buffer.phys + 2, 4096, SGL_TYPE.dataBlock))).toBe("sglOffset*");
    driver = new RawDriver({ sgls: 0 });
    driver.enable();
    io = driver.ioQueue();
    expect(sgl(8, (command) => putSgl(command, AT, buffer.phys, 4096, SGL_TYPE.dataBlock))).toBe("invalidField*");
  });

  test("blocks that do not exist, namespaces that do not, commands that do not", () => {
    expect(read(8, buffer.phys, 0, 1017)).toBe("lbaRange*");
    expect(read(8, buffer.phys, 0, 1016)).toBe("success");
    expect(read(8, buffer.phys, 0, 2 ** 52)).toBe("lbaRange*");
    expect(driver.send(IO.read, 3, () => {}, io)).toBe("invalidNamespace*");
    expect(driver.send(0x7f, 1, () => {}, io)).toBe("invalidOpcode*");
    expect(driver.send(IO.flush, 0xffff_ffff, () => {}, io)).toBe("success");
  });

  test("a transfer that is too long is refused", () => {
    driver = new RawDriver({ maxTransferShift: 1 });
    driver.enable();
    io = driver.ioQueue();
    const { phys } = driver.machine.ram.allocate(8192);
    expect(read(16, phys, phys + 4096)).toBe("success");
    expect(read(17, phys, phys + 4096)).toBe("invalidField*");
  });

  test("nothing is stored if the data could not be read whole", () => {
    expect(read(16, buffer.phys, 2 ** 51, 0, IO.write)).toBe("dataTransferError");
    const stored = new Uint8Array(8192);
    buffer.bytes.fill(9, 0, 4096);
    expect(read(16, buffer.phys, 2 ** 51, 0, IO.write)).toBe("dataTransferError");
    driver.controller.namespaces.get(1)!.store.read(0, stored);
    expect(stored.every((byte) => byte === 0)).toBe(true);
  });

  test("completions are held while their queue is full, and none is lost", () => {
    driver.delete(ADMIN.deleteSubmissionQueue, 1);
    driver.delete(ADMIN.deleteCompletionQueue, 1);
    const completions = driver.machine.ram.allocate(4096);
    const commands = driver.machine.ram.allocate(4096);
    expect(driver.createCq(1, 3, QUEUE.contiguous, completions.phys)).toBe("success");
    expect(driver.createSq(1, 1, 15, QUEUE.contiguous, commands.phys)).toBe("success");
    const small: RawQueue = {
      id: 1,
      commands,
      completions: { ...completions, length: 64 },
      tail: 0,
      head: 0,
      phase: 1,
    };
    const ids = Array.from({ length: 10 }, () => driver.put(small, IO.flush, 1));
    driver.ring(small);
    const seen: number[] = [];
    for (let round = 0; round < 4; round++) {
      let taken = 0;
      for (let completion = driver.take(small); completion; completion = driver.take(small), taken++)
        seen.push(completion.id);
      expect(taken).toBe([3, 3, 3, 1][round]);
      driver.consume(small);
    }
    expect(seen.sort((a, b) => a - b)).toEqual(ids);
  });
});
