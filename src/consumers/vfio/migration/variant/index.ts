/** A driver for the simulated network card's functions, as VFIO's core wants one. */
export { NicCommands } from "./nic-commands.ts";
export { NicDriver, type NicDriverOptions } from "./nic-driver.ts";
export { decodeRecord, encodeRecord, RECORD_HEADER_BYTES, RECORD_TAG, type RecordHeader } from "./records.ts";
