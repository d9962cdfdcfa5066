import { availableParallelism } from "node:os";
import { defineConfig, type ViteUserConfig } from "vitest/config";

/** They measure what the engine allocates, which other tests' use of the same code would change. */
export const MEASURING: string[] = ["**/allocation-free.test.ts", "src/pagetable/page-table.test.ts"];

const config: ViteUserConfig = defineConfig({
  test: {
    globalSetup: ["test/own-cache.ts"],
    // Every core: the runner itself has little to do, and by default keeps one.
    maxWorkers: availableParallelism(),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    setupFiles: ["test/seed.ts"],
    projects: [
      {
        // The modules are loaded once a worker, not once a file: a third of the time.
        extends: true,
        test: {
          name: "promises",
          include: ["src/**/*.test.ts", "test/**/*.test.ts"],
          exclude: MEASURING,
          isolate: false,
        },
      },
      { extends: true, test: { name: "garbage", include: MEASURING } },
    ],
  },
});
export default config;
