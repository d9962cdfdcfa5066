/** What a trace.dat file says of itself, before any event is read: one value for both versions. */
import type { Compression } from "./codecs.ts";
import type { TraceDamage } from "./errors.ts";
import type { EventFormat, PageFormat } from "./event-format.ts";

/** The pages of one CPU of one buffer. */
export interface CpuExtent {
  readonly cpu: number;
  /** Index into {@link DatFile.buffers}. */
  readonly buffer: number;
  readonly offset: number;
  readonly size: number;
  /** The pages are packed in chunks, each with its two sizes before it. */
  readonly chunked: boolean;
  readonly pageSize: number;
}

/** Everything but the events. */
export interface DatFile {
  readonly version: 6 | 7;
  littleEndian: boolean;
  longSize: number;
  compression: Compression;
  page: PageFormat | undefined;
  readonly formats: EventFormat[];
  readonly buffers: string[];
  readonly extents: CpuExtent[];
  /** Task names by process id. */
  readonly tasks: Map<number, string>;
  clock: string | undefined;
  cpus: number | undefined;
  system: string | undefined;
  /** Nanoseconds to add to every stamp. */
  timeOffset: bigint;
  /** Cycles to nanoseconds: `(cycles * multiplier) >> shift`, and `offset`. */
  cycles: { readonly multiplier: number; readonly shift: number; readonly offset: bigint } | undefined;
  /** Reads the kernel's symbol table, where the file has one that is not too large. */
  symbols: (() => Promise<Uint8Array>) | undefined;
  /** What the kernel counted as overwritten or dropped. */
  lost: number;
  /** Best effort: what of the metadata could not be read. */
  damage: TraceDamage | undefined;
}
