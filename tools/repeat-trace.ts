/**
 * Repeats a recorded trace until it has many events: for measuring how large traces are read and checked.
 *
 *     trace-cmd convert --file-version 6 -i recorded.dat -o six.dat     (if it is of version 7)
 *     npx tsx tools/repeat-trace.ts six.dat 10000000 large.dat
 *     /usr/bin/time -v node dist/apps/cli/main.js check large.dat
 *
 * Idea: the pages of the ring buffers are copied as they are, each round later in time and 4 MiB lower in the device's
 * address space (512 places, then again), so that addresses do not repeat at once. Memory is one round.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { DEFAULT_CODECS } from "../src/trace/codecs.ts";
import { readDatFile } from "../src/trace/dat-file.ts";
import { openTrace } from "../src/trace/index.ts";

const STEP_BYTES = 4 * 1024 * 1024;
const PLACES = 512;
/** Fields that hold device addresses. */
const ADDRESSES = new Set(["iova", "dma_addr", "addr"]);

const [from, wanted, to] = process.argv.slice(2);
if (!from || !wanted || !to) throw new Error("usage: repeat-trace.ts SIX.dat EVENTS OUT.dat");
const bytes = readFileSync(from);
const input = {
  name: from,
  size: bytes.length,
  read: async (at: number, length: number) => bytes.subarray(at, at + length),
};
const file = await readDatFile(input, DEFAULT_CODECS, false);
if (file.version !== 6 || !file.littleEndian) throw new Error("a little-endian trace.dat of version 6 is needed");

const trace = await openTrace(input);
let events = 0;
let lastNs = 0;
for await (const batch of trace.batches()) {
  events += batch.count;
  lastNs = batch.timeNs[batch.count - 1]!;
}
const rounds = Math.ceil(Number(wanted) / events);
const lengthNs = BigInt(Math.ceil(lastNs)) + 1_000_000n;

/** Offsets of addresses by event id. */
const patches = new Map(
  file.formats
    .filter(({ system, name }) => system === "iommu" || system === "dma" || name.startsWith("dma_iova"))
    .map(({ id, fields }) => [
      id,
      fields.filter((field) => ADDRESSES.has(field.name) && field.size === 8).map((field) => field.offset),
    ]),
);

/** Where a page's addresses lie, worked out once. */
function addressesIn(page: Buffer): number[] {
  const found: number[] = [];
  const end = 16 + (Number(page.readBigUInt64LE(8)) & 0xfffff);
  for (let at = 16; at < end; ) {
    const head = page.readUInt32LE(at);
    const type = head & 31;
    if (type === 30 || type === 31) at += 8;
    else if (type === 29) {
      if (head >>> 5 === 0) break;
      at += 4 + page.readUInt32LE(at + 4);
    } else {
      const data = type === 0 ? at + 8 : at + 4;
      const length = type === 0 ? page.readUInt32LE(at + 4) - 4 : type * 4;
      for (const offset of patches.get(page.readUInt16LE(data)) ?? []) found.push(data + offset);
      at = data + length;
    }
  }
  return found;
}

const pageSize = file.extents[0]!.pageSize;
const cpus = file.extents.map(({ offset, size }) => {
  const pages: {
    readonly stamp: bigint;
    readonly bytes: Buffer;
    readonly addresses: readonly (readonly [number, bigint])[];
  }[] = [];
  for (let at = offset; at < offset + size; at += pageSize) {
    const page = Buffer.from(bytes.subarray(at, at + pageSize));
    const addresses = addressesIn(page).map((place) => [place, page.readBigUInt64LE(place)] as const);
    pages.push({ stamp: page.readBigUInt64LE(0), bytes: page, addresses });
  }
  return pages;
});

const table = bytes.indexOf("flyrecord\0") + 10;
const head = Buffer.from(bytes.subarray(0, table + cpus.length * 16));
const out = openSync(to, "w");
let place = Math.ceil(head.length / 4096) * 4096;
for (const [cpu, pages] of cpus.entries()) {
  head.writeBigUInt64LE(BigInt(place), table + cpu * 16);
  head.writeBigUInt64LE(BigInt(pages.length * pageSize * rounds), table + cpu * 16 + 8);
  for (let round = 0; round < rounds; round++) {
    const shift = BigInt((round % PLACES) * STEP_BYTES);
    for (const page of pages) {
      page.bytes.writeBigUInt64LE(page.stamp + BigInt(round) * lengthNs, 0);
      for (const [at, address] of page.addresses)
        if (address > shift && address < 2n ** 63n) page.bytes.writeBigUInt64LE(address - shift, at);
      writeSync(out, page.bytes, 0, pageSize, place);
      place += pageSize;
    }
  }
  place = Math.ceil(place / 4096) * 4096;
}
writeSync(out, head, 0, head.length, 0);
closeSync(out);
process.stderr.write(`${to}: ${events * rounds} events, ${rounds} rounds of ${from}\n`);
