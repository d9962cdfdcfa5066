import { defineConfig, type UserConfig } from "tsdown";

const config: UserConfig = defineConfig({
  entry: { index: "src/index.ts", "apps/cli/main": "src/apps/cli/main.ts" },
  format: "esm",
  platform: "neutral",
  target: "es2022",
  outDir: "dist",
  dts: true,
  sourcemap: false,
  clean: true,
});
export default config;
