/** Every recorded trace, replayed: each byte right, and as many invalidations as the kernel itself made. */
import { readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { readRequests } from "../../src/analysis/index.ts";
import { compare } from "../../src/replay/index.ts";
import { openTrace } from "../../src/trace/index.ts";
import { some } from "../effort.ts";

const folder = new URL("./traces/", import.meta.url);
const names = readdirSync(folder).filter((name) => /\.(dat|ftrace\.txt)\.gz$/.test(name));

const read = async (name: string) => {
  const bytes = gunzipSync(readFileSync(new URL(name, folder)));
  const trace = await openTrace({
    name,
    size: bytes.length,
    read: async (offset, length) => bytes.subarray(offset, offset + length),
  });
  return readRequests(trace);
};

describe("a recorded load, replayed under every strategy", () => {
  test("all 25 recordings are here", () => expect(names).toHaveLength(25));
  for (const name of some(names, 3))
    test(`${name}: every byte right; as many invalidations as the kernel's unmaps`, async () => {
      const requests = await read(name);
      const result = compare(requests);
      expect(result.firstMismatch).toBeUndefined();
      expect(result.mismatches).toBe(0);
      expect(result.verifiedBytes).toBeGreaterThan(0);
      const twoStep = result.strategies.find((strategy) => strategy.name === "two-step")!;
      const { unmapEvents, unmapsOfUnknown } = requests.counts;
      if (unmapEvents > 0) expect(twoStep.invalidations).toBe(unmapEvents - unmapsOfUnknown);
    });
});

describe("what two-step would need, predicted from a recording of an older kernel", () => {
  // The same jobs with the same seed on 6.12, which maps them as lists and one by one, and on 7.2, which maps them in two steps.
  test.each([
    ["more/old612-strict-mix7030.dat.gz", "strict-mix7030.dat.gz", 900],
    ["more/old612-strict-sw1m.dat.gz", "strict-sw1m-probes.dat.gz", 320],
  ])("%s: as many invalidations as %s of 7.2 made: %i", async (older, newer, invalidations) => {
    const predicted = compare(await read(older)).strategies.find(({ name }) => name === "two-step")!;
    expect(predicted.invalidations).toBe(invalidations);
    const { counts } = await read(newer);
    expect(counts.unmapEvents - counts.unmapsOfUnknown).toBe(invalidations);
  });
});

describe("requests of a trace", () => {
  test("with probe events none is ambiguous; each has the bytes that the driver linked", async () => {
    const recorded = await read("strict-sw1m-probes.dat.gz");
    const requests = [...recorded];
    expect(recorded.counts.ambiguous).toBe(0);
    expect(requests).toHaveLength(320);
    expect(requests.reduce((sum, { segments }) => sum + segments.length, 0)).toBe(9270);
    expect(requests.every(({ kind, device }) => kind === "two-step" && device === "0000:00:04.0")).toBe(true);
  });

  test("a recording under load begins with teardowns of unseen maps", async () => {
    const { counts } = await read("strict-inflight.dat.gz");
    expect(counts.unknownStart).toBe(3);
  });

  test("a direct mapping's missing unmaps are no leak: nothing is translated there", async () => {
    const requests = [...(await read("pt-mix7030.dat.gz"))];
    expect(requests.filter(({ endNs }) => endNs === undefined)).toHaveLength(8772);
    expect(requests.some(({ translated }) => translated)).toBe(false);
  });
});
