/** What a GPU and its driver share bit for bit: the format of its page tables, and where entries lead. */
export * from "./addresses.ts";
