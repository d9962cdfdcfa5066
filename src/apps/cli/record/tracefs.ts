/**
 * tracefs, the file system by which the kernel's event recorder is told what to do.
 *
 * Idea: a thin layer over files, so that a test can put a directory tree in its place. Writes never truncate: opening
 * `dynamic_events` with truncation would delete every probe on the machine. Promises: a failed call says which file.
 * Specified by: Linux's documentation of ftrace and of probe events.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmdirSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { EnvironmentError } from "../exit-errors.ts";

/** Where tracefs is mounted: its own place, and the one of older kernels. */
const TRACEFS_PLACES: readonly string[] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

export class Tracefs {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /** The text of `file`; `undefined` if there is none. */
  read(file: string): string | undefined {
    try {
      return readFileSync(join(this.root, file), "utf8");
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
      throw refused(join(this.root, file), "read", error);
    }
  }

  /** Names in `folder`; empty if there is none. */
  list(folder: string): string[] {
    try {
      return readdirSync(join(this.root, folder)).sort();
    } catch {
      return [];
    }
  }

  has(file: string): boolean {
    return this.read(file) !== undefined;
  }

  write(file: string, text: string): void {
    try {
      const handle = openSync(join(this.root, file), constants.O_WRONLY);
      try {
        writeSync(handle, text);
      } finally {
        closeSync(handle);
      }
    } catch (error) {
      throw refused(join(this.root, file), `write ${JSON.stringify(text.trim())} to`, error);
    }
  }

  /** A recorder of its own: `instances/NAME`, which the kernel fills with files. */
  makeInstance(name: string): void {
    try {
      mkdirSync(join(this.root, "instances", name));
    } catch (error) {
      throw refused(join(this.root, "instances", name), "make", error);
    }
  }

  /** The kernel takes the files away with the folder. Fails while one of them is open. */
  removeInstance(name: string): void {
    rmdirSync(join(this.root, "instances", name));
  }

  /** Opens the pages of a CPU; reading does not wait for events. */
  openPages(file: string): number {
    try {
      return openSync(join(this.root, file), constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      throw refused(join(this.root, file), "open", error);
    }
  }

  /** One sub-buffer into `page`; 0 if there is no event now. */
  readPage(handle: number, page: Uint8Array): number {
    try {
      return readSync(handle, page, 0, page.length, null);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EAGAIN") return 0;
      throw error;
    }
  }
}

function refused(path: string, action: string, error: unknown): EnvironmentError {
  const { code = "", message } = error as NodeJS.ErrnoException;
  const cure: Record<string, string> = {
    EACCES: "run it as root (sudo)",
    EPERM:
      "run it as root (sudo); where root is refused too, the kernel is locked down (cat /sys/kernel/security/lockdown) or this is a container without the right",
    EROFS: "tracefs is mounted read-only: as root, mount -o remount,rw /sys/kernel/tracing",
    ENOENT: "this kernel does not offer it",
    EBUSY: "another recorder uses it: stop that one first",
    EINVAL:
      "the kernel does not take it; error_log in the same folder tree (cat /sys/kernel/tracing/error_log) says why",
    ENOMEM: "too little memory for the buffers: give a smaller --buffer",
  };
  return new EnvironmentError(`cannot ${action} ${path}: ${cure[code] ?? message}`);
}

/**
 * The mounted tracefs of this machine.
 *
 * @throws EnvironmentError: not Linux, not mounted, or not allowed; with the cure
 */
export function findTracefs(
  platform: string = process.platform,
  places: readonly string[] = TRACEFS_PLACES,
  make: (root: string) => Tracefs = (root) => new Tracefs(root),
): Tracefs {
  if (platform !== "linux")
    throw new EnvironmentError(
      `recording needs Linux, this is ${platform}. For another machine: dmalink record --print-script > record.sh, and there: sudo sh record.sh`,
    );
  let denied: string | undefined;
  for (const place of places) {
    try {
      if (readdirSync(place).includes("events")) return make(place);
    } catch (error) {
      if (["EACCES", "EPERM"].includes((error as NodeJS.ErrnoException).code ?? "")) denied ??= place;
    }
  }
  if (denied !== undefined)
    throw new EnvironmentError(`${denied}: permission denied; recording events needs root: sudo dmalink record`);
  throw new EnvironmentError(
    `tracefs is not mounted at ${places.join(" or ")}; as root: mount -t tracefs nodev ${places[0]} ` +
      "(if that fails, this kernel was built without CONFIG_FTRACE, or this is a container)",
  );
}
