/** The tests that a mutation run asks; which ones, and which golden folders, comes from `mutants.ts` in the environment. */
import { defineConfig, type ViteUserConfig } from "vitest/config";
import { MEASURING } from "../../vitest.config.ts";

const config: ViteUserConfig = defineConfig({
  test: {
    include: JSON.parse(process.env.DMALINK_MUTANT_TESTS ?? "[]") as string[],
    // A mutated source holds every mutant at once, and allocates otherwise.
    exclude: MEASURING,
    globalSetup: ["test/own-cache.ts"],
    setupFiles: ["test/seed.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
export default config;
