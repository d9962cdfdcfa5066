/** Text for people, whatever it says: lines that fit and line up, and nothing in them that a terminal or a page would obey. */
export * from "./escape.ts";
export * from "./style.ts";
export * from "./text-table.ts";
