/** The path that means standard input; on the command line "-". */
export const STANDARD_INPUT = "(standard input)";
