/** What `compare` says: lines that fit, numbers that agree with the counts, and advice that follows from them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { Requests, readRequests } from "../../analysis/index.ts";
import { type CompareOptions, compare, STRATEGY_NAMES } from "../../replay/index.ts";
import { openTrace } from "../../trace/index.ts";
import { type CompareReport, kernelCheck, WHAT_IF, type WhatIf } from "./compare-report.ts";
import { compareText } from "./compare-text.ts";

const traces = join(import.meta.dirname, "../../../test/golden/traces");

async function requestsOf(name: string): Promise<Requests> {
  const bytes = gunzipSync(readFileSync(join(traces, name)));
  return readRequests(await openTrace({ name, size: bytes.length, read: async (at, n) => bytes.subarray(at, at + n) }));
}

function text(requests: Requests, options: CompareOptions = {}, whatIf?: WhatIf): string {
  const changed = whatIf && compare(requests, { ...options, ...WHAT_IF[whatIf].change });
  const report: CompareReport = {
    path: "trace.dat",
    result: compare(requests, options),
    requests,
    kernel: undefined,
    options: { ...options, ...(whatIf && { whatIf }) },
    damage: undefined,
    changed,
    nvme: undefined,
  };
  return compareText(report);
}

/** Requests of these segments, each given back before the next. */
function made(list: readonly (readonly (readonly [phys: number, pages: number])[])[]): Requests {
  return Requests.of(
    list.map((segments, i) => ({
      segments: segments.map(([phys, pages], k) => ({
        iova: 0x1000_0000 + k * 0x10_0000,
        phys,
        length: pages * 4096,
      })),
      startNs: i * 1000,
      endNs: i * 1000 + 500,
    })),
  );
}

const words = (said: string): string => said.replace(/\s+/g, " ");

describe("what was recorded comes first", () => {
  test("a recording without translation gets no advice where it hides its requests, and says whose costs these are", async () => {
    const said = words(text(await requestsOf("pt-mix7030.dat.gz")));
    expect(said).toContain(
      "Recorded without translation (addresses are the memory's): the costs below are of an IOMMU that",
    );
    expect(said).toContain("No advice: this recording shows each segment by itself");
    expect(said).not.toMatch(/Take one-shot|Take two-step/);
  });

  test("its mode, by what shows it, and what the driver does already", async () => {
    expect(words(text(await requestsOf("more/lazy-ahci.dat.gz"), { mode: "lazy" }))).toContain(
      "Recorded in lazy mode (32 invalidations for 400 unmaps). Most was mapped as scatterlists.",
    );
    const twoStep = words(text(await requestsOf("strict-sw1m-probes.dat.gz")));
    expect(twoStep).toContain(
      "Recorded in strict mode (by when addresses are used again). Most was mapped in two steps already.",
    );
    expect(twoStep).toContain("The driver does the best already, two-step");
  });

  test("the kernel's invalidations are held against a replay in the recorded mode alone", async () => {
    const requests = await requestsOf("more/lazy-ahci.dat.gz");
    expect(kernelCheck(requests, compare(requests, { mode: "strict" }), {})).toBeUndefined();
    const lazy = kernelCheck(requests, compare(requests, { mode: "lazy" }), { mode: "lazy" })!;
    expect(lazy.recorded).toBe(32);
    const strict = await requestsOf("strict-sr128k-flush.dat.gz");
    expect(kernelCheck(strict, compare(strict), {})).toMatchObject({ recorded: 300, invalidations: 300, equal: true });
  });
});

describe("the text of a comparison", () => {
  test.each(["strict-reload-nvme.dat.gz", "strict-reload-e1000e.dat.gz", "none-net.dat.gz"])(
    "of %s fits 80 columns, in every mode and question",
    async (name) => {
      const requests = await requestsOf(name);
      for (const [options, whatIf] of [
        [{}, "huge-pages"],
        [{ mode: "lazy", requestCap: 16_384 }, "iova-cache"],
        [{ cachingMode: true, mode: "lazy" }, "lazy"],
      ] as const)
        for (const line of text(requests, options, whatIf).split("\n"))
          expect(line.length, line).toBeLessThanOrEqual(80);
    },
  );

  test("has a row of counts and a sentence for each strategy", () => {
    const said = text(
      made([
        [
          [0x100000, 1],
          [0x300000, 1],
        ],
      ]),
    );
    for (const name of STRATEGY_NAMES)
      expect(said.split("\n").filter((line) => line.startsWith(`${name} `))).toHaveLength(3);
  });

  test("single segments: nothing is gained by mapping them together, and one-shot is what to take", () => {
    const said = words(text(made(Array.from({ length: 20 }, (_, i) => [[0x100000 + i * 0x3000, 1]] as const))));
    expect(said).toContain("Nearly every request is one segment");
    expect(said).toContain("Take one-shot");
    expect(said).toContain("Most pages are used once");
  });

  test("neighbours in memory: joining them is what to take, for it is the least change", () => {
    const said = words(
      text(
        made(
          Array.from(
            { length: 20 },
            (_, i) =>
              [
                [0x100000 + i * 0x10000, 1],
                [0x101000 + i * 0x10000, 1],
              ] as const,
          ),
        ),
      ),
    );
    expect(said).toMatch(/Joining neighbours in memory first.* saves 50% of one-shot's/);
    expect(said).toContain("Take coalesced");
  });

  test("scattered segments: two-step, with the ratio that was counted", () => {
    const scattered = made(
      Array.from({ length: 10 }, (_, i) =>
        Array.from({ length: 8 }, (_, k) => [0x100000 + i * 0x100000 + k * 0x3000, 1] as const),
      ),
    );
    const said = words(text(scattered));
    expect(said).toContain("One-shot does 8.0 times as many IOVA operations and 8.0 times as many invalidations");
    expect(said).toContain("Take two-step");
  });

  test("the same pages again: how often, and what stays reachable", () => {
    const again = made(
      Array.from(
        { length: 30 },
        () =>
          [
            [0x100000, 1],
            [0x300000, 1],
          ] as const,
      ),
    );
    expect(words(text(again))).toContain("Each page is used 30.0 times");
    expect(words(text(again))).toContain("reach 8 KiB all the time");
  });

  test("what if: both tables, and the difference in words", () => {
    const scattered = made(
      Array.from(
        { length: 10 },
        (_, i) =>
          [
            [0x100000 + i * 0x100000, 1],
            [0x180000 + i * 0x100000, 1],
          ] as const,
      ),
    );
    expect(words(text(scattered, {}, "huge-pages"))).toMatch(
      /10 segments instead of 20\. .*one-shot \d+% less, two-step nothing/,
    );
  });

  test("a cap that cuts nothing says so", () => {
    expect(words(text(made([[[0x100000, 1]]]), { requestCap: 131_072 }))).toContain("the cap changes nothing");
    expect(words(text(made([[[0x100000, 64]]]), { requestCap: 131_072 }))).toContain(
      "cuts 1 request: 2 are mapped instead of 1",
    );
  });
});
