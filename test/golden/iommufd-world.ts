/**
 * The machine on which the files of iommufd and VFIO type 1 were recorded: processes, their memory and files, by the file's names.
 *
 * Everything is dmalink's own simulated machine. Files give memory at fixed addresses; what is behind them (scattered, contiguous)
 * is made so here.
 */

import { PAGE_SIZE, type PhysAddr, type PhysPage } from "../../src/base/index.ts";
import type { RangeBuffer } from "../../src/consumers/iommufd/index.ts";
import { SimulatedMachine } from "../../src/hosts/simulated/index.ts";
import {
  Frames,
  newUser,
  type ProcessMemory,
  SimulatedFile,
  SimulatedProcess,
} from "../../src/hosts/simulated/process/index.ts";
import {
  type Capability,
  type FileSeal,
  finish,
  type MemoryFile,
  newPageEntry,
  type OpenFile,
  type PageEntry,
  type ProcessUser,
  UserAddr,
} from "../../src/platform/index.ts";
import { type Line, NotJudged } from "./judge.ts";

const ALL: readonly Capability[] = ["IPC_LOCK", "SYS_RESOURCE", "SYS_ADMIN"];
/** Where the recorder kept arrays that structures point to. */
const RECORDERS_ARRAYS = 0x10_5000_0000;
const ARRAYS = 0x20_0000_0000;
const HUGE_PAGES = 512;

/** A process of a file, with the recorder's numbers for its open files. */
export class Person {
  readonly process: SimulatedProcess;
  /** The recorder's number: the file, and its real number. */
  readonly files: Map<number, { readonly file: OpenFile; readonly fd: number }>;
  fds: number;
  accesses: number;
  /** What the file said last of its counters. */
  pin = 0;
  locked = 0;

  constructor(process: SimulatedProcess, parent?: Person) {
    this.process = process;
    this.files = new Map(parent?.files);
    this.fds = parent?.fds ?? 0;
    this.accesses = parent?.accesses ?? 0;
  }

  /** Opens a file. The recorder's number. */
  open(file: OpenFile): number {
    const fd = this.process.descriptors.install(file);
    return this.know(file, fd);
  }

  /** A file that stands at `fd` already. */
  know(file: OpenFile, fd: number): number {
    this.files.set(++this.fds, { file, fd });
    return this.fds;
  }

  close(number: number): void {
    const open = this.files.get(number);
    if (!open) throw new NotJudged(`close of ${number}, which is not open`);
    this.files.delete(number);
    this.process.descriptors.close(open.fd);
  }

  file(number: unknown): OpenFile {
    const open = this.files.get(number as number);
    if (!open) throw new NotJudged(`file ${JSON.stringify(number)} is not open`);
    return open.file;
  }

  /** Memory of `length` bytes for arrays; all zero and nobody's else. */
  arrays(length: number): number {
    this.process.memory.map({ address: UserAddr(ARRAYS), length: Math.max(length, 1), replace: true });
    return ARRAYS;
  }
}

/** A hugetlb file: its pages are those of the mapping that a file names, or of one that nobody sees. */
class HugeFile implements MemoryFile {
  readonly kind = "memory-file";
  readonly medium = "hugetlb";
  readonly pageBytes: number = 2 ** 21;
  readonly seals: ReadonlySet<FileSeal> = new Set();
  readonly length: number;
  mapped: { readonly memory: ProcessMemory; readonly address: number } | undefined;

  constructor(length: number) {
    this.length = length;
  }

  pin(offset: number, count: number, into: Float64Array, at: number): void {
    const { memory, address } = this.mapped!;
    if (offset + count * PAGE_SIZE > this.length) throw new NotJudged("a range beyond the end of a hugetlb file");
    memory.pin(UserAddr(address + offset), count, into, at, { write: true, longTerm: true });
  }

  read(offset: number, into: Uint8Array): number {
    return this.mapped!.memory.read(UserAddr(this.mapped!.address + offset), into);
  }

  write(offset: number, from: Uint8Array): number {
    return this.mapped!.memory.write(UserAddr(this.mapped!.address + offset), from);
  }

  acquire(): void {}
  release(): void {}
}

/** A DMA buffer of the kernel's test module: one range of memory, that can be taken back. */
export class TestBuffer implements RangeBuffer {
  readonly kind = "dma-buf";
  readonly length: number;
  readonly givesRanges: boolean;
  readonly #page: PhysPage;
  readonly #watchers = new Set<() => void>();
  #isRevoked = false;

  constructor(length: number, page: number, givesRanges = true) {
    this.length = length;
    this.#page = page as PhysPage;
    this.givesRanges = givesRanges;
  }

  get range(): { readonly page: PhysPage } | undefined {
    return this.#isRevoked ? undefined : { page: this.#page };
  }

  setRevoked(revoked: boolean): void {
    this.#isRevoked = revoked;
    for (const moved of [...this.#watchers]) moved();
  }

  watch(moved: () => void): () => void {
    this.#watchers.add(moved);
    return () => this.#watchers.delete(moved);
  }

  acquire(): void {}
  release(): void {}
}

/** Any other file: it has no memory. */
class OtherFile implements OpenFile {
  readonly kind: string;

  constructor(kind: string) {
    this.kind = kind;
  }

  acquire(): void {}
  release(): void {}
}

const ENTRY: PageEntry = newPageEntry();

/** Processes, memory and files of one recording. */
export class World {
  readonly main: Person;
  readonly people: Map<string, Person> = new Map();
  readonly #machine = new SimulatedMachine({ memoryBytes: 2 ** 33 });
  readonly #frames: Frames;
  readonly #users = new Map<number, ProcessUser>();
  readonly #files = new Map<string, { readonly file: OpenFile; readonly writable: boolean }>();

  constructor() {
    const { memory, ram } = this.#machine;
    this.#frames = new Frames({ pages: ram, memory, hugetlbPages: HUGE_PAGES });
    const process = new SimulatedProcess(this.#frames, { user: this.#user(0), capabilities: ALL });
    process.memory.map({ address: UserAddr(RECORDERS_ARRAYS), length: 2 ** 20 });
    this.main = new Person(process);
    for (const stream of ["input", "output", "errors"]) process.descriptors.install(new OtherFile(stream));
    for (const [name, length, givesRanges] of [["system heap", 2 ** 20, false]] as const)
      this.#files.set(name, { file: new TestBuffer(length, 2 ** 30, givesRanges), writable: true });
    for (const name of ["/dev/zero", "initramfs file", "iommufd"])
      this.#files.set(name, { file: new OtherFile(name), writable: true });
    const tmpfs = new SimulatedFile({ frames: this.#frames, name: "tmpfs", medium: "tmpfs", length: 0x1_0000 });
    this.#files.set("tmpfs file", { file: tmpfs, writable: true });
    this.#files.set("tmpfs file, read-only fd", { file: tmpfs, writable: false });
  }

  #user(uid: number): ProcessUser {
    const user = this.#users.get(uid) ?? newUser(`user ${uid}`);
    this.#users.set(uid, user);
    return user;
  }

  /** Who makes the call of a line. */
  person(line: Line): Person {
    const name = line["proc"] as string | undefined;
    if (name === undefined) return this.main;
    const person = this.people.get(name);
    if (!person) throw new NotJudged(`process ${name} is not there`);
    return person;
  }

  fork(name: string, uid: number): void {
    const { main } = this;
    const memory = finish(main.process.memory.forkSteps());
    const capabilities = uid === 0 ? ALL : [];
    const process = new SimulatedProcess(this.#frames, { user: this.#user(uid), capabilities }, memory);
    process.descriptors.copyFrom(main.process.descriptors);
    process.memlockBytes = main.process.memlockBytes;
    this.people.set(name, new Person(process, main));
  }

  exit(name: string): void {
    this.people.get(name)!.process.exit();
    this.people.delete(name);
  }

  /** Memory at a fixed address, populated. */
  map(person: Person, line: Line): void {
    const [address, length] = [Number(line["va"]), Number(line["len"])];
    const { memory } = person.process;
    const backing = line["backing"] as string;
    const place = { address: UserAddr(address), length, replace: true };
    const file = line["file"] === undefined ? undefined : this.file(line["file"] as string);
    if (file instanceof HugeFile) {
      memory.map({ ...place, hugetlb: true, shared: true });
      file.mapped = { memory, address };
    } else if (file instanceof SimulatedFile)
      memory.map({ ...place, file, shared: true, offset: Number(line["offset"] ?? 0) });
    else if (backing === "huge2m") memory.map({ ...place, hugetlb: true });
    else if (["anon", "scatter", "shared"].includes(backing)) memory.map({ ...place, shared: backing === "shared" });
    else throw new NotJudged(`memory of kind ${backing}`);
    const pages = Math.ceil(length / PAGE_SIZE);
    const touch = (page: number): void => {
      finish(memory.touchSteps(UserAddr(address + page * PAGE_SIZE), true));
    };
    if (backing === "scatter") {
      for (let page = 0; page < pages; page += 2) touch(page);
      for (let page = 1; page < pages; page += 2) touch(page);
    } else for (let page = 0; page < pages; page++) touch(page);
    if (line["prot"] === "r") memory.protect(UserAddr(address), length, "r");
  }

  /** The physical page behind an address; -1 if there is none. */
  pageAt(person: Person, address: number): number {
    person.process.memory.entryAt(UserAddr(address), ENTRY);
    return ENTRY.kind === "present" ? ENTRY.page : -1;
  }

  pinsAt(person: Person, address: number): number {
    const page = this.pageAt(person, address);
    return page < 0 ? 0 : this.#frames.pinsOf(page as PhysPage);
  }

  memfd(line: Line): void {
    const length = Number(line["len"]);
    const name = line["name"] as string;
    if (line["huge"]) this.#files.set(name, { file: new HugeFile(length), writable: true });
    else {
      const file = new SimulatedFile({ frames: this.#frames, name, length });
      for (const [bit, seal] of [
        [8, "write"],
        [2, "shrink"],
        [4, "grow"],
      ] as const)
        if (((line["seals"] as number | undefined) ?? 0) & bit) file.seals.add(seal);
      this.#files.set(name, { file, writable: true });
    }
  }

  /** A DMA buffer of the test module. */
  buffer(name: string, length: number): void {
    const pages = Math.ceil(length / PAGE_SIZE);
    const page = this.#machine.ram.allocatePages(pages);
    this.#files.set(name, { file: new TestBuffer(length, page!), writable: true });
  }

  file(name: string): OpenFile | undefined {
    return this.#files.get(name)?.file;
  }

  /** A number for a file of this name, in the process; -1: there is none. */
  fdOf(person: Person, name: string): number {
    const known = this.#files.get(name);
    return known ? person.process.descriptors.install(known.file, { readable: true, writable: known.writable }) : -1;
  }

  closeFd(person: Person, fd: number): void {
    person.process.descriptors.close(fd);
  }

  /** Bytes of physical memory, for accesses. */
  get physical(): { read(at: PhysAddr, into: Uint8Array): void; write(at: PhysAddr, from: Uint8Array): void } {
    return this.#machine.memory;
  }
}
