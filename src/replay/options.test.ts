import { describe, expect, test } from "vitest";
import { Requests } from "../analysis/index.ts";
import { type CompareOptions, compare, planOf, replayAsNvme } from "./index.ts";

function load(): Requests {
  return Requests.of([{ segments: [{ iova: 0xf000_0000, phys: 0x40_0000, length: 8192 }], startNs: 0, endNs: 1 }]);
}

const refused = (name: string) =>
  expect.objectContaining({
    code: "ERR_DMA_REPLAY_OPTIONS",
    errno: "EINVAL",
    message: expect.stringMatching(new RegExp(`^a ${name} of .*is needed$`)),
  });

const WRONG: [keyof CompareOptions, unknown][] = [
  ...[0, 1, 4095, -1, -4096, Number.NaN, Number.POSITIVE_INFINITY, "128K"].map((cap) => ["requestCap", cap] as never),
  ["iommu", "foo"],
  ["iommu", "constructor"],
  ["mode", "sloppy"],
  ["seed", Number.NaN],
  ["cost", { invalidationNs: 1 }],
];

describe("a replay, before it begins,", () => {
  test.each(WRONG)("refuses %s: %s", async (name, value) => {
    const options = { [name]: value } as CompareOptions;
    const words = refused(name === "cost" ? "cost.pteWriteNs" : name);
    expect(() => compare(load(), options)).toThrow(words);
    await expect(replayAsNvme(load(), options)).rejects.toThrow(words);
    if (name === "requestCap") expect(() => planOf(load(), options)).toThrow(words);
  });

  test.each([4096, 8192, 2 ** 30])("takes a cap of %s bytes", (requestCap) => {
    expect(compare(load(), { requestCap }).pieces).toBe(requestCap === 4096 ? 2 : 1);
  });

  test("refuses what is no load, such as the promise of one", async () => {
    expect(() => compare(Promise.resolve(load()) as never)).toThrow(refused("load"));
    await expect(replayAsNvme(undefined as never)).rejects.toThrow(refused("load"));
  });
});
