/**
 * A recording as one page to look at and to send around: what was mapped, where, for how long, and what is wrong.
 *
 * Idea: everything is in the file: pictures are drawn here (device-figure.ts), and there is no script and no network. Numbers that
 * a picture shows stand beside it in words, so that the page can be read without seeing it. Promises: text from the trace is
 * escaped; the page forbids itself to load anything.
 */
import type { Finding } from "../../analysis/index.ts";
import { bytes, count, duration, hex, plural } from "../../base/index.ts";
import type { Trace } from "../../trace/index.ts";
import { headline, isEmpty } from "../check/check-text.ts";
import { secondsOf } from "../check/clock.ts";
import { KINDS, type Mappings, type Recording } from "../recording.ts";
import { escaped } from "../text/escape.ts";
import { lostWords, NOTHING_RECORDED, selectionWords } from "../wording.ts";
import { deviceFigure } from "./device-figure.ts";
import type { Deflate } from "./png.ts";

/** Devices that get a picture: those with the most mappings. */
const MOST_FIGURES = 6;
/** Findings of one rule that are told one by one. */
const MOST_PER_RULE = 20;

/** The page about the trace at `path`. `deflate` packs its pictures; without it they are a few times larger. */
export function reportPage(path: string, recording: Recording, deflate?: Deflate): string {
  const { trace, result, mappings, firstNs, lastNs } = recording;
  const devices = devicesOf(mappings);
  // An end without a beginning, or a fault, names a device that has no mapping here.
  const names = new Set(
    [devices.map(({ name }) => name), result.devices, result.findings.map(({ device }) => device)]
      .flat()
      .filter((name) => name !== undefined),
  );
  const tiles = [
    ["recorded", duration(lastNs - firstNs), `${plural(result.eventTotal, "event")}, ${lostWords(result.lost)}`],
    ["mappings", count(mappings.count), `${count(liveAtEnd(mappings))} live at the end`],
    ["devices", count(names.size), named([...names])],
    ["findings", count(Object.values(result.summary).reduce((sum, n) => sum + n, 0)), headline(result.severities)],
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>DMA mappings: ${escaped(path)}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${escaped(path)}</h1>
<p>${escaped([trace.system, trace.format, trace.clock && `clock ${trace.clock}`].filter(Boolean).join(" · "))}</p>
</header>
${damageBanner(trace)}${selectionLine(recording)}<ul class="tiles">
${tiles.map(([label, value, detail]) => `<li><span>${label}</span><b>${escaped(value!)}</b><small>${escaped(detail!)}</small></li>`).join("\n")}
</ul>
<h2>Findings</h2>
${findingsSection(recording)}
<h2>Address space over time</h2>
<p>Each row is a piece of the device's address space, the highest address on top; the darker, the more of it was mapped. Unused space
is left out: where the addresses jump, a line is drawn. Above, the bytes that were mapped at once.</p>
${devices
  .slice(0, MOST_FIGURES)
  .map(({ name, rows }) => deviceFigure(nameOf(name), recording, rows, deflate))
  .join("\n")}
${devices.length > MOST_FIGURES ? `<p>${plural(devices.length - MOST_FIGURES, "more device")} in the table only.</p>` : ""}
<h2>Devices</h2>
${deviceTable(mappings, devices)}
<footer>Made by dmalink export --html. Sizes are powers of two: 1 KiB is 1024 bytes.</footer>
</body>
</html>
`;
}

/** What was read of a damaged file may look clean. */
const damageBanner = ({ damage }: Trace): string =>
  damage
    ? `<p class="damage" role="alert"><b>The trace is damaged:</b> ${escaped(damage.message)}. This page shows what was read before that; what came after is missing.</p>\n`
    : "";

const selectionLine = ({ selection }: Recording): string => {
  const words = selectionWords(selection);
  return words === "" ? "" : `<p>${escaped(words)}</p>\n`;
};

const liveAtEnd = ({ count: n, endNs }: Mappings): number => endNs.subarray(0, n).filter((end) => end < 0).length;

interface Device {
  readonly name: string | undefined;
  readonly rows: Uint32Array;
}

/** Devices with their mappings, the busiest first; what no event names comes last. */
function devicesOf(mappings: Mappings): Device[] {
  const counts = new Map<number, number>();
  const { device } = mappings;
  for (let row = 0; row < mappings.count; row++) counts.set(device[row]!, (counts.get(device[row]!) ?? 0) + 1);
  return [...counts]
    .map(([index, count]) => {
      const rows = new Uint32Array(count);
      for (let row = 0, next = 0; next < count; row++) if (device[row] === index) rows[next++] = row;
      return { name: mappings.devices[index], rows };
    })
    .sort((a, b) => Number(a.name === undefined) - Number(b.name === undefined) || b.rows.length - a.rows.length);
}

const nameOf = (name: string | undefined): string => name ?? "no event names the device";
const named = (names: readonly string[]): string =>
  names.length === 0 ? "no event names one" : names.slice(0, 3).join(", ") + (names.length > 3 ? ", …" : "");

function findingsSection({ trace, result, firstNs }: Recording): string {
  if (isEmpty(result)) return `<p>${escaped(NOTHING_RECORDED)}</p>`;
  if (result.findings.length === 0) return `<p class="good">Nothing was found to be wrong.</p>`;
  const rules = new Map<string, Finding[]>();
  for (const finding of result.findings) rules.set(finding.rule, [...(rules.get(finding.rule) ?? []), finding]);
  return [...rules]
    .map(([rule, findings]) => {
      const [first] = findings;
      const total = result.summary[rule] ?? findings.length;
      const items = findings.slice(0, MOST_PER_RULE).map((finding) => findingItem(finding, firstNs, trace.timeBase));
      const more = total - items.length;
      return `<details class="${first!.severity}"${first!.severity === "error" ? " open" : ""}>
<summary><span class="severity">${first!.severity}</span> <b>${escaped(rule)}</b> ${plural(total, "time")}: ${escaped(first!.message)}</summary>
<p><b>What to do:</b> ${escaped(first!.advice)}</p>
<ol>${items.join("\n")}</ol>
${more > 0 ? `<p>and ${count(more)} more: dmalink check TRACE --rule ${escaped(rule)}</p>` : ""}
</details>`;
    })
    .join("\n");
}

function findingItem(finding: Finding, firstNs: number, timeBase: bigint): string {
  const after = (ns: number): string =>
    ns < firstNs
      ? "before the recording"
      : `at ${secondsOf(ns, timeBase).toFixed(6)} s, after ${duration(ns - firstNs)}`;
  const evidence = finding.evidence.map(
    ({ what, event, timeNs, cpu, task, pid, iova, site }) =>
      `<li>${escaped(what)} ${after(timeNs)}: <code>${escaped(event)}</code> by ${escaped(task)}-${pid} on CPU ${cpu}` +
      `${iova === undefined ? "" : `, <code>${hex(iova)}</code>`}${site === undefined ? "" : `, from <code>${escaped(site)}</code>`}</li>`,
  );
  const where = [finding.device, after(finding.timeNs), finding.confidence].filter((part) => part !== undefined);
  return `<li>${escaped(finding.message)} <small>(${escaped(where.join(", "))})</small>${evidence.length > 0 ? `<ul>${evidence.join("")}</ul>` : ""}</li>`;
}

function deviceTable(mappings: Mappings, devices: readonly Device[]): string {
  const header = [
    "device",
    "mappings",
    "live at end",
    "bytes mapped in all",
    "largest",
    "lifetime, median",
    "99 %",
    "how",
  ];
  const rows = devices.map(({ name, rows: chosen }) => {
    const seen = new Float64Array(chosen.length);
    let lives = 0;
    const kinds = new Map<string, number>();
    let [live, total, largest] = [0, 0, 0];
    for (const row of chosen) {
      const [start, end, length] = [mappings.startNs[row]!, mappings.endNs[row]!, mappings.length[row]!];
      if (end < 0) live++;
      else if (start >= 0 && end >= start) seen[lives++] = end - start;
      total += length;
      largest = Math.max(largest, length);
      const kind = KINDS[mappings.kind[row]!]!;
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    }
    const lifetimes = seen.subarray(0, lives).sort();
    const quantile = (share: number): string =>
      lifetimes.length === 0
        ? "-"
        : duration(lifetimes[Math.min(lifetimes.length - 1, Math.floor(lifetimes.length * share))]!);
    return [
      nameOf(name),
      count(chosen.length),
      count(live),
      bytes(total),
      bytes(largest),
      quantile(0.5),
      quantile(0.99),
      [...kinds].map(([kind, n]) => `${kind} ${count(n)}`).join(", "),
    ];
  });
  const line = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("")}</tr>`;
  return `<div class="scroll"><table><thead>${line(header, "th")}</thead><tbody>${rows.map((row) => line(row, "td")).join("\n")}</tbody></table></div>`;
}

const STYLE = `
:root{color-scheme:light dark;--ink:#16191d;--soft:#5b6470;--line:#d9dde3;--back:#fff;--card:#f5f7f9;--mark:#2a6fdb;--error:#b3261e;--warning:#8a5a00;--advice:#3a6b35}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa4b1;--line:#363c45;--back:#14171b;--card:#1c2026;--mark:#6ea8ff;--error:#ff8a80;--warning:#ffc15e;--advice:#9fd39a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:1060px;margin:0 auto;padding:24px}
h1{font-size:22px;margin:0;overflow-wrap:anywhere}h2{font-size:17px;margin:32px 0 8px}
header p,footer,small,figcaption{color:var(--soft)}header p{margin:2px 0 0}small{font-size:13px}
.damage{border:2px solid var(--error);border-radius:8px;padding:10px 14px;margin:16px 0;overflow-wrap:anywhere}.damage b{color:var(--error)}
.tiles{list-style:none;display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;padding:0;margin:20px 0}
.tiles li{background:var(--card);border-radius:8px;padding:12px 14px}.tiles span,.tiles small{display:block;color:var(--soft)}.tiles b{font-size:24px;font-weight:600}
details{border:1px solid var(--line);border-left:4px solid var(--soft);border-radius:6px;margin:8px 0;padding:8px 12px}
details.error{border-left-color:var(--error)}details.warning{border-left-color:var(--warning)}details.advice{border-left-color:var(--advice)}
.severity{font-size:12px;text-transform:uppercase;letter-spacing:.04em}.error .severity{color:var(--error)}.warning .severity{color:var(--warning)}.advice .severity{color:var(--advice)}
summary{cursor:pointer}code{font:13px ui-monospace,monospace}figure{margin:20px 0}svg{width:100%;height:auto;display:block}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .mono{font-family:ui-monospace,monospace}
.grid{stroke:var(--line);stroke-width:1}.curve{fill:none;stroke:var(--mark);stroke-width:1.5}.area{fill:var(--mark);opacity:.15}.jump{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}.finding{fill:var(--error)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:5px 12px 5px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:500}th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}footer{margin-top:40px;font-size:13px}
`;
