/**
 * NVMe completions: 16 bytes in a completion queue, and what their status says.
 *
 * Specified by: NVM Express base specification 2.0, 3.3.3.2 (completion queue entry) and figures 96 to 99 (status values).
 */

export const COMPLETION_BYTES = 16;

/** Byte offsets in a completion. */
export const COMPLETION = { result: 0, submissionHead: 8, submissionQueue: 10, id: 12, status: 14 } as const;

/** The status word less its phase, shifted down: type 10:8, code 7:0, then retry delay, more, do-not-retry. */
export const DO_NOT_RETRY = 0x4000;
export const STATUS_MASK = 0x7ff;

/** Status: type << 8 | code. */
export const NVME_STATUS = {
  success: 0x000,
  invalidOpcode: 0x001,
  invalidField: 0x002,
  commandIdConflict: 0x003,
  dataTransferError: 0x004,
  internalError: 0x006,
  abortRequested: 0x007,
  abortedByQueueDeletion: 0x008,
  invalidNamespace: 0x00b,
  sglInvalidSegment: 0x00d,
  sglDescriptorCount: 0x00e,
  sglDataLength: 0x00f,
  sglMetadataLength: 0x010,
  sglDescriptorType: 0x011,
  cmbUse: 0x012,
  prpOffset: 0x013,
  sglOffset: 0x016,
  lbaRange: 0x080,
  capacityExceeded: 0x081,
  completionQueueInvalid: 0x100,
  queueIdInvalid: 0x101,
  queueSizeInvalid: 0x102,
  abortLimit: 0x103,
  asyncEventLimit: 0x105,
  interruptVectorInvalid: 0x108,
  logPageInvalid: 0x109,
  queueDeletionInvalid: 0x10c,
  unrecoveredRead: 0x281,
  guardCheck: 0x282,
  applicationTagCheck: 0x283,
  referenceTagCheck: 0x284,
  compareFailure: 0x285,
  /** What a driver says of commands that it gave up itself; no controller sends it. */
  hostAborted: 0x371,
} as const;

type NvmeStatusName = keyof typeof NVME_STATUS;

const NAMES = new Map<number, NvmeStatusName>(
  (Object.keys(NVME_STATUS) as NvmeStatusName[]).map((name) => [NVME_STATUS[name], name]),
);

/** A status as people read it: its name, or its number. */
export const statusName = (status: number): string =>
  NAMES.get(status & STATUS_MASK) ?? `status 0x${(status & STATUS_MASK).toString(16)}`;

/** Writes a completion. The word with the phase is last, as a controller writes it. */
export function putCompletion(
  view: DataView,
  at: number,
  entry: { result: number; submissionHead: number; submissionQueue: number; id: number; status: number; phase: number },
): void {
  view.setUint32(at + COMPLETION.result, entry.result, true);
  view.setUint32(at + 4, 0, true);
  view.setUint16(at + COMPLETION.submissionHead, entry.submissionHead, true);
  view.setUint16(at + COMPLETION.submissionQueue, entry.submissionQueue, true);
  view.setUint16(at + COMPLETION.id, entry.id, true);
  view.setUint16(at + COMPLETION.status, (entry.status << 1) | entry.phase, true);
}

/** Result of an asynchronous event: type 2:0, information 15:8, log page 23:16. */
export const EVENT = { error: 0, smart: 1, notice: 2 } as const;
export const ERROR_EVENT = { invalidDoorbellRegister: 0, invalidDoorbellValue: 1 } as const;
export const eventResult = (type: number, information: number, logPage: number): number =>
  type | (information << 8) | (logPage << 16);
export const eventOf = (result: number): { type: number; information: number; logPage: number } => ({
  type: result & 7,
  information: (result >>> 8) & 0xff,
  logPage: (result >>> 16) & 0xff,
});
