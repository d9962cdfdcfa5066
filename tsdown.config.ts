import { defineConfig, type UserConfig } from "tsdown";

const config: UserConfig[] = defineConfig([
  {
    entry: {
      index: "src/index.ts",
      iommu: "src/public/iommu.ts",
      sim: "src/public/sim.ts",
      linux: "src/public/linux.ts",
      block: "src/public/block.ts",
      nvme: "src/public/nvme.ts",
      dmabuf: "src/public/dmabuf.ts",
      iommufd: "src/public/iommufd.ts",
      vfio: "src/public/vfio.ts",
      tee: "src/public/tee.ts",
      hmm: "src/public/hmm.ts",
      gpu: "src/public/gpu.ts",
      rdma: "src/public/rdma.ts",
      process: "src/public/process.ts",
      trace: "src/public/trace.ts",
      analysis: "src/public/analysis.ts",
      replay: "src/public/replay.ts",
      simulation: "src/public/simulation.ts",
      report: "src/public/report.ts",
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
