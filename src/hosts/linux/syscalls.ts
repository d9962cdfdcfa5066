/**
 * What this host asks of the operating system: some thirty system calls' worth, as one small interface.
 *
 * Idea: everything above is plain TypeScript over this, so that it runs on a kernel that a test made up, and so that the
 * foreign-function library is behind one door (`koffi-syscalls.ts`).
 * Promises: what fails throws a {@link DmaError} that names the call, the errno and the arguments in words; nothing returns -1.
 * Not for: files in sysfs and configuration space, which Node reads and writes by itself (`sysfs.ts`).
 */

/** A file descriptor. */
export type Fd = number;

/** What a call is for, in words: `map 2 MiB at IOVA 0x10000 for 0000:00:04.0`. Made only when it fails. */
export type Purpose = string | (() => string);

/** The system calls that the host makes: this process's own, or a test's. */
export interface Syscalls {
  /** Opens a file or device node for reading and writing; a program that this process starts does not inherit it. */
  open(path: string, purpose: Purpose): Fd;
  /** Closes a descriptor; its number may be given out anew at once. */
  close(fd: Fd): void;
  /**
   * @param argument a structure, which the call may write to; or a number where the call takes one
   * @param name the request in the kernel's words, for messages
   * @returns what the call returned, 0 or more
   */
  ioctl(fd: Fd, request: number, argument: Uint8Array | number, name: string, purpose: Purpose): number;
  /** Maps `length` bytes, shared, readable and writable. The address, page aligned. */
  mmap(length: number, options: MapOptions, purpose: Purpose): number;
  /** Undoes one `mmap`, with the same length. Views of it must not be used any more. */
  munmap(address: number, length: number): void;
  /** Gives the memory behind shared pages back to the system; reading them shows zeros afterwards. */
  discard(address: number, length: number): void;
  /**
   * Keeps [address, + length) in memory.
   *
   * @throws DmaError ERR_DMA_SYSCALL, past the limit of locked memory (`ulimit -l`) with ENOMEM or EPERM
   */
  mlock(address: number, length: number, purpose: Purpose): void;
  /** Anonymous memory as a file, which other processes can be given. */
  memfd(name: string, length: number, hugePage: HugePage | undefined, purpose: Purpose): Fd;
  /** A counter that can be waited for; starts at 0. */
  eventfd(): Fd;
  /** Adds one to an eventfd's counter. */
  signal(fd: Fd): void;
  /** Bytes at `offset` of a file; at most `into.length`, how many. */
  pread(fd: Fd, into: Uint8Array, offset: number, purpose: Purpose): number;
  /** Writes bytes at `offset` of a file; how many, at most `from.length`. */
  pwrite(fd: Fd, from: Uint8Array, offset: number, purpose: Purpose): number;
  /** The memory itself as a view. Valid as long as it is mapped; after that a use of it ends the process. */
  view(address: number, length: number): ArrayBuffer;
  /** Where the bytes lie, for pointers inside structures. They must stay reachable while the kernel uses them. */
  addressOf(bytes: Uint8Array): number;
  /** For the worker that waits for interrupts: how it gets at the same library. Undefined: there is no such worker. */
  readonly workerLibrary: string | undefined;
}

/** Huge pages, bytes. */
export type HugePage = "2 MiB" | "1 GiB";

/** How memory is mapped into this process. */
export interface MapOptions {
  /** A file to map; anonymous memory if not given. */
  readonly fd?: Fd;
  /** Bytes into the file. */
  readonly offset?: number;
  /** Anonymous memory of huge pages, which somebody must have set aside (`/proc/sys/vm/nr_hugepages`). */
  readonly hugePage?: HugePage | undefined;
}
