/** The kernel's own interface: the order of checks, each feature's directions, and what is left in the caller's memory. */
import { describe, expect, test } from "vitest";
import { DmaError, ERRNO } from "../../../base/index.ts";
import { BareDevice, SerialCard } from "../../../hosts/simulated/index.ts";
import {
  CStructValue,
  FEATURE,
  FEATURE_FLAGS,
  LOGGING_CONTROL,
  LOGGING_RANGE,
  LOGGING_REPORT,
  MIG_GET_PRECOPY_INFO,
  MIG_STATE,
  MIGRATION_FEATURES,
  PRECOPY_INFO,
  REQUESTS,
  read32,
} from "../../../layouts/uapi/index.ts";
import type { DataFile } from "./data-file.ts";
import { DeviceMigration } from "./device-migration.ts";
import { DmaLogging } from "./dma-logging.ts";
import { dataFileIoctl, MigrationDoor } from "./uapi-door.ts";
import type { CallerMemory } from "./user-bitmap.ts";

const { GET, SET, PROBE } = FEATURE_FLAGS;
const F = MIGRATION_FEATURES;

/** 64 KiB from address 0 on, of which a part can be read only. */
class Memory implements CallerMemory {
  readonly bytes = new Uint8Array(65_536);
  readOnlyBelow = 0;

  read(address: number, into: Uint8Array): number {
    const part = this.bytes.subarray(address, address + into.length);
    into.set(part);
    return part.length;
  }

  write(address: number, from: Uint8Array): number {
    if (address < this.readOnlyBelow || address + from.length > this.bytes.length) return 0;
    this.bytes.set(from, address);
    return from.length;
  }
}

interface Caller {
  readonly memory: Memory;
  readonly files: Map<number, DataFile>;
  readonly migration: DeviceMigration;
  readonly device: BareDevice;
  call(flags: number, data?: Uint8Array, argsz?: number): string | 0;
  readonly data: Uint8Array;
}

const nameOf = (ret: number): string | 0 =>
  ret === 0 ? 0 : Object.keys(ERRNO).find((name) => ERRNO[name as keyof typeof ERRNO] === -ret)!;

function caller(device: BareDevice | SerialCard = new BareDevice(), most = 10): Caller {
  const memory = new Memory();
  const files = new Map<number, DataFile>();
  const migration = new DeviceMigration(device);
  const door = new MigrationDoor({
    migration,
    logging: new DmaLogging(device),
    files: {
      install(file) {
        if (files.size >= most) throw new DmaError("ERR_DMA_TEST", "EMFILE", "too many files");
        files.set(files.size + 3, file);
        return files.size + 2;
      },
      close: (fd) => files.delete(fd),
    },
  });
  return {
    memory,
    files,
    migration,
    device: device as BareDevice,
    data: memory.bytes.subarray(FEATURE.bytes),
    call(flags, data = new Uint8Array(64), argsz = FEATURE.bytes + data.length) {
      memory.bytes.set(data, FEATURE.bytes);
      memory.bytes.set(new CStructValue(FEATURE, { argsz, flags }).bytes);
      return nameOf(door.ioctl(REQUESTS.VFIO_DEVICE_FEATURE, 0n, memory));
    },
  };
}

const state = (device_state: number, data_fd = 0x5a5a5a5a): Uint8Array =>
  new CStructValue(MIG_STATE, { device_state, data_fd }).bytes;
const answered = ({ data }: Caller): [number, number] => [
  read32(data, MIG_STATE.fields.device_state),
  read32(data, MIG_STATE.fields.data_fd) | 0,
];

describe("the checks, in their order", () => {
  const bare = (): Caller => caller();
  test.each([
    ["argsz of less than the header, before anything else", () => bare().call(1 << 30, undefined, 7), "EINVAL"],
    ["flags that nobody knows, before the index", () => bare().call((1 << 19) | 99), "EINVAL"],
    ["GET with SET, before the index", () => bare().call(GET | SET | 99), "EINVAL"],
    ["an index that nobody knows, before the direction", () => bare().call(99), "ENOTTY"],
    ["the same with PROBE", () => bare().call(PROBE | GET | SET | 99), "ENOTTY"],
    ["a direction that the feature has not, also with PROBE", () => bare().call(PROBE | SET | F.MIGRATION), "EINVAL"],
    [
      "PROBE with a direction, of any size: nothing is done",
      () => bare().call(PROBE | GET | F.MIGRATION, undefined, 8),
      0,
    ],
    [
      "PROBE with both, where both are there",
      () => bare().call(PROBE | GET | SET | F.MIG_DEVICE_STATE, undefined, 8),
      0,
    ],
    ["PROBE alone", () => bare().call(PROBE | F.MIG_DATA_SIZE, undefined, 8), 0],
    ["no direction at all", () => bare().call(F.MIGRATION), "EINVAL"],
    ["too little data", () => bare().call(GET | F.MIGRATION, undefined, 15), "EINVAL"],
    ["more data than needed is fine", () => bare().call(GET | F.MIGRATION, undefined, 4000), 0],
  ])("%s", (_what, call, answer) => expect(call()).toBe(answer));

  test("other requests are not this interface's", () => {
    const door = new MigrationDoor({ files: { install: () => 3, close: () => true } });
    expect(nameOf(door.ioctl(0x3b64, 0n, new Memory()))).toBe("ENOTTY");
  });

  test("a header that cannot be read, or lies beyond any memory, is EFAULT", () => {
    const door = new MigrationDoor({ files: { install: () => 3, close: () => true } });
    for (const address of [70_000n, 2n ** 63n])
      expect(nameOf(door.ioctl(REQUESTS.VFIO_DEVICE_FEATURE, address, new Memory()))).toBe("EFAULT");
  });

  test("a device that neither moves nor logs has no such feature; opting in to what it lacks is EINVAL all the same", () => {
    const door = new MigrationDoor({ files: { install: () => 3, close: () => true } });
    const memory = new Memory();
    const call = (flags: number): string | 0 => {
      memory.bytes.set(new CStructValue(FEATURE, { argsz: 64, flags }).bytes);
      return nameOf(door.ioctl(REQUESTS.VFIO_DEVICE_FEATURE, 0n, memory));
    };
    for (const index of [F.MIGRATION, F.MIG_DEVICE_STATE, F.MIG_DATA_SIZE, F.DMA_LOGGING_STOP])
      expect(call(SET | index)).toBe("ENOTTY");
    expect(call(SET | F.MIG_PRECOPY_INFO_V2)).toBe("EINVAL");
  });
});

describe("the state", () => {
  test("is got with no file, and set with one when a session opens", () => {
    const program = caller(new SerialCard());
    expect(program.call(GET | F.MIG_DEVICE_STATE, state(0))).toBe(0);
    expect(answered(program)).toEqual([2, -1]);
    expect(program.call(SET | F.MIG_DEVICE_STATE, state(3))).toBe(0);
    expect(answered(program)).toEqual([3, 3]);
    expect(program.files.get(3)!.direction).toBe("save");
  });

  test("that is refused is answered too, without a file", () => {
    const program = caller();
    expect(program.call(SET | F.MIG_DEVICE_STATE, state(9))).toBe("EINVAL");
    expect(answered(program)).toEqual([9, -1]);
    expect(program.call(SET | F.MIG_DEVICE_STATE, state(9), 15)).toBe("EINVAL");
    expect(answered(program)[1]).toBe(0x5a5a5a5a); // not written
  });

  test("changes although its answer cannot be written; the file is gone then, and the session goes on", () => {
    const program = caller(new SerialCard());
    program.memory.readOnlyBelow = 4096;
    expect(program.call(SET | F.MIG_DEVICE_STATE, state(3))).toBe("EFAULT");
    expect([program.migration.state, program.files.size]).toEqual(["stop-copy", 0]);
  });

  test("changes although there is no descriptor for the file", () => {
    const program = caller(new SerialCard(), 0);
    expect(program.call(SET | F.MIG_DEVICE_STATE, state(3))).toBe("EMFILE");
    expect(program.migration.state).toBe("stop-copy");
  });
});

describe("the log", () => {
  const start = (
    program: Caller,
    ranges: readonly [bigint, bigint][],
    pageSize: bigint,
    pointer = 8192n,
    num = ranges.length,
  ): string | 0 => {
    ranges.forEach(([iova, length], i) => {
      const range = new CStructValue(LOGGING_RANGE);
      range.setBig("iova", iova);
      range.setBig("length", length);
      program.memory.bytes.set(range.bytes, 8192 + i * LOGGING_RANGE.bytes);
    });
    const control = new CStructValue(LOGGING_CONTROL, { num_ranges: num });
    control.setBig("page_size", pageSize);
    control.setBig("ranges", pointer);
    return program.call(SET | F.DMA_LOGGING_START, control.bytes);
  };
  const report = (program: Caller, iova: bigint, length: bigint, pageSize: bigint, bitmap = 16_384n): string | 0 => {
    const value = new CStructValue(LOGGING_REPORT);
    value.setBig("iova", iova);
    value.setBig("length", length);
    value.setBig("page_size", pageSize);
    value.setBig("bitmap", bitmap);
    return program.call(GET | F.DMA_LOGGING_REPORT, value.bytes);
  };

  test.each([
    ["no range", [], 4096n, "EINVAL"],
    ["a range that is not in units", [[2048n, 4096n]], 4096n, "EINVAL"],
    ["a length that is not in units", [[4096n, 2048n]], 4096n, "EINVAL"],
    ["a range to the end of 64 bits", [[2n ** 64n - 4096n, 4096n]], 4096n, "EOVERFLOW"],
    [
      "ranges that overlap",
      [
        [0n, 8192n],
        [4096n, 4096n],
      ],
      4096n,
      "EINVAL",
    ],
    [
      "ranges that touch",
      [
        [0n, 4096n],
        [4096n, 4096n],
      ],
      4096n,
      0,
    ],
    ["a range of no length", [[4096n, 0n]], 4096n, 0],
    ["a unit that is no power of two", [[0x100000n, 0x100000n]], 0x3000n, 0],
  ] as [string, [bigint, bigint][], bigint, string | 0][])("starting with %s", (_what, ranges, unit, answer) =>
    expect(start(caller(), ranges, unit)).toBe(answer),
  );

  test("of too many ranges is refused before one of them is read", () => {
    expect(start(caller(), [], 4096n, 2n ** 60n, 257)).toBe("E2BIG");
    expect(start(caller(), [], 4096n, 2n ** 60n, 256)).toBe("EFAULT");
  });

  test("whose unit cannot be told is stopped again", () => {
    const program = caller();
    program.memory.readOnlyBelow = 4096;
    expect(start(program, [[0n, 4096n]], 4096n)).toBe("EFAULT");
    expect(program.device.logged).toBeUndefined();
  });

  test.each([
    ["a unit below 4096", 0n, 65_536n, 2048n, "EINVAL"],
    ["a unit that is no power of two", 0n, 65_536n, 12_288n, "EINVAL"],
    ["the end of 64 bits", 2n ** 64n - 4096n, 4096n, 4096n, "EOVERFLOW"],
    ["no length", 0n, 0n, 4096n, 0],
    ["any place and length", 2048n, 100n, 4096n, 0],
  ] as [string, bigint, bigint, bigint, string | 0][])("reporting %s", (_what, iova, length, unit, answer) =>
    expect(report(caller(), iova, length, unit)).toBe(answer),
  );

  test("sets bits at any address, and clears none", () => {
    const program = caller();
    program.memory.bytes.fill(0x11, 16_384, 16_384 + 64);
    program.device.wrote(0n, 4096n * 20n);
    expect(report(program, 0n, 4096n * 64n, 4096n, 16_388n)).toBe(0);
    expect([...program.memory.bytes.subarray(16_384, 16_384 + 10)]).toEqual([
      0x11, 0x11, 0x11, 0x11, 0xff, 0xff, 0x1f, 0x11, 0x11, 0x11,
    ]);
  });

  test("does not touch a bitmap that nothing is to be set in; one that cannot be written is EFAULT, and the log is told", () => {
    const program = caller();
    expect(report(program, 0n, 65_536n, 4096n, 2n ** 62n)).toBe(0);
    program.device.wrote(4096n, 1n);
    expect(report(program, 0n, 65_536n, 4096n, 2n ** 62n)).toBe("EFAULT");
  });

  test("that the device lost is its errno", () => {
    const program = caller();
    program.device.isLogBroken = true;
    expect(report(program, 0n, 65_536n, 4096n)).toBe("EIO");
  });
});

describe("pre-copy information", () => {
  const ask = (program: Caller, file: DataFile, argsz = 24, request = MIG_GET_PRECOPY_INFO): [string | 0, number] => {
    const { memory, migration } = program;
    memory.bytes.set(new CStructValue(PRECOPY_INFO, { argsz, flags: 0xdead }).bytes, 4096);
    const ret = dataFileIoctl(file, migration, request, 4096n, memory);
    return [nameOf(ret), read32(memory.bytes.subarray(4096), PRECOPY_INFO.fields.flags)];
  };

  test("leaves the flags as they are, until somebody opts in", () => {
    const program = caller(new SerialCard());
    const file = program.migration.setState("pre-copy")!;
    expect(ask(program, file)).toEqual([0, 0xdead]);
    expect(program.call(SET | F.MIG_PRECOPY_INFO_V2, new Uint8Array(0))).toBe(0);
    expect(ask(program, file)).toEqual([0, 0]);
  });

  test("needs its 24 bytes, its states, its request, and a file that has it", () => {
    const program = caller(new SerialCard());
    const file = program.migration.setState("pre-copy")!;
    expect(ask(program, file, 23)[0]).toBe("EINVAL");
    expect(ask(program, file, 24, 0x3b7a)[0]).toBe("ENOTTY");
    program.migration.setState("stop-copy");
    expect(ask(program, file)[0]).toBe("EINVAL");
    expect(ask(program, program.migration.setState("resuming")!)[0]).toBe("ENOTTY");
  });

  test("that cannot be read or written is EFAULT", () => {
    const program = caller(new SerialCard());
    const file = program.migration.setState("pre-copy")!;
    program.memory.readOnlyBelow = 65_536;
    expect(ask(program, file)[0]).toBe("EFAULT");
    expect(nameOf(dataFileIoctl(file, program.migration, MIG_GET_PRECOPY_INFO, 2n ** 60n, program.memory))).toBe(
      "EFAULT",
    );
  });
});
