/**
 * A comparison in words: the counts, and for each strategy a sentence that somebody can act on.
 *
 * Promises: lines that fit, but for the file's name and the tables, which have 80 columns; every number with its unit.
 */

import { type RecordedMachine, recordedMachine } from "../../analysis/index.ts";
import { bytes, count, duration, plural } from "../../base/index.ts";
import type { Comparison, StrategyCost, StrategyName } from "../../replay/index.ts";
import { PLAIN, type Style } from "../text/style.ts";
import { labelled, textTable, wrap } from "../text/text-table.ts";
import { selectionWords } from "../wording.ts";
import { nvmeText } from "./compare-nvme-text.ts";
import { type CompareReport, recordedAs, WHAT_IF, type WhatIf } from "./compare-report.ts";

const INDENT = 17;
/** Strategies in the order of how little a driver has to change for them, from one-shot on. */
const EASIEST: readonly StrategyName[] = [
  "one-shot",
  "coalesced",
  "two-step",
  "scatterlist",
  "linear",
  "batch",
  "two-step-vector",
];
/** A gain below this share is none. */
const WORTH = 0.02;

/** The whole answer for one trace. */
export function compareText(report: CompareReport, style: Style = PLAIN): string {
  const { width } = style;
  const { path, result, options, kernel, changed, nvme } = report;
  const { iommu = "vtd-second-stage", cachingMode = false } = options;
  if (result.requests === 0)
    return `${path}: no mapping was recorded, so there is nothing to compare. Were dma:* or iommu:* events on?\n`;
  const { strategies, mode } = result;
  const lazy = mode === "lazy";
  const how = `${iommu} page tables, ${mode} mode${cachingMode ? ", caching mode" : ""}`;
  const lines = [
    path,
    ...[selectionWords(report.selection)].flatMap((said) => (said === "" ? [] : [wrap(said, width)])),
    wrap(
      `${plural(result.requests, "request")}, ${plural(result.segments, "segment")}, ${bytes(result.bytes)} ` +
        `(${plural(result.pages, "page")} of 4 KiB); ${how}`,
      width,
    ),
    style.paint(result.mismatches === 0 ? "good" : "error", wrap(verified(result), width)),
    ...[recordedAs(report.requests)].flatMap((said) => (said === "" ? [] : [wrap(said, width)])),
    "",
    counts(strategies),
    "",
    textTable(
      ["strategy", "table memory", "metadata", "reachable", "calls", ...(lazy ? ["queued"] : []), "ns/page"],
      strategies.map((cost) => [
        cost.name,
        bytes(cost.tableBytes),
        bytes(cost.metadataBytes),
        bytes(cost.reachableBytes),
        count(cost.calls),
        ...(lazy ? [count(cost.flushQueueEntries)] : []),
        cost.nsPerPage === undefined ? "-" : cost.nsPerPage.toFixed(1),
      ]),
    ),
    "",
    wrap(prices(result), width),
    "",
    ...sentences(result).flatMap(([name, text]) => labelled(name, text, width, INDENT)),
    "",
    strong(wrap(verdict(result, recordedMachine(report.requests)), width), style),
    ...(changed && options.whatIf ? ["", ...whatIf(options.whatIf, result, changed, style)] : []),
    ...(nvme ? ["", nvmeText(nvme, mode, style)] : []),
    ...(kernel ? ["", wrap(kernel.explanation, width)] : []),
    ...remarks(report).map((remark) => wrap(remark, width)),
  ];
  return `${lines.join("\n")}\n`;
}

/** What was checked, how much of all that is, and what came of it. */
function verified({ verify, movedShare, verifiedBytes, translatedPages, mismatches }: Comparison): string {
  const moved = `${bytes(verifiedBytes)} moved by the device through its translations`;
  const translated = `every translation of ${verify === "sample" ? "the others" : "all requests"} (${plural(translatedPages, "page")})`;
  const what =
    verify === "all"
      ? `${moved} and checked`
      : verify === "sample"
        ? `${moved} (${percent(movedShare)} of the requests, chosen by the seed) and ${translated} checked`
        : `${translated} checked, no byte moved`;
  const right = verify === "translate" ? "every page right" : verify === "all" ? "every byte right" : "all right";
  return `${what}: ${mismatches === 0 ? right : `${count(mismatches)} WRONG`}`;
}

const counts = (strategies: readonly StrategyCost[]): string =>
  textTable(
    ["strategy", "IOVA ops", "search steps", "entry writes", "invalidations", "predicted"],
    strategies.map((cost) => [
      cost.name,
      count(cost.iovaOps),
      count(cost.iovaSteps),
      count(cost.pteWrites),
      count(cost.invalidations),
      duration(cost.predictedNs),
    ]),
  );

/** What the columns mean that are no counts. */
function prices({ cost, timedRequests, pieces }: Comparison): string {
  const { invalidationNs, pteWriteNs, iovaOpNs, iovaStepNs, callNs } = cost;
  const timed =
    timedRequests !== undefined && timedRequests < pieces ? `, on the first ${count(timedRequests)} requests` : "";
  return (
    `predicted: the counts at ${invalidationNs} ns an invalidation, ${pteWriteNs} ns an entry write, ${iovaOpNs} ns an IOVA ` +
    `operation, ${iovaStepNs} ns a search step${callNs > 0 ? `, ${callNs} ns a call` : ""}; a prediction, --cost FILE gives ` +
    `your prices. reachable: by the device, the most at once. calls: of a driver in user space. ns/page: measured in this program${timed}.`
  );
}

const of = ({ strategies }: Comparison, name: StrategyName): StrategyCost =>
  strategies.find((strategy) => strategy.name === name)!;

const times = (a: number, b: number): string => (b === 0 ? "-" : (a / b).toFixed(1));

/** One sentence or two for each strategy. */
function sentences(result: Comparison): (readonly [StrategyName, string])[] {
  const { mode, requests, segments, gaps, pages, distinctPages, pieces } = result;
  const unit = mode === "strict" ? "invalidations" : "flush-queue entries";
  const waits = (cost: StrategyCost): number => (mode === "strict" ? cost.invalidations : cost.flushQueueEntries);
  const [oneShot, coalesced, list] = [of(result, "one-shot"), of(result, "coalesced"), of(result, "scatterlist")];
  const [twoStep, vector, batch] = [of(result, "two-step"), of(result, "two-step-vector"), of(result, "batch")];
  const premapped = of(result, "premapped");
  const single = segments < requests * 1.05;
  const joining = 1 - coalesced.iovaOps / Math.max(oneShot.iovaOps, 1);
  const uses = pages / Math.max(distinctPages, 1);
  return [
    [
      "one-shot",
      single
        ? "Nearly every request is one segment, so mapping segments together gains nothing."
        : `Reserves and gives back ${count(segments)} times, for ${plural(pieces, "request")}.`,
    ],
    [
      "coalesced",
      joining < WORTH
        ? "Hardly any segments are neighbours in memory: joining them first gains nothing."
        : `Joining neighbours in memory first, a few lines in the driver, saves ${percent(joining)} of one-shot's IOVA operations.`,
    ],
    [
      "scatterlist",
      `${waits(list) === waits(twoStep) ? `As many ${unit} as two-step` : `${count(waits(list))} ${unit}, two-step ${count(waits(twoStep))}`}, ` +
        `and a list to fill besides: ${bytes(list.metadataBytes)} of metadata in all, two-step ${bytes(twoStep.metadataBytes)}.`,
    ],
    [
      "two-step",
      (single
        ? "Maps single segments in one shot: nothing to gain here."
        : `One-shot does ${times(oneShot.iovaOps, twoStep.iovaOps)} times as many IOVA operations and ` +
          `${times(waits(oneShot), waits(twoStep))} times as many ${unit}: reserve once a request, link each segment, sync once.`) +
        (gaps > 0
          ? ` ${plural(gaps, "request")} with gaps inside ${gaps === 1 ? "is" : "are"} mapped segment by segment.`
          : ""),
    ],
    [
      "two-step-vector",
      "The same counts, all links in one call" +
        (vector.nsPerPage !== undefined && vector.nsPerPage < twoStep.nsPerPage! && !single
          ? `: ${vector.nsPerPage.toFixed(1)} ns a page instead of ${twoStep.nsPerPage!.toFixed(1)}, as measured here.`
          : "."),
    ],
    [
      "batch",
      "For a driver that learns as it goes how much there is: one reservation, a page longer than it may need" +
        (batch.uncached > twoStep.uncached
          ? `; that makes ${count(batch.uncached)} of them too long for the allocator's cache (128 KiB), two-step has ${count(twoStep.uncached)}.`
          : "."),
    ],
    [
      "linear",
      gaps === 0
        ? "Every request can be had as one address: a device that takes only one will do."
        : `${plural(gaps, "request")} of ${count(pieces)} cannot be had as one address, because of gaps inside: several, or a copy.`,
    ],
    [
      "premapped",
      uses < 1.5
        ? `Most pages are used once: mapping them beforehand saves little, and leaves ${bytes(premapped.reachableBytes)} reachable all the time.`
        : `Each page is used ${uses.toFixed(1)} times: mapping them once saves all ${unit} while the load runs` +
          (premapped.reachableBytes <= twoStep.reachableBytes
            ? `; the device can reach ${bytes(premapped.reachableBytes)} all the time, which is no more than two-step maps at once (${bytes(twoStep.reachableBytes)}).`
            : `, but the device can reach ${bytes(premapped.reachableBytes)} all the time, instead of ${bytes(twoStep.reachableBytes)} at most.`),
    ],
  ];
}

/** Every line of `text` stands out. */
const strong = (text: string, { paint }: Style): string =>
  text
    .split("\n")
    .map((line) => paint("strong", line))
    .join("\n");

const percent = (share: number): string => `${Math.round(share * 100)}%`;

/** Which to take: the easiest of those that are predicted to be as good as the best. */
function verdict(result: Comparison, { hidesRequests, mostly }: RecordedMachine): string {
  if (hidesRequests)
    return (
      "No advice: this recording shows each segment by itself, not which of them were one request, so ways of mapping " +
      "requests cannot be told apart. Record the same load with an IOMMU that translates."
    );
  const shared = EASIEST.map((name) => of(result, name));
  const least = Math.min(...shared.map(({ predictedNs }) => predictedNs));
  const best = shared.find(({ predictedNs }) => predictedNs <= least * (1 + WORTH))!;
  const oneShot = of(result, "one-shot");
  const each = (cost: StrategyCost): string => `${duration(cost.predictedNs / Math.max(result.requests, 1))} a request`;
  const take =
    best.name === "one-shot"
      ? `Take one-shot: predicted ${each(oneShot)}, and no other is better by more than ${percent(WORTH)} that unmaps after use.`
      : best.name === mostly
        ? `The driver does the best already, ${best.name}: predicted ${each(best)}, one-shot ${each(oneShot)}.`
        : `Take ${best.name}: predicted ${each(best)}, one-shot ${each(oneShot)}.`;
  return `${take} Keeping memory mapped: ${each(of(result, "premapped"))}.`;
}

function whatIf(question: WhatIf, before: Comparison, after: Comparison, { width }: Style): string[] {
  const saved = (name: StrategyName): string => {
    const [was, is] = [of(before, name).predictedNs, of(after, name).predictedNs];
    const change = 1 - is / Math.max(was, 1);
    return Math.abs(change) < 0.005 ? "nothing" : `${percent(Math.abs(change))} ${change > 0 ? "less" : "more"}`;
  };
  const text =
    `${before.segments === after.segments ? "" : `${plural(after.segments, "segment")} instead of ${count(before.segments)}. `}` +
    `Predicted, against the table above: one-shot ${saved("one-shot")}, two-step ${saved("two-step")}.`;
  return [wrap(WHAT_IF[question].question, width), "", counts(after.strategies), "", wrap(text, width)];
}

/** What else is to be known about the numbers. */
function remarks({ result, requests, damage, options }: CompareReport): string[] {
  const { requestCap, mode, cachingMode } = options;
  const lines: string[] = [];
  if (cachingMode && mode === "lazy") lines.push("Caching mode makes lazy mode strict, as Linux does.");
  if (requestCap !== undefined)
    lines.push(
      result.cut > 0
        ? `The cap of ${bytes(requestCap)} cuts ${plural(result.cut, "request")}: ${count(result.pieces)} are mapped instead of ${count(result.requests)}.`
        : `No request is longer than ${bytes(requestCap)}: the cap changes nothing. What the kernel had cut before recording stays cut.`,
    );
  if (requests.counts.ambiguous > 0)
    lines.push(
      `${plural(requests.counts.ambiguous, "request")} ambiguous: no event names the device; replayed on one device.`,
    );
  if (requests.counts.unknownStart > 0)
    lines.push(
      `${plural(requests.counts.unknownStart, "teardown")} of what was mapped before the recording${damage ? ", or in the part that is lost," : ""} left out.`,
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
  return lines;
}
