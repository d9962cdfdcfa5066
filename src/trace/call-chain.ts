/** Who called, as an event carries it. */

/** Names of functions, the innermost first; an address in hexadecimal where no name is known. */
export type CallChain = readonly string[];
