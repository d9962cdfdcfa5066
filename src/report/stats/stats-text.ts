/** What a trace holds, for people: its events, and for each device how much was mapped, how, and for how long. */
import type { DeviceStats, Selection, TraceStats } from "../../analysis/index.ts";
import { bytes, count, duration, plural } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";
import { PLAIN, type Style } from "../text/style.ts";
import { textTable } from "../text/text-table.ts";
import { endNotRecordedNote, lostWords, selectionWords } from "../wording.ts";
import { userMappingsText } from "./user-mappings-text.ts";

/** The whole answer for one file. */
export function statsText(
  file: string,
  trace: Pick<Trace, "format" | "damage">,
  result: TraceStats,
  style: Style = PLAIN,
  selection?: Selection,
): string {
  const lines = [
    `${file}: ${trace.format}, ${count(result.eventTotal)} events over ${duration(result.durationNs)}, ` +
      (trace.damage ? "the rest is lost" : lostWords(result.lost)),
    ...[selectionWords(selection)].filter((words) => words !== ""),
    "",
    textTable(
      ["event", "count"],
      Object.entries(result.events).map(([name, n]) => [name, count(n)]),
    ),
  ];
  for (const device of result.devices) lines.push("", ...deviceText(device, style));
  if (result.userMappings) lines.push("", ...userMappingsText(result.userMappings, style));
  lines.push("");
  if (result.wentBack > 0)
    lines.push(
      `Times go back in this file, at ${count(result.wentBack)} events: several recordings, or another order of lines.`,
    );
  if (result.ambiguous > 0)
    lines.push(
      `${plural(result.ambiguous, "mapping")} ${result.ambiguous === 1 ? "is" : "are"} ambiguous: no event beside ${result.ambiguous === 1 ? "it names its" : "them names their"} device.`,
    );
  if (result.endNotRecorded > 0) lines.push(endNotRecordedNote(result.endNotRecorded));
  if (result.unknownStart > 0)
    lines.push(
      `${plural(result.unknownStart, "teardown")} of what was mapped before the recording began${trace.damage ? ", or in the part that is lost" : ""}.`,
    );
  if (result.devices.some((device) => device.liveAtEnd > 0) && !("unmap" in result.events || "map" in result.events))
    lines.push("No iommu:* events: a direct mapping needs no unmap, so what is live at the end is no leak.");
  return `${lines.join("\n").trimEnd()}\n`;
}

function deviceText(device: DeviceStats, { paint }: Style): string[] {
  const { lifetimeNs: life, pageSizes } = device;
  return [
    paint("strong", `device ${device.name}`),
    `  mappings     ${count(device.maps)} mapped, ${count(device.unmaps)} unmapped, ` +
      `${count(device.liveAtEnd)} live at end (${bytes(device.liveBytesAtEnd)})`,
    `  how          ${Object.entries(device.kinds)
      .map(([kind, n]) => `${kind} ${count(n)}`)
      .join(", ")}`,
    `  memory       ${bytes(device.bytesMapped)} in ${count(device.segments)} segments${device.peakBytes > 0 ? `, at most ${bytes(device.peakBytes)} of address space at once` : ""}`,
    ...(device.deviceMemory
      ? [
          `  P2P          ${plural(device.deviceMemory.mappings, "mapping")} of device memory (${bytes(device.deviceMemory.bytes)}), not RAM`,
        ]
      : []),
    ...bounceText(device),
    ...failuresText(device),
    `  largest page 4 KiB fits ${count(pageSizes["4K"])} segments, 2 MiB ${count(pageSizes["2M"])}, 1 GiB ${count(pageSizes["1G"])}`,
    `  lifetime     ${
      life
        ? `median ${duration(life.p50)}, 90% ${duration(life.p90)}, 99% ${duration(life.p99)}, longest ${duration(life.max)}`
        : "no mapping was seen from beginning to end"
    }`,
    ...(device.largestGap === undefined
      ? []
      : [`  largest gap  ${bytes(device.largestGap)} between neighbours in its address space`]),
    "",
    ...sizeTable(device),
  ];
}

/** What it had in the pool of bounce buffers. */
function bounceText({ bounce }: DeviceStats): string[] {
  if (!bounce) return [];
  const { mappings, peakSlots, slotsAtEnd, largestPiece, failed } = bounce;
  const held = (slots: number): string => `${count(slots)} slots (${bytes(slots * SLOT_BYTES)})`;
  const end = slotsAtEnd > 0 ? `, ${held(slotsAtEnd)} at the end` : "";
  return [
    `  bounced      ${count(mappings)} mappings, at most ${held(peakSlots)} of the pool at once${end}; largest piece ${bytes(largestPiece)}` +
      (failed > 0 ? `; ${count(failed)} found no room` : ""),
  ];
}

/** A slot of the pool of bounce buffers. */
const SLOT_BYTES = 2048;

function failuresText({ failures }: DeviceStats): string[] {
  const list = Object.entries(failures).map(([what, n]) => `${what} ${count(n)}`);
  return list.length === 0 ? [] : [`  failed       ${list.join(", ")}`];
}

/** Sizes of requests and segments, a row a power of two, with a bar for the requests. */
function sizeTable({ requestSizes, segmentSizes }: DeviceStats): string[] {
  const sizes = [...new Set([...Object.keys(requestSizes), ...Object.keys(segmentSizes)])].sort((a, b) => +a - +b);
  const most = Math.max(...Object.values(requestSizes), 1);
  const rows = sizes.map((size) => [bytes(+size), count(requestSizes[size] ?? 0), count(segmentSizes[size] ?? 0)]);
  const lines = textTable(
    ["  from", "requests", "segments"],
    rows.map(([size, ...rest]) => [`  ${size}`, ...rest]),
  );
  return lines.split("\n").map((line, i) => {
    const requests = i === 0 ? 0 : (requestSizes[sizes[i - 1]!] ?? 0);
    return requests === 0 ? line : `${line}  ${"#".repeat(Math.max(1, Math.round((requests / most) * 40)))}`;
  });
}
