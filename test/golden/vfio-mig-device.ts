/** A device behind the kernel's own interface, as the judge of vfio-mig calls it: bytes in, bytes out. */
import { DmaError, ERRNO } from "../../src/base/index.ts";
import {
  type DataFile,
  DeviceMigration,
  DmaLogging,
  dataFileIoctl,
  MigrationDoor,
  stateOfCode,
} from "../../src/consumers/vfio/index.ts";
import {
  CStructValue,
  FEATURE,
  FEATURE_FLAGS,
  MIG_GET_PRECOPY_INFO,
  MIG_STATE,
  MIGRATION_FEATURES,
  MIGRATION_STATES,
  PRECOPY_INFO,
  REQUESTS,
  read32,
  read64,
} from "../../src/layouts/uapi/index.ts";
import type { DmaLogger, MigratableDevice, MigrationState } from "../../src/platform/index.ts";
import { PlainCallerMemory } from "../models/caller-memory.ts";

/** The code of a state as golden files write it: the header's name, or a number where it has none. */
export const codeOf = (name: unknown): number => {
  const code = MIGRATION_STATES.indexOf(String(name).toLowerCase().replaceAll("_", "-") as MigrationState);
  return code >= 0 ? code : Number(name);
};

/** The header's name of a state. */
export const nameOf = (state: MigrationState | undefined): string | null =>
  state === undefined ? null : state.toUpperCase().replaceAll("-", "_");

/** What a call answers: a number, or the negative errno of its refusal. */
export function answerOf(call: () => number): number {
  try {
    return call();
  } catch (error) {
    if (error instanceof DmaError) return -ERRNO[error.errno];
    throw error;
  }
}

const UNTOUCHED = 0x5a5a5a5a;

export interface StateAnswer {
  readonly ret: number;
  /** The data file of the answer; "unchanged": the field was not written. */
  readonly fd: DataFile | undefined | "unchanged";
}

export class JudgedDevice {
  readonly migration: DeviceMigration | undefined;
  /** States entered since the list was emptied. */
  readonly steps: MigrationState[] = [];
  readonly #door: MigrationDoor;
  readonly #files = new Map<number, DataFile>();

  constructor(device: Partial<MigratableDevice & DmaLogger>) {
    const moves = device.migrationFlags !== undefined && device.migrationFlags !== 0;
    if (moves)
      this.migration = new DeviceMigration(device as MigratableDevice, { onStep: (state) => this.steps.push(state) });
    this.#door = new MigrationDoor({
      migration: this.migration,
      logging: device.readDirty ? new DmaLogging(device as DmaLogger) : undefined,
      files: {
        install: (file) => {
          this.#files.set(this.#files.size + 3, file);
          return this.#files.size + 2;
        },
        close: (fd) => this.#files.delete(fd),
      },
    });
  }

  /** A feature call on `memory`, whose header is written there; the answer is in the memory. */
  feature(memory: PlainCallerMemory, address: number, flags: number, argsz: number): number {
    memory.write(address, new CStructValue(FEATURE, { argsz, flags }).bytes);
    return this.#door.ioctl(REQUESTS.VFIO_DEVICE_FEATURE, BigInt(address), memory);
  }

  /** The state, as the kernel's interface gives it. */
  get state(): string | null {
    const memory = new PlainCallerMemory();
    const { address, bytes } = memory.add(FEATURE.bytes + MIG_STATE.bytes);
    const ret = this.feature(memory, address, FEATURE_FLAGS.GET | MIGRATION_FEATURES.MIG_DEVICE_STATE, bytes.length);
    return ret < 0 ? null : nameOf(stateOfCode(read32(bytes.subarray(FEATURE.bytes), MIG_STATE.fields.device_state)));
  }

  /** Asks for a state; with `readOnly` the answer cannot be written. */
  setState(code: number, readOnly = false): StateAnswer {
    const memory = new PlainCallerMemory();
    const { address, bytes } = memory.add(FEATURE.bytes + MIG_STATE.bytes);
    const data = bytes.subarray(FEATURE.bytes);
    data.set(new CStructValue(MIG_STATE, { device_state: code, data_fd: UNTOUCHED }).bytes);
    const flags = FEATURE_FLAGS.SET | MIGRATION_FEATURES.MIG_DEVICE_STATE;
    bytes.set(new CStructValue(FEATURE, { argsz: bytes.length, flags }).bytes);
    if (readOnly) memory.protect(address);
    const ret = this.#door.ioctl(REQUESTS.VFIO_DEVICE_FEATURE, BigInt(address), memory);
    const fd = read32(data, MIG_STATE.fields.data_fd) | 0;
    return { ret, fd: fd === UNTOUCHED ? "unchanged" : this.#files.get(fd) };
  }

  /** Asks a data file how much there is to read; the caller's flags field holds 0xdead. */
  preCopyInfo(file: DataFile, argsz: number): { ret: number; flags: number; initial: number; dirty: number } {
    const memory = new PlainCallerMemory();
    const { address, bytes } = memory.add(PRECOPY_INFO.bytes);
    bytes.set(new CStructValue(PRECOPY_INFO, { argsz, flags: 0xdead }).bytes);
    const ret = dataFileIoctl(file, this.migration!, MIG_GET_PRECOPY_INFO, BigInt(address), memory);
    const { fields } = PRECOPY_INFO;
    return {
      ret,
      flags: read32(bytes, fields.flags),
      initial: Number(read64(bytes, fields.initial_bytes)),
      dirty: Number(read64(bytes, fields.dirty_bytes)),
    };
  }
}
