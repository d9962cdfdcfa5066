/** IDE: registers of encrypted streams between PCI Express ports, and the messages that bring their keys. */
export * from "./capability.ts";
export * from "./key-messages.ts";
export * from "./selective.ts";
