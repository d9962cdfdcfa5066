import { defineConfig, type UserConfig } from "tsdown";

const config: UserConfig[] = defineConfig([
  {
    entry: {
      index: "src/index.ts",
      sim: "src/hosts/simulated/index.ts",
      linux: "src/hosts/linux/index.ts",
      block: "src/consumers/block/index.ts",
      nvme: "src/consumers/nvme/index.ts",
      trace: "src/trace/index.ts",
      analysis: "src/analysis/index.ts",
      replay: "src/replay/index.ts",
      simulation: "src/simulation/index.ts",
      report: "src/report/index.ts",
    },
    format: "esm",
    platform: "neutral",
    external: [/^node:/], // of hosts/linux alone
    target: "es2022",
    outDir: "dist",
    dts: true,
    // `using` is in no target's own library yet: whoever takes the types need not know.
    banner: { dts: '/// <reference lib="esnext.disposable" />' },
    clean: ["dist"],
  },
  {
    entry: { main: "src/apps/cli/main.ts" },
    format: "esm",
    platform: "node",
    target: "es2022",
    outDir: "dist/apps/cli",
    outExtensions: () => ({ js: ".js" }),
    dts: false,
    clean: false,
  },
]);
export default config;
