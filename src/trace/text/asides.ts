/**
 * Lines of a text that are no events: what the tools say around them, and marks of lost events.
 *
 * Idea: each is known by its words. What is none of these is an unknown line, which is counted and shown; nothing is passed
 * over because it merely looks harmless.
 * Specified by: the headers of tracefs, `trace-cmd report` (also `--stat`), `perf script` (also `--header`), and what
 * libtraceevent, trace-cmd and perf print to stderr, which ends up in the file with `2>&1` or in a terminal's log.
 */

/** Comments, headers, empty lines, rules between tasks of a function graph. */
const HEADERS = [
  /^#/,
  /^\s*$/,
  /^(?:\s*\S+:\s+)?cpus=\d/,
  /^version = /,
  /^(?:\s*\S+:\s+)?CPU \d+ is empty/,
  /^\s*-{8,}\s*$/,
  /^\s*(?:\d+\)\s*)?(?:=+>|<=+) \|/,
  /^Kernel buffer statistics:/,
  /^ {2}Note: "entries" are the entries left/,
  /^ {8}recorded in the trace data\. They should/,
  /^CPU: \d+$/,
  /^(?:entries|bytes|oldest event ts|now ts|read events): +[\d.]+$/,
  /^\*+$|^\*\* /,
];

/** What the tools complain of. */
const COMPLAINTS = [
  /^libtraceevent: /,
  /^ {2}(?:Error|Warning): /,
  /^ {2}\[[\w:.-]+\] /,
  /^ {2}(?:function|could not|failed|unknown|bad|no ) /,
  /^(?:Warning|WARNING|Error|Fatal)\s*:/,
  /^Check IO\/CPU overload/,
  /^'\S+' not valid for /,
  /^\[ ?perf record: /,
  /^(?:trace-cmd|perf|libbfd|addr2line|BFD)(?:: |\[\d)/,
  /^(?:Failed|failed|Could not|could not|Can't|Cannot|No kallsyms|Couldn't|overriding event|Samples for|Attribute|Kernel address maps|Registered|Skipping|Ignoring) /,
  /^(?:As no suitable kallsyms|Kernel samples will not be|Samples in kernel modules|The most common cause|Using |check \/proc\/sys)/,
];

/** Marks of lost events: tracefs `CPU:0 [LOST 113 EVENTS]`, trace-cmd `CPU:0 [30 EVENTS DROPPED]`. */
const LOST = /^(?:\s*\S+:\s+)?\s*CPU:?\s*(\d+) \[(?:LOST )?(?:(\d+) )?EVENTS(?: DROPPED)?\]/;
/** `Processed 176 events and lost 5 chunks!` of perf: chunks of events, of any number each. */
const LOST_CHUNKS = /^Processed \d+ events and lost (\d+) chunks/;
/** Of `trace-cmd report --stat`. */
const STATISTICS = /^(?:overrun|commit overrun|dropped events): (\d+)/;
const ENTRIES = /^#\s*entries-in-buffer\/entries-written:\s*(\d+)\/(\d+)\s+#P:(\d+)/;
/** Of the latency format: `# latency: 0 us, #504/1008, CPU#1 | (M:desktop … #P:2)`. */
const LATENCY_ENTRIES = /^#\s*latency: .*#(\d+)\/(\d+), CPU#\d+ \|.*#P:(\d+)/;

/** What a line says that is no event. */
type Aside =
  /** Nothing that matters to the events. */
  | { readonly kind: "aside" }
  /** Events of one CPU were lost here; -1: an unknown number. */
  | { readonly kind: "lost"; readonly cpu: number; readonly count: number }
  /** Chunks of events were lost, somewhere. */
  | { readonly kind: "chunks"; readonly chunks: number }
  /** Events were lost, somewhere. */
  | { readonly kind: "statistics"; readonly lost: number; readonly cpus: number | undefined }
  | { readonly kind: "unknown" };

const ASIDE: Aside = { kind: "aside" };
const UNKNOWN: Aside = { kind: "unknown" };
const MOST_LOST = 0x7fff_ffff;
/** The kernel is built for no more. */
const MOST_CPUS = 65536;

/** What `line` is, of which the beginning is enough. */
export function asideOf(line: string): Aside {
  const lost = LOST.exec(line);
  if (lost) {
    const cpu = Math.min(Number(lost[1]), MOST_CPUS - 1);
    return { kind: "lost", cpu, count: lost[2] === undefined ? -1 : Math.min(Number(lost[2]), MOST_LOST) };
  }
  if (line.startsWith("#")) {
    const entries = ENTRIES.exec(line) ?? LATENCY_ENTRIES.exec(line);
    if (!entries) return ASIDE;
    const missing = Math.min(MOST_LOST, Math.max(0, Number(entries[2]) - Number(entries[1])));
    return { kind: "statistics", lost: missing, cpus: Number(entries[3]) };
  }
  const chunks = LOST_CHUNKS.exec(line);
  if (chunks) return { kind: "chunks", chunks: Math.min(Number(chunks[1]), MOST_LOST) };
  const statistics = STATISTICS.exec(line);
  if (statistics) return { kind: "statistics", lost: Math.min(Number(statistics[1]), MOST_LOST), cpus: undefined };
  if (HEADERS.some((form) => form.test(line)) || COMPLAINTS.some((form) => form.test(line))) return ASIDE;
  return UNKNOWN;
}

/** `cpus=2` of trace-cmd report; undefined where that is no number of CPUs. */
export function cpusOf(line: string): number | undefined {
  const cpus = Number(/^(?:\s*\S+:\s+)?cpus=(\d{1,5})\s*$/.exec(line)?.[1]);
  return cpus > 0 && cpus <= MOST_CPUS ? cpus : undefined;
}
