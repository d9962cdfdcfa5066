/** @module dmalink/trace */
export * from "../trace/index.ts";
