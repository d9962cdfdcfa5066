/**
 * A process of the simulated machine: an address space, open files, a user to be charged, limits and privileges.
 *
 * Idea: fork, exec and exit do to memory and descriptors what the system does; the rest is a record of what a process may.
 * Promises: descriptors are the lowest free numbers; what a process had open is let go when it ends, after its memory.
 */
import {
  type Capability,
  type Descriptor,
  type Descriptors,
  type FileAccess,
  finish,
  type OpenFile,
  type ProcessUser,
  type Steps,
  type UserProcess,
} from "../../../platform/index.ts";
import type { Frames } from "./frames.ts";
import { ProcessMemory } from "./process-memory.ts";

/** Who runs the process, and what it may. */
export interface ProcessOptions {
  /** The next free number unless said. */
  readonly pid?: number;
  /** A user of its own unless said. */
  readonly user?: ProcessUser;
  /** RLIMIT_MEMLOCK, bytes. 8 MiB unless said, as on Linux. */
  readonly memlockBytes?: number;
  /** Its privileges; none unless said. */
  readonly capabilities?: Iterable<Capability>;
}

/** A user without anything charged. */
export const newUser = (name: string): ProcessUser => ({ name, locked: { pages: 0 } });

const DEFAULT_MEMLOCK = 8 * 1024 * 1024;

/** A process: its memory, its open files, its limits and capabilities. */
export class SimulatedProcess implements UserProcess {
  readonly pid: number;
  readonly user: ProcessUser;
  readonly descriptors: OpenFiles = new OpenFiles();
  /** What it may do beyond others; may be changed. */
  readonly capabilities: Set<Capability>;
  memlockBytes: number;
  readonly #frames: Frames;
  #memory: ProcessMemory;
  #ended = false;

  /** A process with no open files, in `memory`, which it takes over: new and empty unless given. */
  constructor(frames: Frames, options: ProcessOptions = {}, memory: ProcessMemory = new ProcessMemory(frames)) {
    this.#frames = frames;
    this.pid = options.pid ?? frames.nextProcess();
    this.user = options.user ?? newUser(`user of ${this.pid}`);
    this.memlockBytes = options.memlockBytes ?? DEFAULT_MEMLOCK;
    this.capabilities = new Set(options.capabilities);
    this.#memory = memory;
  }

  get memory(): ProcessMemory {
    return this.#memory;
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  has(capability: Capability): boolean {
    return this.capabilities.has(capability);
  }

  /**
   * A child: memory as it is now, the same open files, user, limits and privileges.
   *
   * @throws DmaError ERR_DMA_USER_MEMORY (ENOMEM)
   */
  fork(): SimulatedProcess {
    return finish(this.forkSteps());
  }

  /** As {@link SimulatedProcess.fork}, in steps: other steps of the machine may run between them. */
  *forkSteps(): Steps<SimulatedProcess> {
    return this.#child(yield* this.#memory.forkSteps());
  }

  /** A process in the same memory, as threads are. */
  clone(): SimulatedProcess {
    this.#memory.share();
    return this.#child(this.#memory);
  }

  #child(memory: ProcessMemory): SimulatedProcess {
    const { user, memlockBytes, capabilities } = this;
    const child = new SimulatedProcess(this.#frames, { user, memlockBytes, capabilities }, memory);
    child.descriptors.copyFrom(this.descriptors);
    return child;
  }

  /** Another program: memory is new and empty, open files stay. */
  exec(): void {
    const old = this.#memory;
    this.#memory = new ProcessMemory(this.#frames);
    finish(old.leaveSteps());
  }

  /** The process ends: its files are closed, and with the last process in it its memory goes. A second time does nothing. */
  exit(): void {
    finish(this.exitSteps());
  }

  /** As {@link SimulatedProcess.exit}, in steps: other steps of the machine may run between them. */
  *exitSteps(): Steps<void> {
    if (this.#ended) return;
    this.#ended = true;
    yield* this.#memory.leaveSteps();
    this.descriptors.closeAll();
  }
}

/** Open files by number. */
export class OpenFiles implements Descriptors {
  readonly #files: (Descriptor | undefined)[] = [];

  get(fd: number): Descriptor | undefined {
    return this.#files[fd];
  }

  install(file: OpenFile, access: FileAccess = { readable: true, writable: true }): number {
    let fd = this.#files.indexOf(undefined);
    if (fd < 0) fd = this.#files.length;
    file.acquire();
    this.#files[fd] = { file, readable: access.readable, writable: access.writable };
    return fd;
  }

  close(fd: number): boolean {
    const descriptor = this.#files[fd];
    if (!descriptor) return false;
    this.#files[fd] = undefined;
    descriptor.file.release();
    return true;
  }

  /** Closes every file that is open. */
  closeAll(): void {
    for (let fd = 0; fd < this.#files.length; fd++) this.close(fd);
  }

  /** The same files at the same numbers. */
  copyFrom(other: OpenFiles): void {
    other.#files.forEach((descriptor, fd) => {
      descriptor?.file.acquire();
      this.#files[fd] = descriptor;
    });
  }
}
