/**
 * NVMe controller registers: where they are and what their bits mean.
 *
 * Idea: offsets and bit fields as data; a driver and a controller both use them, neither owns them. Registers are read and
 * written by 32 bits, so that a 64-bit one is a pair.
 * Specified by: NVM Express base specification 2.0, 3.1 (controller properties).
 */
import { high32 } from "./le-words.ts";

/** Byte offsets in the first memory BAR. */
export const REGISTER = {
  capabilities: 0x00,
  capabilitiesHigh: 0x04,
  version: 0x08,
  interruptMaskSet: 0x0c,
  interruptMaskClear: 0x10,
  configuration: 0x14,
  status: 0x1c,
  adminQueueSizes: 0x24,
  adminSubmissionQueue: 0x28,
  adminCompletionQueue: 0x30,
  cmbLocation: 0x38,
  cmbSize: 0x3c,
  cmbControl: 0x50,
  readyTimeouts: 0x68,
  doorbells: 0x1000,
} as const;

/** What a read answers when no device is there any more. */
export const ALL_ONES = 0xffff_ffff;

/** CAP, both halves. */
export interface Capabilities {
  /** Largest I/O queue, entries, as the field has it: one less than meant. */
  readonly maxQueueEntries0: number;
  readonly contiguousQueuesRequired: boolean;
  /** Longest time to become ready, in units of 500 ms. */
  readonly timeout500Ms: number;
  /** Distance of doorbells: 4 bytes shifted left by this. */
  readonly doorbellStride: number;
  /** Smallest and largest memory page: 4 KiB shifted left by this. */
  readonly minPageShift: number;
  readonly maxPageShift: number;
  readonly controllerMemoryBuffer: boolean;
  /** The time-outs of {@link REGISTER.readyTimeouts} count. */
  readonly readyTimeouts: boolean;
}

export const decodeCapabilities = (low: number, high: number): Capabilities => ({
  maxQueueEntries0: low & 0xffff,
  contiguousQueuesRequired: ((low >>> 16) & 1) === 1,
  timeout500Ms: low >>> 24,
  doorbellStride: high & 0xf,
  minPageShift: (high >>> 16) & 0xf,
  maxPageShift: (high >>> 20) & 0xf,
  controllerMemoryBuffer: ((high >>> 25) & 1) === 1,
  readyTimeouts: ((high >>> 27) & 1) === 1,
});

/** The two halves of CAP; the NVM command set is always there (bit 37). */
export const encodeCapabilities = (cap: Capabilities): readonly [low: number, high: number] => [
  (cap.maxQueueEntries0 | (Number(cap.contiguousQueuesRequired) << 16) | (cap.timeout500Ms << 24)) >>> 0,
  (cap.doorbellStride |
    (1 << 5) |
    (cap.minPageShift << 16) |
    (cap.maxPageShift << 20) |
    (Number(cap.controllerMemoryBuffer) << 25) |
    (Number(cap.readyTimeouts) << 27)) >>>
    0,
];

/** CC. */
export const CONFIGURATION = {
  enable: 1,
  pageShiftAt: 7,
  shutdownAt: 14,
  shutdownMask: 0xc000,
  /** A shutdown that waits for what is under way. */
  shutdownNormal: 0x4000,
  submissionEntryAt: 16,
  completionEntryAt: 20,
} as const;

/** Sizes of queue entries as CC has them: 64 bytes and 16 bytes. */
export const SUBMISSION_ENTRY_SHIFT = 6;
export const COMPLETION_ENTRY_SHIFT = 4;

/** CC of a driver that uses 4 KiB controller pages, whatever the CPU's are. Not enabled yet. */
export const CONFIGURATION_4K: number =
  (SUBMISSION_ENTRY_SHIFT << CONFIGURATION.submissionEntryAt) |
  (COMPLETION_ENTRY_SHIFT << CONFIGURATION.completionEntryAt);

/** CSTS. */
export const STATUS_REGISTER = {
  ready: 1,
  fatal: 2,
  shutdownMask: 0xc,
  shutdownComplete: 0x8,
} as const;

/** AQA of two admin queues with `entries` each. */
export const adminQueueSizes = (entries: number): number => (entries - 1) | ((entries - 1) << 16);

/** CMBSZ and CMBLOC together. */
interface ControllerMemoryBuffer {
  readonly bar: number;
  /** In units of {@link unitBytes}, as the fields have them. */
  readonly offsetUnits: number;
  readonly sizeUnits: number;
  readonly unitBytes: number;
  readonly submissionQueues: boolean;
  readonly completionQueues: boolean;
  readonly lists: boolean;
  readonly readData: boolean;
  readonly writeData: boolean;
}

export const decodeCmb = (location: number, size: number): ControllerMemoryBuffer => ({
  bar: location & 7,
  offsetUnits: location >>> 12,
  sizeUnits: size >>> 12,
  unitBytes: 2 ** (12 + 4 * ((size >>> 8) & 0xf)),
  submissionQueues: (size & 1) !== 0,
  completionQueues: (size & 2) !== 0,
  lists: (size & 4) !== 0,
  readData: (size & 8) !== 0,
  writeData: (size & 16) !== 0,
});

export const encodeCmb = (cmb: ControllerMemoryBuffer): readonly [location: number, size: number] => [
  (cmb.bar | (cmb.offsetUnits << 12)) >>> 0,
  (Number(cmb.submissionQueues) |
    (Number(cmb.completionQueues) << 1) |
    (Number(cmb.lists) << 2) |
    (Number(cmb.readData) << 3) |
    (Number(cmb.writeData) << 4) |
    (((Math.log2(cmb.unitBytes) - 12) / 4) << 8) |
    (cmb.sizeUnits << 12)) >>>
    0,
];

/** CMBMSC: registers readable, memory space enabled; the rest is the address. */
export const CMB_CONTROL = { readable: 1, enabled: 2 } as const;

/** CRTO: longest time to become ready, in units of 500 ms. */
export const readyTimeout500Ms = (register: number): number => register & 0xffff;

/** Doorbells, byte offsets. `stride` is the field of CAP. */
export const submissionDoorbell = (queue: number, stride: number): number =>
  REGISTER.doorbells + 2 * queue * (4 << stride);
export const completionDoorbell = (queue: number, stride: number): number =>
  REGISTER.doorbells + (2 * queue + 1) * (4 << stride);

/** VS as `major.minor.tertiary`. */
export const versionName = (version: number): string => `${version >>> 16}.${(version >>> 8) & 0xff}.${version & 0xff}`;
/** VS of a version. */
export const versionOf = (major: number, minor: number): number => (major << 16) | (minor << 8);

/** A 64-bit register, low word first. */
export function write64(
  registers: { write32(offset: number, value: number): void },
  offset: number,
  value: number,
): void {
  registers.write32(offset, value >>> 0);
  registers.write32(offset + 4, high32(value));
}
