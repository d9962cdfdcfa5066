/** What can be wrong with the input of an analysis: what was asked, what is true, what to do. */
import { DmaError, hex } from "../base/index.ts";

/** The bytes are no snapshot of table pages. */
export const notASnapshot = (found: string): DmaError =>
  new DmaError(
    "ERR_DMA_SNAPSHOT_FORMAT",
    "EINVAL",
    `not a table snapshot: expected DMASNAP1 at offset 0, found ${found}`,
    { offset: 0, found },
  );

/** The snapshot is cut or damaged at `offset` of its uncompressed bytes. */
export const snapshotDamaged = (offset: number, message: string): DmaError =>
  new DmaError("ERR_DMA_SNAPSHOT_DAMAGED", "EINVAL", `damaged at offset ${offset} (${hex(offset)}): ${message}`, {
    offset,
  });

/** Nothing can be decoded: the first table of all is not there. */
export const rootTableMissing = (address: number, pages: number): DmaError =>
  new DmaError(
    "ERR_DMA_TABLES_ROOT",
    "ENOENT",
    `the root table ${hex(address)} is not among the ${pages} pages of the snapshot: give the address that the unit's root table register held (--root)`,
    { address, pages },
  );

/** Tables that point to each other: followed, they are no end of mappings. */
export const tablesTangled = (most: number): DmaError =>
  new DmaError(
    "ERR_DMA_TABLES_TANGLED",
    "EINVAL",
    `the tables point to each other so that they describe more than ${most} entries, far more than the snapshot has: no machine's ` +
      "tables do. Ask for one device (--device) to see what it has",
    { most },
  );

/** The root table register names a kind of tables that does not exist. */
export const reservedTableMode = (register: bigint, mode: number): DmaError =>
  new DmaError(
    "ERR_DMA_TABLES_MODE",
    "EINVAL",
    `the root table register ${hex(register)} says table mode ${mode}, which is reserved: 0 is legacy, 1 scalable, 3 abort`,
    { register: hex(register), mode },
  );

/** No entry leads to the device that was asked for. */
export const deviceNotFound = (device: string, found: readonly string[]): DmaError => {
  const listed = found.slice(0, 12).join(", ") + (found.length > 12 ? ` and ${found.length - 12} more` : "");
  return new DmaError(
    "ERR_DMA_TABLES_DEVICE",
    "ENODEV",
    `no context entry for device ${device}; ${found.length === 0 ? "there is none for any device" : `there are entries for ${listed}`}`,
    { device, found },
  );
};

/** A line of the list of live mappings that is none. */
export const notADmaDump = (line: number, found: string): DmaError =>
  new DmaError(
    "ERR_DMA_DUMP_FORMAT",
    "EINVAL",
    `line ${line} is no entry of debugfs dma-api/dump: expected "driver device type idx N P=… D=… L=… … DMA_TO_DEVICE …", found ${JSON.stringify(found.slice(0, 100))}`,
    { line },
  );

/** A line of the page tables in debugfs that is none. */
export const notDebugfsTables = (line: number, found: string): DmaError =>
  new DmaError(
    "ERR_DMA_SNAPSHOT_DAMAGED",
    "EINVAL",
    `line ${line} is none of debugfs domain_translation_struct or dmar_translation_struct: found ${JSON.stringify(found.slice(0, 100))}`,
    { line },
  );
