import { defineConfig, type ViteUserConfig } from "vitest/config";

/** Tests of the page that take longer than a run of all tests may: `npm run test:page`. */
const config: ViteUserConfig = defineConfig({
  test: {
    include: ["test/page/**/*.page.ts"],
    globalSetup: ["test/own-cache.ts"],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    maxWorkers: 1,
  },
});
export default config;
