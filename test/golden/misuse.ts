/**
 * Reports of the kernel's DMA debugging, against the findings of checked mode.
 *
 * A report is recognised by a few words of it and read by its bracketed numbers; a finding must be there for each, in the
 * same order, of the same kind, with the same numbers. Other lines of the kernel's log are somebody else's.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { KERNEL_REPORTS, PhysAddr } from "../../src/base/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import { type DebugFinding, DmaDebug, type MemoryRange, type MisuseCode } from "../../src/dma-debug/index.ts";
import { type Differences, type Header, type Line, NotJudged } from "./judge.ts";

const wide = (value: number): string => `0x${value.toString(16).padStart(16, "0")}`;
const direction = (name: unknown): string => `DMA_${String(name).toUpperCase().replace("-", "_")}`;

/** The bracketed parts of a report, as a finding would have them. */
function brackets({ code, details }: DebugFinding): string[] {
  const n = (name: string): number => (details[name] ?? 0) as number;
  const place = [`device address=${wide(n("address"))}`, `size=${n("length")} bytes`];
  const was = (name: string): string => `0x${n(name).toString(16)}`;
  switch (code) {
    case "free-unknown":
    case "sync-unknown":
      return place;
    case "different-size":
      return [place[0]!, `map size=${n("mapped")} bytes`, `unmap size=${n("length")} bytes`];
    case "wrong-function":
      return [...place, `mapped as ${details["mapped"]}`, `unmapped as ${details["unmapped"]}`];
    case "different-entry-count":
      return [`map count=${n("mapped")}`, `${details["what"] === "syncs" ? "sync" : "unmap"} count=${n("asked")}`];
    case "different-direction":
      return [
        ...place,
        `mapped with ${direction(details["mapped"])}`,
        `unmapped with ${direction(details["unmapped"])}`,
      ];
    case "map-error-unchecked":
      return [...place, `mapped as ${details["kind"]}`];
    case "different-attributes":
      return [...place, `mapped with ${was("mapped")}`, `unmapped with ${was("unmapped")}`];
    case "sync-different-direction":
    case "sync-read-only-for-cpu":
    case "sync-write-only-for-device":
      return [
        place[0]!,
        `size=${n("mappedLength")} bytes`,
        `mapped with ${direction(details["mapped"])}`,
        `synced with ${direction(details["synced"])}`,
      ];
    case "maps-stack":
      return ["addr=.."];
    case "too-many-overlaps":
      return [wide(n("cacheLine"))];
    case "mmio-of-ram":
      return [wide(n("phys"))];
    case "segment-too-long":
      return [`len=${n("length")}`, `max=${n("max")}`];
    case "segment-across-boundary":
      return [`start=${wide(n("start"))}`, `end=${wide(n("end"))}`, `boundary=${wide(n("boundary"))}`];
    case "unbound-with-live":
      return [
        `count=${n("count")}`,
        ...place,
        `mapped with ${direction(details["direction"])}`,
        `mapped as ${details["kind"]}`,
      ];
    default:
      return [];
  }
}

/** What the kernel reported on a line: kind, then numbers. */
function reports(line: Line): string[] {
  const found: string[][] = [];
  for (const text of (line["log"] as string[] | undefined) ?? []) {
    const parts = [...text.matchAll(/\[([^\]]*)\]| (0x[0-9a-f]{16})$/g)].map(([, inside, bare]) => inside ?? bare!);
    if (text.startsWith("One of leaked")) found.at(-1)?.push(...parts);
    if (!text.startsWith("DMA-API:")) continue;
    const code = KERNEL_REPORTS.find(([words]) => text.includes(words))?.[1] ?? `unrecognised: ${text}`;
    found.push([code, ...parts]);
  }
  return found.map((each) => each.join(" | "));
}

/** Reports that the kernel does not count. */
const UNCOUNTED: MisuseCode = "too-many-overlaps";

/** The same, with what the kernel died of. */
const expected = (line: Line): string[] => [...reports(line), ...(line["crash"] === undefined ? [] : ["maps-invalid"])];

export class MisuseJudge {
  readonly debug: DmaDebug;
  readonly #stacks: MemoryRange[] = [];
  readonly #findings: DebugFinding[] = [];
  #isKnown = true;

  constructor() {
    this.debug = new DmaDebug({
      ramEnd: PhysAddr(2 ** 31),
      stacks: this.#stacks,
      print: "none",
      callSites: false,
      onFinding: (finding) => this.#findings.push(finding),
    });
  }

  /** The script maps memory that the file names by kind. */
  memoryIs(kind: unknown, phys: number, length: number): void {
    if (kind === "stack") this.#stacks.push({ start: PhysAddr(phys), length });
  }

  /** The kernel reports memory that is none, and dies of it: here it is mapped, and taken back. */
  invalidMemory(dma: Dma, length: number): void {
    const address = dma.mapPhys(PhysAddr(2 ** 31), length, "to-device");
    this.debug.errorChecked(address);
    dma.unmapPhys(address, length, "to-device");
  }

  /** The findings since the last line , against the line's reports. */
  compare(line: Line, differences: Differences): void {
    const found = this.#findings.splice(0).map((each) => [each.code, ...brackets(each)].join(" | "));
    differences.same("reports", expected(line), found);
  }

  /** Whether all that the counters count is known. */
  goesOn(isKnown: boolean): void {
    this.#isKnown = isKnown;
  }

  /** The counters and the dump at the end. */
  compareState(line: Line, differences: Differences): void {
    if (!this.#isKnown) throw new NotJudged("the counters go on from a script that is in no file here");
    const { errors, live, peak, max } = this.debug.counters;
    const found = {
      errorCount: errors,
      freeEntries: max - live,
      minFreeEntries: max - peak,
      totalEntries: max,
      disabled: this.debug.disabled ? "Y" : "N",
      dump: this.debug.dump(),
    };
    for (const [name, value] of Object.entries(found)) differences.same(name, line[name], value);
  }
}

/** What the counters at the end of a file say; undefined if it has none. */
const errorCount = (lines: readonly Line[]): number | undefined =>
  lines.findLast(({ op }) => op === "dmaDebug")?.["errorCount"] as number | undefined;

const FOLDER = join(import.meta.dirname, "dma-api");

/**
 * The lines that a file goes on from. A kernel that died had run another script before, which the file does not repeat but
 * its counters and its dump show: `misuse-none-02` goes on from `misuse-none-01`. It is the one with as many errors as are
 * missing; undefined if there is none.
 */
export function linesBefore({ mode }: Header, lines: readonly Line[]): readonly Line[] | undefined {
  const counted = errorCount(lines);
  if (counted === undefined || !lines.some(({ crash }) => crash !== undefined)) return [];
  const own = lines.flatMap(expected).filter((report) => !report.startsWith(UNCOUNTED)).length;
  if (counted === own) return [];
  return readdirSync(FOLDER)
    .filter((name) => name.startsWith("dma-api-misuse-"))
    .map((name) => {
      const [header, ...before] = gunzipSync(readFileSync(join(FOLDER, name)))
        .toString()
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Line);
      return { header, before };
    })
    .find(({ header, before }) => header?.["mode"] === mode && errorCount(before) === counted - own)?.before;
}
