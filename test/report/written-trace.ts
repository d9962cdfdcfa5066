/** Traces for tests of reports: written event by event, or one of the recordings. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { type FileInput, openTrace, type Trace } from "../../src/trace/index.ts";
import { SAMPLE_FORMATS } from "../../src/trace/sample-formats.ts";
import { DatWriter } from "../../src/trace/write-dat.ts";

/** Where the recordings are. */
export const RECORDINGS: string = join(import.meta.dirname, "../golden/traces");

function fileOf(bytes: Uint8Array): FileInput {
  return { name: "t", size: bytes.length, read: async (at, n) => bytes.subarray(at, at + n) };
}

/** The recording `name`. */
export const golden = (name: string): Promise<Trace> =>
  openTrace(fileOf(gunzipSync(readFileSync(join(RECORDINGS, name)))));

/** One event to write. */
export interface Written {
  readonly timeNs: number;
  readonly name: "dma_map_phys" | "dma_unmap_phys";
  readonly device?: string;
  readonly address: number | bigint;
  readonly size?: number;
}

const UNMAP_FORMAT = {
  system: "dma",
  text: SAMPLE_FORMATS[0]!.text.replace("name: dma_map_phys", "name: dma_unmap_phys").replace("ID: 382", "ID: 383"),
};

/** A trace of one CPU with these events. */
export function written(events: readonly Written[]): Promise<Trace> {
  const writer = new DatWriter({ formats: [...SAMPLE_FORMATS, UNMAP_FORMAT], tasks: [[77, "fio"]] });
  for (const [i, { timeNs, name, device = "0000:00:04.0", address, size = 4096 }] of events.entries()) {
    const values = { device, phys_addr: 0x10_0000 + i * 0x1000, dma_addr: address, size, dir: 2 };
    writer.add(0, BigInt(1_000_000_000 + timeNs), writer.encode(name, 77, values));
  }
  return openTrace(fileOf(writer.finish()));
}
