/** What the driver of the network card's functions refuses or gives up on. One function per error. */
import { DmaError, type Errno } from "../../../../base/index.ts";
import { NIC_COMMAND, NIC_STATUS } from "../../../../layouts/nic/index.ts";

const ERRNOS: Readonly<Record<number, Errno>> = {
  [NIC_STATUS.BAD_ARGUMENT]: "EINVAL",
  [NIC_STATUS.BAD_STATE]: "EINVAL",
  [NIC_STATUS.NO_ROOM]: "ENOMEM",
  [NIC_STATUS.BAD_IMAGE]: "EINVAL",
  [NIC_STATUS.TRANSFER]: "EIO",
  [NIC_STATUS.LOG_LOST]: "EIO",
  [NIC_STATUS.REFUSED]: "EIO",
};

const nameIn = (names: Readonly<Record<string, number>>, code: number): string =>
  Object.keys(names).find((name) => names[name] === code) ?? String(code);

/** A command that the card answered with a status. */
export const commandFailed = (command: number, status: number): DmaError =>
  new DmaError(
    "ERR_DMA_NIC_COMMAND",
    ERRNOS[status] ?? "EIO",
    `the card answered ${nameIn(NIC_COMMAND, command)} with ${nameIn(NIC_STATUS, status)}`,
    { command, status },
  );

/** No card of this kind. */
export const noCard = (identity: number): DmaError =>
  new DmaError("ERR_DMA_NIC_ABSENT", "ENODEV", `no network card answers: its identity reads ${identity}`, { identity });

/** A record that no device of this kind takes. */
export const recordTooLong = (bytes: number, most: number): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_RECORD", "ENOMEM", `a record of ${bytes} bytes: the device takes ${most} at most`, {
    bytes,
    most,
  });

/** A record that must be understood and is not. */
export const unknownRecord = (tag: number): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_RECORD", "EOPNOTSUPP", `a record with tag ${tag}, which this driver does not know`, {
    tag,
  });

/** A record that cannot be what it says. */
export const badRecord = (why: string): DmaError => new DmaError("ERR_DMA_MIGRATION_RECORD", "EINVAL", why);

/** The stream ended in the middle. */
export const streamCut = (where: string): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_CUT", "EINVAL", `the stream ends ${where}: not all of the device's state has come`, {
    where,
  });

/** A session that failed before. */
export const sessionFailed = (): DmaError =>
  new DmaError("ERR_DMA_MIGRATION_FAILED", "ENODEV", "this session has failed: reset the device, or leave the state");

/** A log that runs already, or does not run. */
export const logState = (isRunning: boolean): DmaError =>
  new DmaError("ERR_DMA_LOG_STATE", "EINVAL", isRunning ? "writes are logged already" : "writes are not logged");

/** A log that cannot be trusted. */
export const logLost = (): DmaError =>
  new DmaError("ERR_DMA_LOG_LOST", "EIO", "the device lost its log: every page may have been written");
