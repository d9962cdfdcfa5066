/**
 * A process, as those see it who are asked by one: who it is, what it may, what its descriptors name.
 *
 * Idea: three things that are often mixed up stand apart. The *user* is charged over all its processes, the *address space*
 * (user-memory.ts) may change hands or outlive its process, and the *process* has the limit and the capabilities.
 * Not for: threads, signals to others, scheduling.
 */
import type { OpenFile } from "./memory-file.ts";
import type { PageAccount, UserMemory } from "./user-memory.ts";

/** Whom pages are charged to over all processes. */
export interface ProcessUser {
  /** For messages; users are told apart by identity. */
  readonly name: string;
  /** Pages locked for devices by any process of this user (iommufd's usual account). */
  readonly locked: PageAccount;
}

/** Privileges that consumers ask for: locking past the limit, and changing limits. */
export type Capability = "IPC_LOCK" | "SYS_RESOURCE" | "SYS_ADMIN";

/** A process as a consumer of its memory sees it. */
export interface UserProcess {
  /** Its number, for messages. */
  readonly pid: number;
  /** Whom its pages are charged to. */
  readonly user: ProcessUser;
  /** Its address space now. Another one after exec. */
  readonly memory: UserMemory;
  /** RLIMIT_MEMLOCK, bytes; infinite without a limit. */
  readonly memlockBytes: number;
  /** Does the process hold this privilege? */
  has(capability: Capability): boolean;
  /** Its table of open files. */
  readonly descriptors: Descriptors;
  /** It has exited; consumers may still hold its memory and its files. */
  readonly hasEnded: boolean;
}

/** The open files of a process, by number. */
export interface Descriptors {
  /** What `fd` names; undefined: it is not open (EBADF). */
  get(fd: number): Descriptor | undefined;
  /** Puts a file at the lowest free number. */
  install(file: OpenFile, access?: FileAccess): number;
  /** False: it was not open. The file hears of it when nobody holds it any more. */
  close(fd: number): boolean;
}

/** What the opener may do with an open file. */
export interface FileAccess {
  /** Opened for reading. */
  readonly readable: boolean;
  /** Opened for writing. */
  readonly writable: boolean;
}

/** An open file's number in its process. */
export interface Descriptor extends FileAccess {
  /** What it names. It is held as long as the descriptor is open. */
  readonly file: OpenFile;
}
