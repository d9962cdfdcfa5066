/** What `compare --as nvme` says: lines that fit, numbers that are those of the replay, and why requests were left out. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { Requests, readRequests } from "../../analysis/index.ts";
import { type NvmeReplay, replayAsNvme } from "../../replay/index.ts";
import { openTrace } from "../../trace/index.ts";
import { nvmeText } from "./compare-nvme-text.ts";

const traces = join(import.meta.dirname, "../../../test/golden/traces");

async function requestsOf(name: string): Promise<Requests> {
  const bytes = gunzipSync(readFileSync(join(traces, name)));
  return readRequests(await openTrace({ name, size: bytes.length, read: async (at, n) => bytes.subarray(at, at + n) }));
}

const words = (said: string): string => said.replace(/\s+/g, " ");
const fits = (said: string): void => {
  for (const line of said.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
};

/** A result as if a load had been a thousand times larger. */
const grown = (nvme: NvmeReplay): NvmeReplay =>
  JSON.parse(JSON.stringify(nvme), (_, value) => (typeof value === "number" ? value * 1234 : value));

describe("the text of a load as NVMe commands", () => {
  test.each(["strict-mix7030.dat.gz", "strict-net.dat.gz", "none-net.dat.gz"])(
    "of %s fits 80 columns, in both modes, and if it were a thousand times larger",
    async (name) => {
      const requests = await requestsOf(name);
      for (const mode of ["strict", "lazy"] as const) {
        const result = await replayAsNvme(requests, { mode });
        fits(nvmeText(result, mode));
        fits(nvmeText(grown(result), mode));
      }
    },
  );

  test("says what was sent, what it cost beside the strategies, and what it leaves out", async () => {
    const said = nvmeText(await replayAsNvme(await requestsOf("strict-mix7030.dat.gz")), "strict");
    expect(words(said)).toContain("900 requests, 56.5 MiB, at most 8 at once; 113.1 MiB moved and checked: every byte");
    expect(said).toMatch(/^commands +900 {2}24 reads, 876 writes$/m);
    expect(said).toMatch(/^at once +8 {2}the most, on 1 queue$/m);
    expect(said).toMatch(/^mapping +NVMe driver +one-shot +scatterlist +two-step$/m);
    expect(said).toMatch(/^invalidations +900 +11,693 +900 +900$/m);
    expect(words(said)).toContain("One command a request: none is longer than the 128 KiB");
    expect(words(said)).toContain("not recorded of 870 requests");
    expect(words(said)).toContain("Left out, because no NVMe command can be them: 1 of coherent memory");
  });

  test("says why packets are not sent", async () => {
    const said = words(nvmeText(await replayAsNvme(await requestsOf("strict-net.dat.gz")), "strict"));
    expect(said).toContain("2 of coherent memory, which no command moves; 3,527 not whole blocks of 512 bytes.");
  });

  test("says how many requests were split", async () => {
    const said = words(nvmeText(await replayAsNvme(await requestsOf("iommufd-vfio.dat.gz")), "strict"));
    expect(said).toContain("206 requests longer than 128 KiB, or of too many pieces, split by the block layer: 4,731");
  });

  test("says that there is nothing to send", async () => {
    const segments = [{ iova: 0x5000, phys: 0x5000, length: 4096 }];
    const coherent = Requests.of([{ kind: "coherent", segments, startNs: 0, endNs: undefined }]);
    const said = words(nvmeText(await replayAsNvme(coherent), "strict"));
    expect(said).toBe(
      "As NVMe commands: no request of this recording can be one. " +
        "Left out, because no NVMe command can be them: 1 of coherent memory, which no command moves.",
    );
  });

  test("shouts what is wrong", async () => {
    const segments = [{ iova: 0x1_0000, phys: 0x5000, length: 4096 }];
    const result = await replayAsNvme(Requests.of([{ segments, startNs: 1, endNs: 2 }]));
    const said = words(nvmeText({ ...result, mismatches: 7, failed: 2, leaks: ["entries: 1"] }, "strict"));
    expect(said).toContain("checked: 7 WRONG, 2 requests FAILED, NOT GIVEN BACK: entries: 1");
  });
});
