/**
 * The metadata of a trace.dat file, versions 6 and 7: what was recorded, in which formats, and where the pages lie.
 *
 * Idea: both versions come to one value, {@link DatFile}; nobody else knows that they differ. Version 6 is one
 * sequence (dat-version-6.ts); version 7 is a chain of option sections that name the offsets of everything else
 * (dat-version-7.ts); what they have in common is in dat-parts.ts.
 * Promises: no length or offset is trusted before it is checked against the file. Nothing is read that decoding does not
 * need (the symbol table is, when the first call chain is met). Not for: the pages themselves (cpu-stream.ts); shifting a guest's clock onto its
 * host's (stamps stay the guest's own).
 * Specified by: the trace.dat formats 6 and 7 of trace-cmd 3.
 */
import type { Codecs } from "./codecs.ts";
import type { DatFile } from "./dat-metadata.ts";
import { DatParts } from "./dat-parts.ts";
import { readSequence } from "./dat-version-6.ts";
import { DatChain } from "./dat-version-7.ts";
import { damaged, unknownVersion } from "./errors.ts";
import { type FileInput, readExactly } from "./input.ts";

export const DAT_MAGIC: readonly number[] = [0x17, 0x08, 0x44, 0x74, 0x72, 0x61, 0x63, 0x69, 0x6e, 0x67];

/**
 * Reads the metadata. With `bestEffort`, what was read before the damage is the answer, and `damage` says what it was.
 * Errors: ERR_DMA_TRACE_DAMAGED, ERR_DMA_TRACE_VERSION, ERR_DMA_TRACE_FORMAT.
 */
export async function readDatFile(input: FileInput, codecs: Codecs, bestEffort: boolean): Promise<DatFile> {
  const head = await readExactly(input, 0, Math.min(32, input.size), "the header");
  const end = head.indexOf(0, DAT_MAGIC.length);
  if (end < 0) {
    if (head.length < 32) throw damaged(head.length, "expected the file version and a zero byte");
    throw unknownVersion(String.fromCharCode(...head.subarray(DAT_MAGIC.length)));
  }
  const version = String.fromCharCode(...head.subarray(DAT_MAGIC.length, end));
  if (version !== "6" && version !== "7") throw unknownVersion(version);
  const parts = new DatParts(input, codecs, version === "6" ? 6 : 7);
  const chain = version === "7" ? new DatChain(parts) : undefined;
  try {
    const cursor = await parts.start(end + 1);
    await (chain ? chain.read(cursor) : readSequence(parts, cursor));
    parts.checkExtents();
  } catch (error) {
    const details = (error as { details?: { offset?: number; message?: string } }).details;
    if (!bestEffort || details?.offset === undefined) throw error;
    parts.file.damage = { offset: details.offset, message: details.message ?? (error as Error).message };
    await chain?.recover().catch(() => undefined); // the first damage is the one to report
    parts.dropOverlaps();
  }
  return parts.file;
}
