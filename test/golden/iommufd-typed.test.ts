/** The typed door of iommufd gives the kernel's answers too: files in which most calls have types. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

beforeAll(() => void vi.stubEnv("DMALINK_GOLDEN_DOOR", "typed"));
afterAll(() => void vi.unstubAllEnvs());

test.each(["map", "copy", "unmap", "hwpt", "file", "viommu"])("iommufd-%s", async (name) => {
  const [{ judgeFile }, { typedCalls }] = await Promise.all([import("./runner.ts"), import("./iommufd-typed.ts")]);
  const before = typedCalls.count;
  const { verdict } = await judgeFile(join(import.meta.dirname, "iommufd", `iommufd-${name}.jsonl.gz`));
  expect([verdict?.difference, verdict?.passed]).toEqual([undefined, verdict?.operations]);
  expect(typedCalls.count - before).toBeGreaterThan(20);
});
