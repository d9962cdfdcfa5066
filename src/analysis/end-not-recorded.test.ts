/** A mapping whose pages the IOMMU took back, while the call that asked for it is not in the recording. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { openTrace, type Trace } from "../trace/index.ts";
import { checkTrace, readStats } from "./index.ts";

const traces = join(import.meta.dirname, "../../test/golden/traces");
const lines = (name: string): string[] =>
  gunzipSync(readFileSync(join(traces, name)))
    .toString()
    .split("\n");

function traceOf(text: string[]): Promise<Trace> {
  const bytes = new TextEncoder().encode(text.join("\n"));
  return openTrace({ name: "text", size: bytes.length, read: async (at, length) => bytes.subarray(at, at + length) });
}

/** What both say of it; and how many lifetimes have no end. */
async function said(text: string[]): Promise<object> {
  let endless = 0;
  const checked = await checkTrace(await traceOf(text), {
    sinks: [
      {
        lifetime(table, row) {
          if (table.endNs[row]! < 0) endless++;
        },
      },
    ],
  });
  const stats = await readStats(await traceOf(text));
  const live = stats.devices.reduce((sum, device) => sum + device.liveAtEnd, 0);
  return {
    live: [checked.liveAtEnd, endless, live],
    endNotRecorded: [checked.endNotRecorded, stats.endNotRecorded],
    leaks: checked.summary.leak ?? 0,
  };
}

describe("without the line of the call, and with its iommu:unmap", () => {
  test.each([
    ["strict-mix7030.report.txt.gz", "dma_unmap_phys"],
    ["strict-net.report.txt.gz", "dma_unmap_phys"],
    ["lazy-net.report.txt.gz", "dma_unmap_phys"],
    ["strict-reload-e1000e.report.txt.gz", "dma_free"],
  ])("a mapping of %s is not live, and no leak: check, its lifetimes and stats say the same", async (name, call) => {
    const text = lines(name);
    const whole = (await said(text)) as { live: number[]; leaks: number };
    const places = text.flatMap((line, at) => (line.includes(` ${call}:`) && !line.includes("size=0 ") ? [at] : []));
    const cut = text.toSpliced(places[places.length >> 1]!, 1);
    expect(await said(cut)).toEqual({ live: whole.live, endNotRecorded: [1, 1], leaks: whole.leaks });
  });
});

test("recordings that hold both halves of every end have none of these", async () => {
  for (const name of ["strict-net.report.txt.gz", "strict-unaligned.report.txt.gz", "strict-reload-nvme.report.txt.gz"])
    expect(await said(lines(name))).toMatchObject({ endNotRecorded: [0, 0] });
});
