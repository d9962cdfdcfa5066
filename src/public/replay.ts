/** @module dmalink/replay */
export * from "../replay/index.ts";
