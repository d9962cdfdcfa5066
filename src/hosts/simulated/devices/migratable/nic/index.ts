/** A network card whose virtual functions can move to another machine. */
export { NetworkCard, type NetworkCardOptions } from "./card.ts";
export { NicFunction } from "./function.ts";
