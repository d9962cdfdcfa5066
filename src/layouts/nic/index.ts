/** The simulated network card, as its driver and the card share it. */
export * from "./registers.ts";
