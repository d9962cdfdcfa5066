/** Peer-to-peer routes of the running kernel: every type, distance, state and access control register. */
import { describe, expect, test } from "vitest";
import { recordings } from "./kernel-dma.ts";
import { judgeP2pRoutes } from "./p2p-routes.ts";

describe("peer routes are those of the running kernel", () => {
  const files = recordings().filter(({ name }) => name.includes("-p2p-"));
  test("in six recordings", () => expect(files).toHaveLength(6));
  for (const { name, header, lines } of files)
    test(name, async () => {
      const verdict = await judgeP2pRoutes(header, lines);
      expect(verdict.difference).toBeUndefined();
      expect(verdict.passed).toBe(verdict.operations);
      expect(verdict.operations).toBeGreaterThan(90);
    });
});
