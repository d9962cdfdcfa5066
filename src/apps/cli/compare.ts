/** `dmalink compare TRACE`: what each mapping strategy would cost for a recorded load. */
import { type Requests, readRequests } from "../../analysis/index.ts";
import {
  type CompareOptions,
  type Comparison,
  compare,
  describeMismatch,
  type StrategyCost,
} from "../../replay/index.ts";
import { bytes, count, plural, textTable, wrap } from "./table.ts";
import { sayDamage, withTrace } from "./trace.ts";

export interface CompareCommandOptions extends Omit<CompareOptions, "nowNs" | "progress"> {
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

/** Prints the comparison for `path`; the exit code: 1 if a byte came out wrong. */
export function compareCommand(path: string, options: CompareCommandOptions): Promise<number> {
  return withTrace(path, options, async (trace, progress) => {
    const requests = await readRequests(trace);
    const result = compare(requests, { ...options, nowNs: () => performance.now() * 1e6, progress: progress.say });
    progress.done();
    sayDamage(path, trace);
    const report: Report = {
      path,
      result,
      requests,
      kernel: kernelCheck(requests, result, options.mode ?? "strict"),
      options,
    };
    process.stdout.write(options.json ? `${compareJson(report)}\n` : compareText(report, trace.damage !== undefined));
    if (result.firstMismatch)
      process.stderr.write(
        `mismatch under ${result.firstMismatch.strategy}: ${describeMismatch(result.firstMismatch)}\n`,
      );
    return result.mismatches > 0 ? 1 : trace.damage ? 2 : 0;
  });
}

/** Everything that is printed, in whatever form. */
interface Report {
  readonly path: string;
  readonly result: Comparison;
  readonly requests: Requests;
  readonly kernel: KernelCheck | undefined;
  readonly options: CompareCommandOptions;
}

/** The kernel's own invalidations of this load, held against what was counted for the way it mapped. */
interface KernelCheck {
  readonly unmapEvents: number;
  readonly unmapsOfUnseen: number;
  readonly strategy: "two-step";
  readonly invalidations: number;
  readonly equal: boolean;
  readonly explanation: string;
}

function kernelCheck(requests: Requests, result: Comparison, mode: "strict" | "lazy"): KernelCheck | undefined {
  const { unmapEvents, unmapsOfUnseen } = requests;
  if (mode !== "strict" || unmapEvents === 0) return undefined;
  // NVMe and its like: several segments by two-step, a single one by one-shot. That is what two-step replays.
  const { invalidations } = result.strategies.find(({ name }) => name === "two-step")!;
  const expected = unmapEvents - unmapsOfUnseen;
  const equal = invalidations === expected;
  const seen = unmapsOfUnseen > 0 ? ` (${count(unmapsOfUnseen)} more for what is not in the recording)` : "";
  const explanation = equal
    ? `The kernel unmapped ${plural(expected, "time")} in this recording${seen}, in strict mode as many invalidations; two-step needs the same here.`
    : `The kernel unmapped ${plural(expected, "time")} in this recording${seen}; two-step invalidates ${plural(invalidations, "time")} here. ` +
      `The difference: ${difference(requests)}.`;
  return { unmapEvents, unmapsOfUnseen, strategy: "two-step", invalidations, equal, explanation };
}

function difference({ mapsOverLive }: Requests): string {
  return mapsOverLive > 0
    ? `${count(mapsOverLive)} maps lie over live ones, of a second domain that the events do not tell apart`
    : "requests with gaps between their segments, which two-step maps one by one";
}

function compareJson({ path, result, requests, kernel, options }: Report): string {
  const { firstMismatch, strategies, ...rest } = result;
  const { iommu = "vtd", mode = "strict", seed = 1 } = options;
  return JSON.stringify(
    {
      schema: "dmalink.compare/1",
      file: path,
      iommu,
      mode,
      seed,
      ...rest,
      liveAtStart: requests.liveAtStart,
      ambiguous: requests.ambiguous,
      ...(firstMismatch && { firstMismatch }),
      ...(kernel && { kernel }),
      strategies,
    },
    null,
    2,
  );
}

function compareText({ path, result, requests, kernel, options }: Report, damaged: boolean): string {
  const { iommu = "vtd", mode = "strict" } = options;
  const { strategies } = result;
  if (result.requests === 0)
    return `${path}: no mapping was recorded, so there is nothing to compare. Were dma:* or iommu:* events on?\n`;
  const row = (label: string, cell: (cost: StrategyCost) => string): string[] => [label, ...strategies.map(cell)];
  const rows = [
    row("IOVA operations", (cost) => count(cost.iovaOps)),
    row("IOVA search steps", (cost) => count(cost.iovaSteps)),
    row("page-table writes", (cost) => count(cost.pteWrites)),
    row("table pages", (cost) => count(cost.tablePages)),
    row("map syncs", (cost) => count(cost.mapSyncs)),
    row("IOTLB invalidations", (cost) => count(cost.invalidations)),
    row("flush-queue entries", (cost) => count(cost.flushQueueEntries)),
    row("metadata bytes", (cost) => count(cost.metadataBytes)),
    row("ns per page, measured", (cost) => (cost.nsPerPage === undefined ? "-" : cost.nsPerPage.toFixed(1))),
  ];
  const lines = [
    path,
    `${plural(result.requests, "request")}, ${plural(result.segments, "segment")}, ${bytes(result.bytes)} ` +
      `(${plural(result.pages, "page")} of 4 KiB); ${iommu} page tables, ${mode} mode`,
    `${bytes(result.verifiedBytes)} moved by the device through its translations and checked: ` +
      (result.mismatches === 0 ? "every byte right" : `${count(result.mismatches)} WRONG`),
    "",
    textTable(["cost of this load", ...strategies.map(({ name }) => name)], rows),
    "",
    ...meaning(result, mode),
  ];
  if (kernel) lines.push(kernel.explanation);
  if (requests.ambiguous > 0)
    lines.push(
      `${plural(requests.ambiguous, "request")} ambiguous: no event names the device; replayed on one device.`,
    );
  if (requests.liveAtStart > 0)
    lines.push(
      `${plural(requests.liveAtStart, "teardown")} of what was mapped before the recording${damaged ? ", or in the part that is lost," : ""} left out.`,
    );
  if (result.liveAtEnd > 0)
    lines.push(`${plural(result.liveAtEnd, "request")} live at the end of the recording: the teardown is not counted.`);
  if (result.leftOut > 0)
    lines.push(
      `${plural(result.leftOut, "request")} not replayed: no memory of a machine, or more than 256 MiB at once.`,
    );
  if (result.neverUnmapped > 0)
    lines.push(
      `${plural(result.neverUnmapped, "request")} of a direct mapping without a recorded unmap: taken down right after use. ` +
        "Such a trace shows each segment by itself.",
    );
  return `${lines.map((line) => (line.includes("  ") ? line : wrap(line, 100))).join("\n")}\n`;
}

/** Two sentences that say what the table means for this load. */
function meaning({ strategies, requests, segments }: Comparison, mode: "strict" | "lazy"): string[] {
  const cost = (name: StrategyCost["name"]): StrategyCost => strategies.find((s) => s.name === name)!;
  const [oneShot, list, twoStep] = [cost("one-shot"), cost("scatterlist"), cost("two-step")];
  const waits = (c: StrategyCost): number => (mode === "strict" ? c.invalidations : c.flushQueueEntries);
  const unit = mode === "strict" ? "IOTLB invalidations" : "flush-queue entries";
  const times = (a: number, b: number): string => (b === 0 ? "-" : (a / b).toFixed(1));
  if (segments < requests * 1.05)
    return [
      "Nearly every request is one segment, so all strategies map it the same way: two-step gains nothing for this load.",
      `What would help is mapping less often: ${plural(requests, "request")} cost ${count(waits(twoStep))} ${unit}.`,
    ];
  return [
    `Two-step needs ${count(twoStep.iovaOps)} IOVA operations and ${count(waits(twoStep))} ${unit} where one-shot needs ` +
      `${count(oneShot.iovaOps)} and ${count(waits(oneShot))}: ${times(oneShot.iovaOps, twoStep.iovaOps)} and ` +
      `${times(waits(oneShot), waits(twoStep))} times as many.`,
    `Against a scatterlist it saves the list itself: ${bytes(twoStep.metadataBytes)} of bookkeeping in all instead of ` +
      `${bytes(list.metadataBytes)}, with ${waits(list) === waits(twoStep) ? "the same number of" : `${count(waits(list))}`} ${unit}.`,
  ];
}
