/**
 * VT-d invalidation, judged by the running kernel: the ranges that its DMA API asked a unit to forget (or to notice), and
 * what went into the invalidation queue for each. The ranges are given to a unit; every announced block and every word of
 * every descriptor must be the same, in the same order.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { Counters, hex, type IovaPage, type Observer, type PhysPage } from "../../src/base/index.ts";
import { VirtualClock } from "../../src/hosts/simulated/index.ts";
import { SimulatedVtdUnit } from "../../src/hosts/simulated/units/vtd/index.ts";
import { VtdUnit } from "../../src/iommu/index.ts";
import { vtdSecondStage, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { Arena, PageTable } from "../../src/pagetable/index.ts";
import type { Header, Line } from "./judge.ts";

type Event = readonly unknown[];

const FOLDER = join(import.meta.dirname, "dma-api");
const DEVICE = 0x0100;
/** What follows a range that is invalidated. */
const CONSEQUENCES = new Set(["inv", "invMap", "submit", "qi"]);

/** An address as the files write it; the nearest number to the last one of 64 bits is 2^64. */
const address = (value: number): string => (value === 2 ** 64 ? "0xffffffffffffffff" : hex(value));
const bytes = (text: unknown): number => Number(BigInt(text as string));
const page = (value: number): IovaPage => Math.floor(value / 4096) as IovaPage;

/** A unit as the file's kernel found it, and what it announces. */
function unitOf({ mode, machine }: Header, domainId: number) {
  const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
  const clock = new VirtualClock();
  const deviceTlb = String(machine).includes("device-iotlb");
  const scalableMode = mode === "fl";
  const registers = new SimulatedVtdUnit({ memory, clock, scalableMode, deviceTlb, cachingMode: mode === "cm" });
  const events: Event[] = [];
  const observer: Observer = {
    cacheInvalidated: (why, start, last, block, order) =>
      events.push([why === "map" ? "invMap" : "inv", address(start), address(last), address(block), order]),
    descriptorsSubmitted: (words, at, count, slotWords) => {
      events.push(["submit", count]);
      for (let i = at; i < at + count * slotWords; i += slotWords)
        events.push(["qi", ...[i, i + 2].map((w) => hex((BigInt(words[w + 1]!) << 32n) | BigInt(words[w]!)))]);
    },
  };
  const unit = new VtdUnit({ registers, memory, clock, observer });
  const layout = scalableMode ? x86_64() : vtdSecondStage();
  const table = new PageTable({ layout, memory, counters: new Counters() });
  const tables = { domainId, layout, memory, root: () => table.root, topLevel: () => table.topLevel };
  unit.attach(DEVICE, tables, deviceTlb ? { ats: { queueDepth: 0, stu: 0 } } : {});
  return { unit, events };
}

/** Gives the unit the range of one event; undefined if the event is of another kind. */
function cause(unit: VtdUnit, domainId: number, [name, ...values]: Event): boolean {
  if (name === "iotlbSync") {
    const end = page(bytes(values[1]) + 1);
    unit.invalidateRange(domainId, page(bytes(values[0])), end, values[2] === true);
  } else if (name === "invAll") unit.invalidateDomain(domainId);
  else if (name === "syncMap") {
    const start = bytes(values[0]);
    unit.syncMap(domainId, page(start), page(start + bytes(values[1])));
  } else return false;
  return true;
}

describe("what a unit is told: the kernel's invalidation queue", () => {
  for (const file of readdirSync(FOLDER)
    .filter(
      (name) =>
        /^dma-api-.*-(strict|lazy|cm|fl)(-\d+)?\.jsonl\.gz$/.test(name) &&
        !name.includes("virtio") &&
        !name.includes("p2p"),
    )
    .sort())
    test(file.replace(".jsonl.gz", ""), () => {
      const text = gunzipSync(readFileSync(join(FOLDER, file))).toString();
      const [header, ...lines] = text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Line);
      const lists = lines.map((line) => (line["events"] ?? []) as Event[]);
      const first = lists.flat().find(([name]) => name === "qi");
      const domainId = first ? (bytes(first[1]) >>> 16) & 0xffff : 5;
      const { unit, events } = unitOf(header as Header, domainId);
      let judged = 0;
      lists.forEach((list, i) => {
        for (let at = 0; at < list.length; at++) {
          events.length = 0;
          if (!cause(unit, domainId, list[at]!)) continue;
          let end = at + 1;
          while (CONSEQUENCES.has(list[end]?.[0] as string)) end++;
          expect([i + 2, ...events]).toEqual([i + 2, ...list.slice(at + 1, end)]);
          judged += end - at - 1;
        }
      });
      expect(judged).toBe(lists.flat().filter(([name]) => CONSEQUENCES.has(name as string)).length);
      expect([unit.broken, unit.faults.drain()]).toEqual([undefined, []]);
    });
});
