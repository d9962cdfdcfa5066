/** Page-table formats: what an entry looks like, as data. Each function gives the layout of one configuration. */
export * from "./amd-v1.ts";
export * from "./arm-lpae.ts";
export { FORMAT_NAMES, type FormatName, layoutNamed, TABLE_FORMATS, type TableFormat } from "./formats.ts";
export * from "./layout.ts";
export * from "./riscv.ts";
export * from "./vtd-second-stage.ts";
export * from "./x86-64.ts";
