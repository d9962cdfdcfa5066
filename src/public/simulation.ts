/** @module dmalink/simulation */
export * from "../simulation/index.ts";
