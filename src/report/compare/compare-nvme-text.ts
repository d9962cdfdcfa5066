/**
 * A load as NVMe commands, in words: what the driver and the controller did, and what mapping cost, beside the strategies.
 *
 * Promises: lines that fit, but for the tables, which have 80 columns; every number with its unit.
 */
import { bytes, count, duration, plural } from "../../base/index.ts";
import type { NvmeCost, NvmeReplay } from "../../replay/index.ts";
import { PLAIN, type Style } from "../text/style.ts";
import { textTable, wrap } from "../text/text-table.ts";

/** What `compare --as nvme` adds. */
export function nvmeText(nvme: NvmeReplay, mode: "strict" | "lazy", { width }: Style = PLAIN): string {
  const leftOut = leftOutText(nvme);
  if (nvme.requests === 0) return wrap(`As NVMe commands: no request of this recording can be one. ${leftOut}`, width);
  return [
    wrap(opening(nvme), width),
    "",
    commands(nvme),
    "",
    mapping(nvme, mode),
    "",
    ...[splits(nvme), ways(nvme), lists(nvme), leftOut].filter((text) => text !== "").map((text) => wrap(text, width)),
  ].join("\n");
}

function opening({ requests, bytes: moved, queueDepth, verifiedBytes, mismatches, failed, leaks }: NvmeReplay): string {
  const right = mismatches === 0 && failed === 0 && leaks.length === 0;
  const wrong = [
    ...(mismatches > 0 ? [`${count(mismatches)} WRONG`] : []),
    ...(failed > 0 ? [`${plural(failed, "request")} FAILED`] : []),
    ...(leaks.length > 0 ? [`NOT GIVEN BACK: ${leaks.join(", ")}`] : []),
  ].join(", ");
  return (
    `As NVMe commands, sent by the driver to a simulated controller: ${plural(requests, "request")}, ${bytes(moved)}, ` +
    `at most ${count(queueDepth)} at once; ${bytes(verifiedBytes)} moved and checked: ${right ? "every byte right" : wrong}`
  );
}

/** A number a line, and what is to be known about it. */
function commands(nvme: NvmeReplay): string {
  const { submissionDoorbells, completionDoorbells, queues, commandsAtOnce } = nvme;
  const lines: readonly (readonly [string, number, string])[] = [
    ["commands", nvme.commands, `${plural(nvme.reads, "read")}, ${plural(nvme.writes, "write")}`],
    ["at once", commandsAtOnce, `the most, on ${plural(queues, "queue")}`],
    ["PRP entries", nvme.prpEntries, ""],
    ["SGL descriptors", nvme.sglDescriptors, ""],
    [
      "lists",
      nvme.lists,
      nvme.lists === 0 ? "" : `${bytes(nvme.listBytes)} of PRPs and descriptors beside the commands`,
    ],
    [
      "doorbells",
      submissionDoorbells + completionDoorbells,
      `${count(submissionDoorbells)} for commands, ${count(completionDoorbells)} for completions`,
    ],
    ["interrupts", nvme.interrupts, ""],
  ];
  const width = Math.max(...lines.map(([, value]) => count(value).length));
  return lines
    .map(([name, value, note]) => `${name.padEnd(15)}  ${count(value).padStart(width)}  ${note}`.trimEnd())
    .join("\n");
}

/** The driver's way beside those of {@link NvmeReplay.strategies}. */
function mapping({ cost, strategies }: NvmeReplay, mode: "strict" | "lazy"): string {
  const columns: readonly NvmeCost[] = [cost, ...strategies];
  const row = (name: string, value: (cost: NvmeCost) => string): string[] => [name, ...columns.map(value)];
  return textTable(
    ["mapping", "NVMe driver", ...strategies.map(({ name }) => name)],
    [
      row("IOVA operations", ({ iovaOps }) => count(iovaOps)),
      row("entry writes", ({ pteWrites }) => count(pteWrites)),
      row("map syncs", ({ mapSyncs }) => count(mapSyncs)),
      row("invalidations", ({ invalidations }) => count(invalidations)),
      ...(mode === "lazy" ? [row("queued", ({ flushQueueEntries }) => count(flushQueueEntries))] : []),
      row("metadata", ({ metadataBytes }) => bytes(metadataBytes)),
      row("predicted", ({ predictedNs }) => duration(predictedNs)),
    ],
  );
}

function splits({ split, commands: sent, requests, maxBytes }: NvmeReplay): string {
  return split === 0
    ? `One command a request: none is longer than the ${bytes(maxBytes)} that the block layer allows here.`
    : `${plural(split, "request")} longer than ${bytes(maxBytes)}, or of too many pieces, split by the block layer: ` +
        `${count(sent)} commands for ${plural(requests, "request")}. The strategies beside map each request whole.`;
}

const ways = ({ bothWays }: NvmeReplay): string =>
  bothWays === 0
    ? ""
    : `Which way they went is not recorded of ${plural(bothWays, "request")}: written here, and read in a second run, ` +
      "which is checked and not counted.";

/** Why the driver has more of some counts than two-step has. */
function lists({ cost, strategies, split }: NvmeReplay): string {
  const twoStep = strategies.find(({ name }) => name === "two-step")!;
  const more = cost.mapSyncs - twoStep.mapSyncs;
  return split === 0 && more > 0
    ? `${plural(more, "map sync")} more than two-step's: memory for lists, which stays mapped.`
    : "";
}

function leftOutText({ leftOut }: NvmeReplay): string {
  const { coherent, notBlocks, misaligned, notMemory } = leftOut;
  const total = coherent + notBlocks + misaligned + notMemory;
  if (total === 0) return "";
  const reasons = [
    [coherent, "of coherent memory, which no command moves"],
    [notBlocks, "not whole blocks of 512 bytes"],
    [misaligned, "with memory that does not begin and end at multiples of 4"],
    [notMemory, "no memory of a machine, or more than 256 MiB at once"],
  ] as const;
  const said = reasons.filter(([requests]) => requests > 0).map(([requests, reason]) => `${count(requests)} ${reason}`);
  return `Left out, because no NVMe command can be them: ${said.join("; ")}.`;
}
