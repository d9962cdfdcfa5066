/** `dmalink diff` as a user runs it: two recordings, what is said of them, and the exit code. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { dmalink } from "./in-process.ts";

const traces = join(import.meta.dirname, "../golden/traces");
const strict = join(traces, "strict-rr4k-qd1.dat.gz");
const mix = join(traces, "strict-mix7030.dat.gz");
const net = join(traces, "strict-net.dat.gz");

describe("dmalink diff", () => {
  test("of a trace with itself finds nothing, whatever must not get worse", async () => {
    const all = "errors,warnings,advice,findings,invalidations,lifetime-p99,live,leak";
    const { code, out } = await dmalink("diff", net, net, "--fail-on", "errors,lifetime-p99,live,leak", "--json");
    expect(code).toBe(0);
    const answer = JSON.parse(out);
    expect(answer).toMatchObject({ schema: "dmalink.diff/1", comparable: true, otherwise: [], regressions: [] });
    for (const { before, after } of answer.measures) expect(after).toBe(before);
    // Invalidations were not recorded: that is said, and is no success.
    expect(await dmalink("diff", net, net, "--fail-on", all)).toMatchObject({
      code: 2,
      out: expect.stringContaining("not judged: invalidations: neither trace shows it"),
    });
  });

  test("says why two loads are not comparable, and judges no measure of them", async () => {
    const { code, out } = await dmalink("diff", strict, net, "--fail-on", "segments,errors");
    expect(code).toBe(2);
    const said = out.replace(/\s+/g, " ");
    expect(said).toMatch(/not comparable.*of other sizes.*of other devices/);
    expect(said).toContain("not judged: segments: the loads are not comparable");
  });

  test("half of a load is the same load: numbers per request are alike, and what is live at its end is more", async () => {
    const { out } = await dmalink("diff", strict, strict, "--to", "+40ms", "--json");
    expect(JSON.parse(out).comparable).toBe(true);
  });

  test("a finding that was not there is a regression of its rule and of its severity; the other way round it is gone", async () => {
    const broken = join(traces, "strict-inflight.dat.gz");
    const [before, after] = [
      JSON.parse((await dmalink("check", mix, "--json")).out),
      JSON.parse((await dmalink("check", broken, "--json")).out),
    ];
    const fresh = Object.keys(after.summary).find((rule) => before.summary[rule] === undefined);
    const rule = fresh ?? Object.keys(before.summary).find((one) => after.summary[one] === undefined)!;
    const [from, to] = fresh ? [mix, broken] : [broken, mix];
    const worse = await dmalink("diff", from, to, "--fail-on", rule);
    expect([worse.code, worse.out]).toEqual([1, expect.stringContaining(`regression: ${rule}: 0 before`)]);
    const better = await dmalink("diff", to, from, "--fail-on", rule, "--json");
    expect(better.code).toBe(0);
    expect(JSON.parse(better.out).findings).toContainEqual(expect.objectContaining({ rule, change: "gone", after: 0 }));
  });

  test("what cannot be named is refused with what is nearest", async () => {
    const { code, err } = await dmalink("diff", net, net, "--fail-on", "lifetime-p9");
    expect([code, err]).toEqual([2, expect.stringContaining("did you mean lifetime-p90?")]);
    expect((await dmalink("diff", net, net, "--fail-on", "errors=lots")).err).toContain("lifetime-p99=25%");
    expect((await dmalink("diff", "-", "-")).code).toBe(2);
  });
});
