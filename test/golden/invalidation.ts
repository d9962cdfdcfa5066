/**
 * Judges of the invalidation files: kinds vtd-invalidate, amd-invalidate, smmu-invalidate.
 *
 * Each line is a range and what the kernel sends for it. Compared are the covering block, every word of every descriptor or
 * command, and what a unit reads back from the kernel's own words. No difference is excused.
 */
import { hex, type IovaPage } from "../../src/base/index.ts";
import {
  amdOrder,
  blockPages,
  blockStart,
  coveringOrder,
  decodeAmd,
  decodeSmmu,
  decodeVtd,
  encodeAmd,
  encodeSmmu,
  encodeVtd,
  isSeriesTooLong,
  NO_PASID,
  pieceOrder,
  type SmmuPageOpcode,
  type SmmuRange,
  writeAtcRange,
  writeDeviceTlbRange,
  writeFirstStageRange,
  writeInvalidateIotlbPages,
  writeInvalidatePageRange,
  writePasidDeviceTlb,
  writeSecondStageRange,
  writeTlbRange,
} from "../../src/layouts/invalidation/index.ts";
import { type Judge, judgeLines, known, type Line } from "./judge.ts";

const page = (address: unknown): IovaPage => Number(BigInt(address as string) >> 12n) as IovaPage;
const pageAfter = (last: unknown): IovaPage => Number((BigInt(last as string) + 1n) >> 12n) as IovaPage;
const address = (start: number): bigint => BigInt(start) << 12n;
const range = (line: Line): [IovaPage, IovaPage] => [page(line["start"]), pageAfter(line["last"])];

/** Four words as the file writes them: two quadwords, or the words one by one. */
const quads = (words: Uint32Array): string[] =>
  [0, 2].map((i) => hex((BigInt(words[i + 1]!) << 32n) | BigInt(words[i]!)));
const singles = (words: Uint32Array): string[] => [...words].map((word) => hex(word));
const wordsOf = (values: unknown): Uint32Array => {
  const parts = (values as string[]).map(BigInt);
  return parts.length === 4
    ? Uint32Array.from(parts, Number)
    : Uint32Array.from(parts.flatMap((part) => [Number(part & 0xffffffffn), Number(part >> 32n)]));
};

/** What `write` writes into fresh words, none of which may stay. */
const written = (write: (words: Uint32Array) => void): Uint32Array => {
  const words = new Uint32Array(4).fill(0xa5a5a5a5);
  write(words);
  return words;
};

const judge =
  (answer: (line: Line) => Record<string, unknown>): Judge =>
  (_header, lines) =>
    judgeLines(lines, false, (line) => {
      const differences: string[] = [];
      for (const [key, found] of Object.entries(answer(line))) {
        const [expected, got] = [JSON.stringify(line[key]), JSON.stringify(found)];
        if (expected !== got) differences.push(`${key}: expected ${expected}, found ${got}`);
      }
      return differences;
    });

const judgeVtd = judge((line) => {
  const [start, end] = range(line);
  const n = (key: string): number => line[key] as number;
  const is = (key: string): boolean => line[key] === true;
  const order = coveringOrder(start, end);
  const unit = {
    slotWords: 4 as const,
    pageSelective: is("pageSelective"),
    maxOrder: n("maxOrder"),
    drainReads: is("drainRead"),
    drainWrites: is("drainWrite"),
  };
  const device = { sourceId: n("sid"), pfSourceId: n("pfsid"), queueDepth: n("qdep") };
  const [did, pasid, leafOnly] = [n("did"), n("pasid"), is("leafOnly")];
  const own: Record<string, Uint32Array> = {
    iotlb: written((words) => writeSecondStageRange(words, 0, unit, did, start, end, leafOnly)),
    piotlb: written((words) => writeFirstStageRange(words, 0, did, pasid, start, end, leafOnly)),
    dev: written((words) => writeDeviceTlbRange(words, 0, device, 0, start, end)),
    // the file has a PASID variant for PASID 0 too, which the decision never picks
    devPasid: written((words) => writePasidDeviceTlb(words, 0, device, pasid, blockStart(start, order), order)),
  };
  const readBack = Object.keys(own).every((key) => {
    const descriptor = decodeVtd(wordsOf(line[key]), 0, 4);
    if (descriptor.type === "invalid") return false;
    return `${written((words) => encodeVtd(descriptor, words, 0))}` === `${wordsOf(line[key])}`;
  });
  if (!readBack) throw new Error("the kernel's descriptor is not read back as it is");
  return {
    addr: hex(address(blockStart(start, order))),
    order,
    ...Object.fromEntries(Object.entries(own).map(([key, words]) => [key, quads(words)])),
  };
});

const judgeAmd = judge((line) => {
  const [start, end] = range(line);
  const n = (key: string): number => line[key] as number;
  const pasid = line["guest"] === true ? n("pasid") : NO_PASID;
  const order = amdOrder(start, end);
  const own: Record<string, Uint32Array> = {
    pages: written((words) =>
      writeInvalidatePageRange(words, 0, n("domain"), pasid, start, end, line["tablesFreed"] === true),
    ),
    iotlb: written((words) => {
      const block = blockStart(start, order);
      writeInvalidateIotlbPages(words, 0, n("device"), n("device"), n("qdep"), pasid, block, order);
    }),
  };
  const np: string[][] = [];
  for (let at = start; at < end; ) {
    const next = (at + blockPages(pieceOrder(at, end))) as IovaPage;
    np.push([hex(address(at)), hex(address(next) - 1n)]);
    at = next;
  }
  for (const key of Object.keys(own)) {
    const command = decodeAmd(wordsOf(line[key]), 0);
    if (command.type === "invalid") throw new Error(`the kernel's ${key} command is refused: ${command.reason}`);
    if (`${written((words) => encodeAmd(command, words, 0))}` !== `${wordsOf(line[key])}`)
      throw new Error(`the kernel's ${key} command is not read back as it is`);
  }
  const [, , low, high] = own["pages"]!;
  const encoded = (BigInt(high!) << 32n) | (BigInt(low!) & ~6n); // less the flags for tables and guest
  return { addr: hex(encoded), pages: singles(own["pages"]!), iotlb: singles(own["iotlb"]!), np };
});

/** Commands for pages, by the name that a file gives: of stage 1, of EL2, of stage 2. */
const PAGE_OPCODES: Readonly<Record<string, SmmuPageOpcode>> = { "0x12": 0x12, "0x22": 0x22, "0x2a": 0x2a };

const judgeSmmu = judge((line) => {
  const n = (key: string): number => line[key] as number;
  const start = page(line["iova"]);
  const end = (start + page(line["size"])) as IovaPage;
  const request: SmmuRange = {
    opcode: known("the command", PAGE_OPCODES, line["opcode"]),
    asid: n("asid"),
    vmid: n("vmid"),
    start,
    end,
    granuleLg: n("pageLg2") - 12,
    entryLg: Math.log2(page(line["granule"])),
    leafOnly: line["leaf"] === true,
    rangeFeature: line["rangeFeature"] === true,
  };
  const commands: string[][] = [];
  for (let at = start; at < end; ) {
    let next = at;
    const words = written((into) => {
      next = writeTlbRange(into, 0, request, at);
    });
    commands.push(quads(words));
    at = next;
  }
  const substream = n("ssid") === 0 ? NO_PASID : n("ssid");
  for (const kernel of [...(line["commands"] as string[][]), line["atc"]]) {
    const command = decodeSmmu(wordsOf(kernel), 0);
    if (command.type === "invalid") throw new Error(`the kernel's command ${kernel} is refused: ${command.reason}`);
    if (`${written((words) => encodeSmmu(command, words, 0))}` !== `${wordsOf(kernel)}`)
      throw new Error(`the kernel's command ${kernel} is not read back as it is`);
  }
  return {
    all: isSeriesTooLong(request),
    commands,
    atc: quads(written((words) => writeAtcRange(words, 0, n("sid"), substream, start, end))),
  };
});

export const judges: Readonly<Record<string, Judge>> = {
  "vtd-invalidate": judgeVtd,
  "amd-invalidate": judgeAmd,
  "smmu-invalidate": judgeSmmu,
};
