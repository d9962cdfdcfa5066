/** The bounce pool of the running kernel, replayed event by event. */
import { describe, expect, test } from "vitest";
import { judgeBouncePool } from "./bounce-pool.ts";
import { recordings } from "./kernel-dma.ts";

describe("a bounce pool takes, copies and frees what the running kernel did", () => {
  const files = recordings().filter(({ lines }) =>
    lines.some(({ events }) => (events as unknown[][] | undefined)?.some(([name]) => name === "slot")),
  );
  test("in twelve recordings", () => expect(files).toHaveLength(12));
  for (const { name, header, lines } of files)
    test(name, async () => {
      const verdict = await judgeBouncePool(header, lines);
      expect(verdict.difference).toBeUndefined();
      expect(verdict.passed).toBe(verdict.operations);
      expect(verdict.operations).toBeGreaterThan(0);
    });
});
