/**
 * The kernel's own interface to migration: VFIO_DEVICE_FEATURE, and the request on data files, as bytes in and bytes out.
 *
 * Idea: a table of features says which directions each has and how much data; the checks before are the same for all. What a
 * feature does is the typed API's. Promises: answers, errno and what is left in the caller's memory equal Linux's, in this order:
 * argsz, unknown flags, GET with SET, unknown feature, direction, none of both, too little data.
 * Not for: other features of a device; they have their own.
 * Specified by: behaviour of Linux 7.2 VFIO (device features); judged by test/golden/vfio-mig.
 */
import { DmaError, ERRNO } from "../../../base/index.ts";
import {
  CStructValue,
  FEATURE,
  FEATURE_FLAGS,
  LOGGING_CONTROL,
  LOGGING_RANGE,
  LOGGING_REPORT,
  MIG_DATA_SIZE,
  MIG_GET_PRECOPY_INFO,
  MIG_STATE,
  MIGRATION,
  MIGRATION_FEATURES,
  MIGRATION_FLAGS,
  PRECOPY_INFO,
  PRECOPY_INFO_REINIT,
  REQUESTS,
  read32,
  read64,
} from "../../../layouts/uapi/index.ts";
import type { DataFile } from "./data-file.ts";
import type { DeviceMigration } from "./device-migration.ts";
import type { DmaLogging } from "./dma-logging.ts";
import { badFeatureCall, noPreCopyFlags, notPreCopyFile, notSupported, noWay } from "./errors.ts";
import { codeOfState, stateOfCode } from "./states.ts";
import { type CallerMemory, readCaller, setUserBits, writeCaller } from "./user-bitmap.ts";

/** Where data files become numbers. The descriptors of a process are one. */
export interface FileTable {
  /** @throws DmaError EMFILE */
  install(file: DataFile): number;
  /** Closes `fd`. False if it was not open. */
  close(fd: number): boolean;
}

/** What is behind the door, and where data files get their numbers. */
export interface MigrationDoorOptions {
  /** Absent: the device cannot move. */
  readonly migration?: DeviceMigration | undefined;
  /** Absent: the device logs nothing. */
  readonly logging?: DmaLogging | undefined;
  /** Gives a data file its descriptor. */
  readonly files: FileTable;
}

/** One call, after the checks. */
interface Call {
  readonly isGet: boolean;
  /** Where the feature's data lie. */
  readonly data: bigint;
  readonly memory: CallerMemory;
}

interface Feature {
  /** FEATURE_FLAGS. */
  readonly directions: number;
  readonly dataBytes: number;
  run(call: Call): void;
}

const { GET, SET, PROBE, INDEX_MASK } = FEATURE_FLAGS;
const HEADER = BigInt(FEATURE.bytes);

/** The feature calls of one device, as the kernel's interface has them. */
export class MigrationDoor {
  readonly #features: ReadonlyMap<number, Feature>;
  readonly #files: FileTable;

  /** What is not given the device does not have: its calls are refused. */
  constructor({ migration, logging, files }: MigrationDoorOptions) {
    this.#files = files;
    this.#features = new Map([
      ...(migration ? this.#migrationFeatures(migration) : []),
      ...(logging ? loggingFeatures(logging) : []),
    ]);
  }

  /**
   * One request of the device's file.
   *
   * @param argument what ioctl's third argument is: an address in `memory`
   * @returns 0, or a negative errno
   */
  ioctl(request: number, argument: bigint, memory: CallerMemory): number {
    return answerOf(() => {
      if (request !== REQUESTS.VFIO_DEVICE_FEATURE) throw notSupported(`request ${request}`);
      this.#feature(argument, memory);
    });
  }

  #feature(argument: bigint, memory: CallerMemory): void {
    const header = readCaller(memory, argument, FEATURE.bytes);
    const argsz = read32(header, FEATURE.fields.argsz);
    const flags = read32(header, FEATURE.fields.flags);
    if (argsz < FEATURE.bytes) throw badFeatureCall(`argsz ${argsz}: the header alone has ${FEATURE.bytes} bytes`);
    if ((flags & ~(INDEX_MASK | GET | SET | PROBE)) !== 0) throw badFeatureCall("flags that nobody knows are set");
    if ((flags & PROBE) === 0 && (flags & GET) !== 0 && (flags & SET) !== 0)
      throw badFeatureCall("GET and SET at once, without PROBE");
    const index = flags & INDEX_MASK;
    const feature = this.#features.get(index);
    if (index === MIGRATION_FEATURES.MIG_PRECOPY_INFO_V2 && feature === undefined) throw noPreCopyFlags();
    if (feature === undefined) throw notSupported(`feature ${index}`);
    if ((flags & (GET | SET) & ~feature.directions) !== 0)
      throw badFeatureCall(`feature ${index} does not go this direction`);
    if ((flags & PROBE) !== 0) return;
    if ((flags & (GET | SET)) === 0) throw badFeatureCall("neither GET nor SET nor PROBE");
    if (argsz - FEATURE.bytes < feature.dataBytes)
      throw badFeatureCall(`argsz ${argsz}: feature ${index} needs ${feature.dataBytes} bytes of data`);
    feature.run({ isGet: (flags & GET) !== 0, data: argument + HEADER, memory });
  }

  #migrationFeatures(migration: DeviceMigration): [number, Feature][] {
    const features: [number, Feature][] = [
      [
        MIGRATION_FEATURES.MIGRATION,
        getter(MIGRATION.bytes, () => new CStructValue(MIGRATION, { flags: migration.flags })),
      ],
      [
        MIGRATION_FEATURES.MIG_DEVICE_STATE,
        { directions: GET | SET, dataBytes: MIG_STATE.bytes, run: (call) => this.#deviceState(migration, call) },
      ],
      [
        MIGRATION_FEATURES.MIG_DATA_SIZE,
        getter(
          MIG_DATA_SIZE.bytes,
          () => new CStructValue(MIG_DATA_SIZE, { stop_copy_length: migration.stopCopyLength() }),
        ),
      ],
    ];
    if ((migration.flags & MIGRATION_FLAGS.PRE_COPY) !== 0)
      features.push([
        MIGRATION_FEATURES.MIG_PRECOPY_INFO_V2,
        { directions: SET, dataBytes: 0, run: () => migration.sayBeganAnew() },
      ]);
    return features;
  }

  /**
   * The answer is written after the change, whatever became of it, and without a file when it failed; if it cannot be
   * written that is the error, and the change stays.
   */
  #deviceState(migration: DeviceMigration, { isGet, data, memory }: Call): void {
    const bytes = readCaller(memory, data, MIG_STATE.bytes);
    let code = read32(bytes, MIG_STATE.fields.device_state);
    const answer = (fd: number): void => {
      const state = new CStructValue(MIG_STATE, { device_state: code, data_fd: fd });
      writeCaller(memory, data, state.bytes);
    };
    if (isGet) {
      code = codeOfState(migration.state);
      answer(-1);
      return;
    }
    let file: DataFile | undefined;
    try {
      const target = stateOfCode(code);
      if (target === undefined) throw noWay(migration.state, code, migration.flags);
      file = migration.setState(target);
    } catch (error) {
      answer(-1);
      throw error;
    }
    if (file === undefined) answer(-1);
    else {
      const fd = this.#files.install(file);
      try {
        answer(fd);
      } catch (error) {
        this.#files.close(fd);
        throw error;
      }
    }
  }
}

/**
 * One request of a data file.
 *
 * @param file in the states before the stop it says how much there is to read
 * @returns 0, or a negative errno
 */
export function dataFileIoctl(
  file: DataFile,
  migration: DeviceMigration,
  request: number,
  argument: bigint,
  memory: CallerMemory,
): number {
  return answerOf(() => {
    if (request !== MIG_GET_PRECOPY_INFO || !file.hasPreCopyInfo) throw notPreCopyFile();
    const { fields } = PRECOPY_INFO;
    const asked = readCaller(memory, argument, PRECOPY_INFO.bytes);
    const argsz = read32(asked, fields.argsz);
    if (argsz < PRECOPY_INFO.bytes) throw badFeatureCall(`argsz ${argsz}: ${PRECOPY_INFO.bytes} bytes are needed`);
    const { initialBytes, dirtyBytes, beganAnew } = file.preCopyInfo();
    // Flags came later than the rest: whoever has not opted in finds there what it had put there.
    const flags = migration.saysBeganAnew ? (beganAnew ? PRECOPY_INFO_REINIT : 0) : read32(asked, fields.flags);
    const info = { argsz, flags, initial_bytes: initialBytes, dirty_bytes: dirtyBytes };
    writeCaller(memory, argument, new CStructValue(PRECOPY_INFO, info).bytes);
  });
}

const getter = (dataBytes: number, value: () => CStructValue<string>): Feature => ({
  directions: GET,
  dataBytes,
  run: ({ data, memory }) => writeCaller(memory, data, value().bytes),
});

const loggingFeatures = (logging: DmaLogging): [number, Feature][] => [
  [
    MIGRATION_FEATURES.DMA_LOGGING_START,
    { directions: SET, dataBytes: LOGGING_CONTROL.bytes, run: (call) => startLogging(logging, call) },
  ],
  [MIGRATION_FEATURES.DMA_LOGGING_STOP, { directions: SET, dataBytes: 0, run: () => logging.stop() }],
  [
    MIGRATION_FEATURES.DMA_LOGGING_REPORT,
    { directions: GET, dataBytes: LOGGING_REPORT.bytes, run: (call) => reportLogging(logging, call) },
  ],
];

/** Ranges are read one by one, as they are looked at. If the answer cannot be written the log is stopped again. */
function startLogging(logging: DmaLogging, { data, memory }: Call): void {
  const { fields } = LOGGING_CONTROL;
  const control = readCaller(memory, data, LOGGING_CONTROL.bytes);
  const ranges = read64(control, fields.ranges);
  const pageBytes = logging.start(read64(control, fields.page_size), read32(control, fields.num_ranges), (i) => {
    const range = readCaller(memory, ranges + BigInt(i * LOGGING_RANGE.bytes), LOGGING_RANGE.bytes);
    return { iova: read64(range, LOGGING_RANGE.fields.iova), length: read64(range, LOGGING_RANGE.fields.length) };
  });
  new DataView(control.buffer).setBigUint64(fields.page_size.offset, pageBytes, true);
  try {
    writeCaller(memory, data, control);
  } catch (error) {
    logging.stop();
    throw error;
  }
}

/** A bitmap that cannot be written is found out when a bit is to be set. */
function reportLogging(logging: DmaLogging, { data, memory }: Call): void {
  const { fields } = LOGGING_REPORT;
  const report = readCaller(memory, data, LOGGING_REPORT.bytes);
  const [iova, length] = [read64(report, fields.iova), read64(report, fields.length)];
  const bitmap = read64(report, fields.bitmap);
  logging.report(iova, length, read64(report, fields.page_size), (first, last) =>
    setUserBits(memory, bitmap, first, last),
  );
}

/** What a system call answers: 0, or why not. Anything but a refusal is a fault of this program, and goes on up. */
function answerOf(call: () => void): number {
  try {
    call();
    return 0;
  } catch (error) {
    if (error instanceof DmaError) return -ERRNO[error.errno];
    throw error;
  }
}
