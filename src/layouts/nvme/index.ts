/** NVMe structures, bit for bit, as the driver and the controller share them. */
export * from "./commands.ts";
export * from "./completion.ts";
export * from "./data-pointer.ts";
export * from "./identify.ts";
export * from "./le-words.ts";
export * from "./registers.ts";
