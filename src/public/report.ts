/** @module dmalink/report */
export * from "../report/index.ts";
