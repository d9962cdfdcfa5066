/** Text tables that line up: the first column to the left, the others to the right. */

/** `rows` under `header`, two spaces between columns. */
export function textTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? "").length)));
  return lines
    .map((line) =>
      widths
        .map((width, column) =>
          column === 0 ? (line[column] ?? "").padEnd(width) : (line[column] ?? "").padStart(width),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** 1234567 as "1,234,567". */
export const count = (value: number): string => value.toLocaleString("en-US");

/** Bytes in the largest unit that leaves at least one: "4 KiB", "1.5 MiB". */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let scaled = value;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${Number.isInteger(scaled) ? scaled : scaled.toFixed(scaled < 10 ? 2 : 1)} ${units[unit]}`;
}

/** Nanoseconds for people: "850 ns", "12.3 µs", "4.56 ms", "1.20 s". */
export function duration(ns: number): string {
  if (ns < 1_000) return `${Math.round(ns)} ns`;
  if (ns < 1_000_000) return `${(ns / 1_000).toPrecision(3)} µs`;
  if (ns < 1_000_000_000) return `${(ns / 1_000_000).toPrecision(3)} ms`;
  return `${(ns / 1_000_000_000).toFixed(2)} s`;
}

/** "1 request", "2 requests". */
export const plural = (value: number, word: string): string => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** `text` in lines of at most `width` characters, broken between words. */
export function wrap(text: string, width: number): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.join("\n");
}

/** Of mappings whose pages went, and nobody said why: neither live nor a leak, and check and stats say it alike. */
export const endNotRecordedNote = (mappings: number): string =>
  `${plural(mappings, "mapping")} ended by an iommu:unmap alone: the device cannot reach the memory any more, so not live, but the ` +
  "dma_unmap or dma_free that goes with it is not in the recording (lost, filtered out, or after its end).";
