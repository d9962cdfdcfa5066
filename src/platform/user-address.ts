/** Addresses of processes, and who owns memory of devices: words that all parts of user memory share. */
import type { Kind } from "../base/index.ts";

/** Bytes. An address in a process, below 2^47 (a processor with four levels of tables). */
export type UserAddr = Kind<number, "UserAddr">;
/** Names an address in a process. */
export const UserAddr = (bytes: number): UserAddr => bytes as UserAddr;

/** End of the addresses that a process can have. */
export const USER_END: UserAddr = UserAddr(2 ** 47);

/** Where a device keeps memory of its own, as others know it: compared by identity. */
export interface MemoryOwner {
  /** For messages; it identifies nothing. */
  readonly name: string;
}
