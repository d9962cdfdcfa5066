/**
 * System calls by koffi, the only foreign-function library here and an optional dependency.
 *
 * Idea: loaded when a device is opened and not before, so that everything else of dmalink runs without it.
 * `ioctl` is declared with a fixed third argument, which the C convention of every 64-bit Linux allows and which is quicker.
 * Not for: Windows and macOS, which have no VFIO.
 * Specified by: docs/decisions/0017-real-hardware.md.
 */
import { closeSync, readSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { ERRNO } from "../../base/index.ts";
import { callFailed, libraryMissing, notLinux } from "./errors.ts";
import type { Fd, HugePage, MapOptions, Purpose, Syscalls } from "./syscalls.ts";

/** What is used of the library. */
interface Koffi {
  load(path: string | null): { func(declaration: string): (...values: unknown[]) => unknown };
  view(address: number | bigint, length: number): ArrayBuffer;
  address(bytes: Uint8Array): bigint;
  errno(): number;
}

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_ANONYMOUS = 0x20;
const MAP_HUGETLB = 0x40000;
/** Where flags name a huge page's size: its logarithm. */
const HUGE_SHIFT = 26;
const HUGE_LG: Readonly<Record<HugePage, number>> = { "2 MiB": 21, "1 GiB": 30 };
const MFD_CLOEXEC = 1;
const MFD_HUGETLB = 4;
const EFD_CLOEXEC = O_CLOEXEC;
const MADV_REMOVE = 9;

let loaded: Syscalls | undefined;

/**
 * System calls of this process.
 *
 * @throws DmaError ERR_DMA_LINUX_PLATFORM, ERR_DMA_LINUX_LIBRARY (ENOSYS)
 */
export function systemCalls(): Syscalls {
  if (process.platform !== "linux") throw notLinux(process.platform);
  loaded ??= new KoffiSys();
  return loaded;
}

class KoffiSys implements Syscalls {
  readonly workerLibrary: string;
  readonly #koffi: Koffi;
  readonly #open: (path: string, flags: number) => number;
  readonly #ioctl: (fd: number, request: number, argument: Uint8Array) => number;
  readonly #ioctlNumber: (fd: number, request: number, argument: number) => number;
  readonly #mmap: (at: number, length: number, prot: number, flags: number, fd: number, offset: number) => number;
  readonly #munmap: (address: number, length: number) => number;
  readonly #madvise: (address: number, length: number, advice: number) => number;
  readonly #mlock: (address: number, length: number) => number;
  readonly #memfd: (name: string, flags: number) => number;
  readonly #truncate: (fd: number, length: number) => number;
  readonly #eventfd: (initial: number, flags: number) => number;

  constructor() {
    const require = createRequire(import.meta.url);
    let koffi: Koffi;
    try {
      this.workerLibrary = require.resolve("koffi");
      koffi = require("koffi") as Koffi;
    } catch (error) {
      throw libraryMissing((error as Error).message.split("\n")[0]!);
    }
    this.#koffi = koffi;
    const libc = koffi.load(null); // what Node itself is linked to, whatever the C library
    this.#open = libc.func("int open(const char *path, int flags)") as never;
    this.#ioctl = libc.func("int ioctl(int fd, unsigned long request, void *argument)") as never;
    this.#ioctlNumber = libc.func("int ioctl(int fd, unsigned long request, intptr_t argument)") as never;
    this.#mmap = libc.func(
      "intptr_t mmap(intptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)",
    ) as never;
    this.#munmap = libc.func("int munmap(intptr_t address, size_t length)") as never;
    this.#madvise = libc.func("int madvise(intptr_t address, size_t length, int advice)") as never;
    this.#mlock = libc.func("int mlock(intptr_t address, size_t length)") as never;
    this.#memfd = libc.func("int memfd_create(const char *name, unsigned int flags)") as never;
    this.#truncate = libc.func("int ftruncate(int fd, int64_t length)") as never;
    this.#eventfd = libc.func("int eventfd(unsigned int initial, int flags)") as never;
  }

  open(path: string, purpose: Purpose): Fd {
    return this.#checked("open", this.#open(path, O_RDWR | O_CLOEXEC), purpose);
  }

  close(fd: Fd): void {
    closeSync(fd);
  }

  ioctl(fd: Fd, request: number, argument: Uint8Array | number, name: string, purpose: Purpose): number {
    for (;;) {
      const answer =
        typeof argument === "number" ? this.#ioctlNumber(fd, request, argument) : this.#ioctl(fd, request, argument);
      if (answer >= 0) return answer;
      const number = this.#koffi.errno();
      if (number !== ERRNO.EINTR) throw callFailed(name, number, purpose);
    }
  }

  mmap(length: number, options: MapOptions, purpose: Purpose): number {
    const { fd, offset = 0, hugePage } = options;
    const flags = MAP_SHARED | (fd === undefined ? MAP_ANONYMOUS | hugeFlags(hugePage, MAP_HUGETLB) : 0);
    const address = this.#mmap(0, length, PROT_READ_WRITE, flags, fd ?? -1, offset);
    return this.#checked("mmap", address, purpose);
  }

  munmap(address: number, length: number): void {
    this.#munmap(address, length);
  }

  discard(address: number, length: number): void {
    this.#madvise(address, length, MADV_REMOVE);
  }

  mlock(address: number, length: number, purpose: Purpose): void {
    this.#checked("mlock", this.#mlock(address, length), purpose);
  }

  memfd(name: string, length: number, hugePage: HugePage | undefined, purpose: Purpose): Fd {
    const flags = MFD_CLOEXEC | hugeFlags(hugePage, MFD_HUGETLB);
    const fd = this.#checked("memfd_create", this.#memfd(name, flags), purpose);
    if (this.#truncate(fd, length) === 0) return fd;
    const number = this.#koffi.errno();
    this.close(fd);
    throw callFailed("ftruncate", number, purpose);
  }

  eventfd(): Fd {
    return this.#checked("eventfd", this.#eventfd(0, EFD_CLOEXEC), "make a counter for interrupts");
  }

  signal(fd: Fd): void {
    writeSync(fd, ONE);
  }

  pread(fd: Fd, into: Uint8Array, offset: number, purpose: Purpose): number {
    return this.#byNode("pread", purpose, () => readSync(fd, into, 0, into.length, offset));
  }

  pwrite(fd: Fd, from: Uint8Array, offset: number, purpose: Purpose): number {
    return this.#byNode("pwrite", purpose, () => writeSync(fd, from, 0, from.length, offset));
  }

  view(address: number, length: number): ArrayBuffer {
    return this.#koffi.view(address, length);
  }

  addressOf(bytes: Uint8Array): number {
    return Number(this.#koffi.address(bytes));
  }

  #checked(syscall: string, answer: number, purpose: Purpose): number {
    if (answer < 0) throw callFailed(syscall, this.#koffi.errno(), purpose);
    return answer;
  }

  #byNode(syscall: string, purpose: Purpose, call: () => number): number {
    try {
      return call();
    } catch (error) {
      throw callFailed(syscall, -((error as NodeJS.ErrnoException).errno ?? 0), purpose);
    }
  }
}

function hugeFlags(hugePage: HugePage | undefined, flag: number): number {
  return hugePage === undefined ? 0 : flag | (HUGE_LG[hugePage] << HUGE_SHIFT);
}

/** What is written to an eventfd: a count of 64 bits. */
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);
