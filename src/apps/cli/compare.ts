/** `dmalink compare TRACE`: what each mapping strategy would cost for a recorded load. */
import { type Requests, readRequests } from "../../analysis/index.ts";
import {
  type CompareOptions,
  type Comparison,
  compare,
  describeMismatch,
  type StrategyCost,
} from "../../replay/index.ts";
import { openTrace } from "../../trace/index.ts";
import { NODE_CODECS } from "./codecs.ts";
import { openInput } from "./input.ts";
import { progressLine } from "./progress.ts";
import { bytes, count, textTable } from "./table.ts";

export interface CompareCommandOptions extends Omit<CompareOptions, "nowNs" | "progress"> {
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

/** Prints the comparison for `path`; the exit code: 1 if a byte came out wrong. */
export async function compareCommand(path: string, options: CompareCommandOptions): Promise<number> {
  const progress = progressLine();
  const source = await openInput(path);
  try {
    const trace = await openTrace(source.input, { bestEffort: options.bestEffort ?? false, codecs: NODE_CODECS });
    progress.say(`reading ${path}`);
    const requests = await readRequests(trace);
    if (trace.damage) process.stderr.write(`${path}: ${trace.damage.message}; replayed is what was read before it\n`);
    const result = compare(requests, { ...options, nowNs: () => performance.now() * 1e6, progress: progress.say });
    progress.done();
    const kernel = kernelCheck(requests, result, options.mode ?? "strict");
    if (options.json) process.stdout.write(`${compareJson(path, result, requests, kernel)}\n`);
    else process.stdout.write(compareText(path, result, requests, kernel, options));
    if (result.firstMismatch)
      process.stderr.write(
        `mismatch under ${result.firstMismatch.strategy}: ${describeMismatch(result.firstMismatch)}\n`,
      );
    return result.mismatches > 0 ? 1 : trace.damage ? 2 : 0;
  } finally {
    progress.done();
    await source.close();
  }
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
  const seen = unmapsOfUnseen > 0 ? `, ${count(unmapsOfUnseen)} of them for memory mapped before the recording` : "";
  const explanation = equal
    ? `The kernel's own trace has ${count(unmapEvents)} unmap events${seen}: two-step, as the kernel mapped, ` +
      `invalidates ${count(invalidations)} times, the same.`
    : `The kernel's own trace has ${count(unmapEvents)} unmap events${seen}; two-step here invalidates ` +
      `${count(invalidations)} times. The difference: ${difference(requests)}.`;
  return { unmapEvents, unmapsOfUnseen, strategy: "two-step", invalidations, equal, explanation };
}

function difference({ mapsOverLive }: Requests): string {
  return mapsOverLive > 0
    ? `${count(mapsOverLive)} maps lie over live ones, of a second domain that the events do not tell apart`
    : "requests with gaps between their segments, which two-step maps one by one";
}

function compareJson(file: string, result: Comparison, requests: Requests, kernel: KernelCheck | undefined): string {
  const { firstMismatch, strategies, ...rest } = result;
  return JSON.stringify(
    {
      schema: "dmalink.compare/1",
      file,
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

function compareText(
  file: string,
  result: Comparison,
  requests: Requests,
  kernel: KernelCheck | undefined,
  { iommu = "vtd", mode = "strict" }: CompareCommandOptions,
): string {
  const { strategies } = result;
  if (result.requests === 0)
    return `${file}: no mapping was recorded, so there is nothing to compare. Were dma:* or iommu:* events on?\n`;
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
    row("ns per page", (cost) => (cost.nsPerPage === undefined ? "-" : cost.nsPerPage.toFixed(1))),
  ];
  const lines = [
    file,
    `${count(result.requests)} requests, ${count(result.segments)} segments, ${bytes(result.bytes)} ` +
      `(${count(result.pages)} pages); ${iommu} page tables, ${mode} mode`,
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
      `${count(requests.ambiguous)} requests are ambiguous: no event names their device; replayed on one device.`,
    );
  if (requests.liveAtStart > 0)
    lines.push(`${count(requests.liveAtStart)} teardowns of what was mapped before the recording are left out.`);
  if (result.liveAtEnd > 0)
    lines.push(
      `${count(result.liveAtEnd)} requests were live at the end of the recording; their teardown is not counted.`,
    );
  if (result.untimed > 0)
    lines.push(
      `${count(result.untimed)} requests of a direct mapping have no recorded unmap: taken down right after use.`,
    );
  return `${lines.join("\n")}\n`;
}

/** Two sentences that say what the table means for this load. */
function meaning({ strategies, requests, segments }: Comparison, mode: "strict" | "lazy"): string[] {
  const cost = (name: StrategyCost["name"]): StrategyCost => strategies.find((s) => s.name === name)!;
  const [oneShot, list, twoStep] = [cost("one-shot"), cost("scatterlist"), cost("two-step")];
  const waits = (c: StrategyCost): number => (mode === "strict" ? c.invalidations : c.flushQueueEntries);
  const unit = mode === "strict" ? "IOTLB invalidations" : "flush-queue entries";
  const times = (a: number, b: number): string => (b === 0 ? "-" : (a / b).toFixed(1));
  if (segments === requests)
    return [
      "Every request is one segment, so all strategies map it the same way: two-step gains nothing for this load.",
      `What would help is mapping less often: ${count(requests)} requests cost ${count(waits(twoStep))} ${unit}.`,
    ];
  return [
    `Two-step needs ${count(twoStep.iovaOps)} IOVA operations and ${count(waits(twoStep))} ${unit} where one-shot needs ` +
      `${count(oneShot.iovaOps)} and ${count(waits(oneShot))}: ${times(oneShot.iovaOps, twoStep.iovaOps)} and ` +
      `${times(waits(oneShot), waits(twoStep))} times as many.`,
    `Against a scatterlist it saves the list itself: ${bytes(twoStep.metadataBytes)} of bookkeeping in all instead of ` +
      `${bytes(list.metadataBytes)}, with ${waits(list) === waits(twoStep) ? "the same number of" : `${count(waits(list))}`} ${unit}.`,
  ];
}
