/** @module dmalink/analysis */
export * from "../analysis/index.ts";
