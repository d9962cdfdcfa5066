/** What a recording shows of the machine that it was made on: held against how each was really set up. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { bytesInput, openTrace } from "../trace/index.ts";
import { type RecordedMachine, recordedMachine } from "./recorded-machine.ts";
import { Requests, type RequestValue, readRequests } from "./requests.ts";

const traces = join(import.meta.dirname, "../../test/golden/traces");

async function machineOf(name: string): Promise<RecordedMachine> {
  const path = [join(traces, name), join(traces, "more", name)].find((one) => existsSync(one))!;
  return recordedMachine(await readRequests(await openTrace(bytesInput(name, gunzipSync(readFileSync(path))))));
}

describe("the machine of a recording", () => {
  test.each([
    ["strict-mix7030.dat.gz", "strict", "addresses", "unattributed"],
    ["strict-net.dat.gz", "strict", "addresses", "one-shot"],
    ["strict-sw1m-probes.dat.gz", "strict", "addresses", "two-step"],
    ["strict-sr128k-flush.dat.gz", "strict", "invalidations", "unattributed"],
    ["virtio-mix7030.dat.gz", "strict", "addresses", "two-step"],
    ["old612-strict-mix7030.dat.gz", "strict", "addresses", "one-shot"],
    ["old61-strict-net.dat.gz", "strict", "addresses", "unattributed"],
    ["arm64-strict-mix7030.dat.gz", "strict", "addresses", "one-shot"],
    ["lazy-net.dat.gz", "lazy", "addresses", "one-shot"],
    ["lazy-rr4k-qd32.dat.gz", "lazy", "addresses", "one-shot"],
    ["lazy-mix7030-ftrace.ftrace.txt.gz", "lazy", "addresses", "two-step"],
    ["lazy-ahci.dat.gz", "lazy", "invalidations", "scatterlist"],
    ["lazy-sw1m-flush.dat.gz", "lazy", "invalidations", "two-step"],
    ["lazy-two-nvme.dat.gz", "lazy", "addresses", "unattributed"],
    ["arm64-lazy-rr4k-qd32.dat.gz", "lazy", "addresses", "one-shot"],
    ["old612-lazy-rr4k-qd32.dat.gz", "lazy", "addresses", "one-shot"],
  ] as const)("%s was %s, shown by %s", async (name, mode, shownBy, mostly) => {
    const machine = await machineOf(name);
    expect(machine).toMatchObject({
      reached: "translated",
      mode,
      shownBy,
      mostly,
      cachingMode: false,
      hidesRequests: false,
    });
  });

  test.each([
    ["pt-mix7030.dat.gz", "direct", "one-shot", true],
    ["none-net.dat.gz", "direct", "one-shot", true],
    ["none-ahci.dat.gz", "direct", "scatterlist", false],
    ["swiotlb-mix7030.dat.gz", "bounced", "one-shot", true],
    ["swiotlb-ahci.dat.gz", "bounced", "scatterlist", false],
  ] as const)("%s translated nothing: %s, and %s hides requests: %s", async (name, reached, mostly, hidesRequests) => {
    expect(await machineOf(name)).toMatchObject({ reached, mode: undefined, mostly, hidesRequests });
  });

  test("of too few mappings nothing is said", () => {
    const segments = [{ iova: 0x1000, phys: 0x5000, length: 4096 }];
    const few = Array.from(
      { length: 20 },
      (_, i): RequestValue => ({ segments, startNs: i * 1000, endNs: i * 1000 + 500 }),
    );
    expect(recordedMachine(Requests.of(few))).toMatchObject({
      reached: "translated",
      mode: undefined,
      shownBy: undefined,
    });
    expect(recordedMachine(Requests.of([])).reached).toBeUndefined();
  });
});
