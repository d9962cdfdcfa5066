/** From events to what they mean: requests and statistics. */
export * from "./read-requests.ts";
export * from "./requests.ts";
export * from "./stats.ts";
