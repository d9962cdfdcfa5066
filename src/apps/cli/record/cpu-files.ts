/**
 * The pages of each CPU, from the kernel into a file each, and those joined into one.
 *
 * Idea: how many pages a CPU will fill is known at the end only, and a trace.dat has them one CPU behind the other: so there is a file
 * for each, and one copy. Where the disk has room for it the parts stay until the copy is whole. Where it has not, each part is
 * copied from its end and cut as it is copied, into the place that it has in the file: that needs room for one piece, which was
 * set aside when the recording began.
 * Promises: a page is never lost between the two: what is cut off a part is in the file. A part is a new file of this process.
 * Not for: a crash of the machine while there is too little room; the order in which a disk writes is its own then.
 */
import {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { pagePadding } from "../../../trace/index.ts";
import { openNew } from "../files/output.ts";
import type { UndoOnExit } from "../files/undo-on-exit.ts";
import type { Tracefs } from "./tracefs.ts";

/** What is copied at once, bytes; and what every place in the file is a multiple of. */
const PIECE = 1 << 18;
export const JOIN_UNIT = 4096;
/** Stays free on a disk beside a copy that nothing is cut for. */
const AMPLE = 64 * 1024 * 1024;

/** Where a recording lies that could not be joined. */
export interface Kept {
  /** What each CPU's file still holds, and where in the file that belongs, bytes. */
  readonly parts: readonly { readonly path: string; readonly offset: number }[];
  /** The file with the head, if that could be written. */
  readonly whole: string | undefined;
}

interface Cpu {
  readonly name: string;
  readonly part: string;
  readonly target: number;
  source: number;
}

/** The files of a recording by tracefs while it runs. */
export class CpuFiles {
  /** Bytes recorded of each CPU: whole pages. */
  readonly sizes: number[] = [];
  readonly #tracefs: Tracefs;
  readonly #page: Uint8Array;
  readonly #cpus: Cpu[] = [];
  readonly #file: string;
  #open = true;
  #reserved = false;
  #headWritten = false;
  /** Where each CPU's pages lie in the file, bytes; when it is joined. */
  #offsets: number[] = [];

  constructor(tracefs: Tracefs, folder: string, file: string, pageBytes: number, undo: UndoOnExit) {
    this.#tracefs = tracefs;
    this.#file = file;
    this.#page = new Uint8Array(pageBytes);
    const names = tracefs.list(folder).filter((name) => /^cpu\d+$/.test(name));
    names.sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)));
    undo.add("the files of the recording's parts", () => this.remove());
    for (const name of names) {
      const part = `${file}.${name}`;
      this.#cpus.push({ name, part, target: openNew(part), source: -1 });
      this.#cpus.at(-1)!.source = tracefs.openPages(`${folder}/${name}/trace_pipe_raw`);
      this.sizes.push(0);
    }
  }

  /** Nothing was recorded yet. */
  get isEmpty(): boolean {
    return this.sizes.every((size) => size === 0);
  }

  /** Sets aside on the disk what joining needs: the head and a piece. @throws the error of the file system: not even that is free */
  reserve(headBytes: number): void {
    const whole = openNew(this.#file);
    this.#reserved = true;
    try {
      writeAll(whole, new Uint8Array(2 * headBytes + 2 * PIECE), 0);
    } finally {
      closeSync(whole);
    }
  }

  /**
   * Takes what is there, of each CPU at most `most` pages; the most that one had.
   *
   * @throws the error of the file system: the disk is full. What was written stays; a page that did not fit whole is not in it.
   */
  drain(most: number): number {
    let highest = 0;
    for (const [i, { source, target }] of this.#cpus.entries())
      for (let pages = 1; pages <= most; pages++) {
        const length = this.#tracefs.readPage(source, this.#page);
        if (length === 0) break;
        // The end of a page may be left out; the file holds whole ones.
        if (length < this.#page.length) this.#page.fill(0, length);
        writeAll(target, this.#page, this.sizes[i]!);
        this.sizes[i]! += this.#page.length;
        highest = Math.max(highest, pages);
      }
    return highest;
  }

  stats(folder: string): string[] {
    return this.#cpus.map(({ name }) => this.#tracefs.read(`${folder}/${name}/stats`) ?? "");
  }

  /** The instance can only go away when nobody has its files open. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const { source } of this.#cpus) if (source >= 0) closeSync(source);
  }

  /** Head and parts, one behind the other, in `file`. @throws the error of the file system; {@link keep} says what is where then */
  join(file: string, head: Uint8Array): void {
    for (const [i, { target }] of this.#cpus.entries()) ftruncateSync(target, this.sizes[i]!); // a page that did not fit
    const total = this.sizes.reduce((sum, size) => sum + size + pagePadding(size), head.length);
    const whole = openNew(file); // what was set aside is free again
    try {
      let at = head.length;
      this.#offsets = this.sizes.map((size) => {
        const offset = at;
        at += size + pagePadding(size);
        return offset;
      });
      writeAll(whole, head, 0);
      this.#headWritten = true;
      const tight = freeBytes(dirname(file)) < total + AMPLE;
      const piece = new Uint8Array(PIECE);
      for (const [i, { target }] of this.#cpus.entries())
        this.#copy(target, whole, this.#offsets[i]!, this.sizes[i]!, piece, tight);
      ftruncateSync(whole, total);
      fsyncSync(whole);
    } finally {
      closeSync(whole);
    }
  }

  /** From the end to the start; `cut`: the part loses what was copied. */
  #copy(source: number, whole: number, offset: number, size: number, piece: Uint8Array, cut: boolean): void {
    for (let end = size; end > 0; ) {
      const start = Math.max(0, end - piece.length);
      const bytes = piece.subarray(0, end - start);
      for (let done = 0; done < bytes.length; ) {
        const length = readSync(source, bytes, done, bytes.length - done, start + done);
        if (length === 0) throw new Error("a part of the recording became shorter while it was joined");
        done += length;
      }
      writeAll(whole, bytes, offset + start);
      if (cut) ftruncateSync(source, start);
      end = start;
    }
  }

  /** Lets the files be, whatever is undone: what is in which, and where that belongs. The file itself is no output yet, and named so. */
  keep(): Kept {
    this.close();
    const whole = `${this.#file}.joined`;
    if (this.#headWritten) renameSync(this.#file, whole);
    const kept = this.#cpus.splice(0).map(({ part, target }, i) => {
      const size = fstatSync(target).size;
      closeSync(target);
      return { path: part, offset: this.#offsets[i] ?? 0, isEmpty: size === 0 };
    });
    return {
      parts: kept.filter(({ path, isEmpty }) => {
        if (isEmpty) rmSync(path, { force: true });
        return !isEmpty;
      }),
      whole: this.#headWritten ? whole : undefined,
    };
  }

  /** Closes and removes the parts, and what was set aside. */
  remove(): void {
    this.close();
    if (this.#reserved && !this.#headWritten) rmSync(this.#file, { force: true });
    for (const { part, target } of this.#cpus.splice(0)) {
      closeSync(target);
      rmSync(part, { force: true });
    }
  }
}

function writeAll(file: number, bytes: Uint8Array, at: number): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done, at + done);
}

/** Room for this user on the disk of `folder`; none if that cannot be said. */
function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return 0;
  }
}
