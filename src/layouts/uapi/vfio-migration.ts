/**
 * The kernel's interface to the migration of VFIO devices: features, states, structures.
 *
 * A feature call is {@link FEATURE} followed by the data of the feature that its flags name. Whoever serves these calls and
 * whoever makes them take the numbers from here. Values of 64 bits are bigints where a caller may put anything there.
 * Specified by: include/uapi/linux/vfio.h of Linux 7.2, names and numbers; test/hardware/uapi.test.ts asks the headers.
 */
import { type CStruct, cStruct, type Field } from "./c-struct.ts";

/**
 * What a device that can move to another machine is doing, in the order of the codes: the first is 0. Only a reset leads
 * out of `error`. `pre-copy` and `stop-copy` give out the device's state, `resuming` takes it in; in the states with `p2p`
 * the device begins no transfer to a peer, and answers those of others.
 */
export const MIGRATION_STATES = [
  "error",
  "stop",
  "running",
  "stop-copy",
  "resuming",
  "running-p2p",
  "pre-copy",
  "pre-copy-p2p",
] as const;

/** One of {@link MIGRATION_STATES}. */
export type MigrationState = (typeof MIGRATION_STATES)[number];

/** What a device that can move is able to do: bits. `STOP_COPY` is there whenever any is. */
export const MIGRATION_FLAGS = { STOP_COPY: 1, P2P: 2, PRE_COPY: 4 } as const;

/** Parts of the flags of a feature call. */
export const FEATURE_FLAGS = { INDEX_MASK: 0xffff, GET: 0x1_0000, SET: 0x2_0000, PROBE: 0x4_0000 } as const;

/** Indexes of the features that belong to migration. */
export const MIGRATION_FEATURES = {
  MIGRATION: 1,
  MIG_DEVICE_STATE: 2,
  DMA_LOGGING_START: 6,
  DMA_LOGGING_STOP: 7,
  DMA_LOGGING_REPORT: 8,
  MIG_DATA_SIZE: 9,
  /** Opts in to the flags of {@link PRECOPY_INFO}. Newer than the others. */
  MIG_PRECOPY_INFO_V2: 12,
} as const;

/** Request on a data file: how much there is to read before a device stops. */
export const MIG_GET_PRECOPY_INFO: number = (0x3b << 8) | 121;

/** Flag of {@link PRECOPY_INFO}: the device has begun anew, and so has what it calls initial. */
export const PRECOPY_INFO_REINIT = 1;

/** Data of feature 1: {@link MIGRATION_FLAGS}. */
export const MIGRATION: CStruct<"flags"> = cStruct("vfio_device_feature_migration", 8, { flags: [0, 8] });

/** Data of feature 2. `data_fd` is signed; -1: none. */
export const MIG_STATE: CStruct<"device_state" | "data_fd"> = cStruct("vfio_device_feature_mig_state", 8, {
  device_state: [0, 4],
  data_fd: [4, 4],
});

/** Data of feature 6. `page_size` is a wish, and afterwards what became of it; `ranges` points to {@link LOGGING_RANGE}s. */
export const LOGGING_CONTROL: CStruct<"page_size" | "num_ranges" | "__reserved" | "ranges"> = cStruct(
  "vfio_device_feature_dma_logging_control",
  24,
  { page_size: [0, 8], num_ranges: [8, 4], __reserved: [12, 4], ranges: [16, 8] },
);

/** One of the ranges to log. Bytes. */
export const LOGGING_RANGE: CStruct<"iova" | "length"> = cStruct("vfio_device_feature_dma_logging_range", 16, {
  iova: [0, 8],
  length: [8, 8],
});

/** Data of feature 8. `bitmap` points to one bit for each `page_size` bytes. */
export const LOGGING_REPORT: CStruct<"iova" | "length" | "page_size" | "bitmap"> = cStruct(
  "vfio_device_feature_dma_logging_report",
  32,
  { iova: [0, 8], length: [8, 8], page_size: [16, 8], bitmap: [24, 8] },
);

/** Data of feature 9. Bytes, an estimate. */
export const MIG_DATA_SIZE: CStruct<"stop_copy_length"> = cStruct("vfio_device_feature_mig_data_size", 8, {
  stop_copy_length: [0, 8],
});

/** What {@link MIG_GET_PRECOPY_INFO} takes and gives. */
export const PRECOPY_INFO: CStruct<"argsz" | "flags" | "initial_bytes" | "dirty_bytes"> = cStruct(
  "vfio_precopy_info",
  24,
  { argsz: [0, 4], flags: [4, 4], initial_bytes: [8, 8], dirty_bytes: [16, 8] },
);

/** All structures of this file, for tests. */
export const MIGRATION_STRUCTURES: readonly CStruct[] = [
  MIGRATION,
  MIG_STATE,
  LOGGING_CONTROL,
  LOGGING_RANGE,
  LOGGING_REPORT,
  MIG_DATA_SIZE,
  PRECOPY_INFO,
];

/** Every number of this file by the header's name, for tests. */
export const MIGRATION_CONSTANTS: Readonly<Record<string, number>> = {
  ...named("VFIO_DEVICE_STATE_", Object.fromEntries(MIGRATION_STATES.map((state, code) => [state, code]))),
  ...named("VFIO_MIGRATION_", MIGRATION_FLAGS),
  ...named("VFIO_DEVICE_FEATURE_", MIGRATION_FEATURES),
  VFIO_DEVICE_FEATURE_MASK: FEATURE_FLAGS.INDEX_MASK,
  VFIO_DEVICE_FEATURE_GET: FEATURE_FLAGS.GET,
  VFIO_DEVICE_FEATURE_SET: FEATURE_FLAGS.SET,
  VFIO_DEVICE_FEATURE_PROBE: FEATURE_FLAGS.PROBE,
  VFIO_MIG_GET_PRECOPY_INFO: MIG_GET_PRECOPY_INFO,
};

function named(prefix: string, numbers: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(numbers).map(([name, number]) => [prefix + name.toUpperCase().replaceAll("-", "_"), number]),
  );
}

/** A field of 8 bytes, exactly: what another party wrote may be anything. */
export const read64 = (bytes: Uint8Array, { offset }: Field): bigint =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigUint64(offset, true);

/** A field of 4 bytes, unsigned. */
export const read32 = (bytes: Uint8Array, { offset }: Field): number =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(offset, true);
