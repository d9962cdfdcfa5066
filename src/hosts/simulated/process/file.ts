/**
 * Files of memory: memfd and tmpfs, their pages, holes and ends.
 *
 * Idea: the cache is a map from offset to folio, filled by whoever touches a page first. A hole is punched, and an end is cut off, by
 * clearing all mappings of that part first and the cache after; cutting off also takes the copies that processes made, and looks twice.
 * Promises: what somebody has pinned stays theirs, though the file knows it no more. Not for: names, folders, disks.
 * Specified by: behaviour of Linux 7.2 (shmem_fault, shmem_fallocate, shmem_setattr, memfd_pin_folios).
 */
import { PAGE_SIZE, PhysAddr } from "../../../base/index.ts";
import { type FileSeal, finish, type MemoryFile, type Steps } from "../../../platform/index.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { badFileRange, refused, userMemory } from "./errors.ts";
import type { Area, Folio, FrameSource, MappedObject } from "./structures.ts";
import { zapPages } from "./zap.ts";

/** A file to make: its size, contents and seals. */
export interface FileOptions {
  /** Where its pages come from. */
  readonly frames: FrameSource & FileMemory;
  /** For reports. */
  readonly name: string;
  /** What the file is said to be; `memfd` unless said. */
  readonly medium?: "memfd" | "tmpfs";
  /** Bytes. 0 unless said. */
  readonly length?: number;
}

/** What a file reads and writes by. */
export interface FileMemory {
  readonly memory: {
    read(address: PhysAddr, into: Uint8Array): void;
    write(address: PhysAddr, from: Uint8Array): void;
  };
  unpin(page: number, count: number, dirty: boolean): void;
}

/** A file of memory (memfd): pages that several processes map. */
export class SimulatedFile implements MemoryFile, MappedObject {
  readonly kind = "memory-file";
  /** False: its pages are of 4 KiB. */
  readonly isHugetlb = false;
  readonly pageBytes: number = PAGE_SIZE;
  /** For reports; it need not be unique. */
  readonly name: string;
  readonly medium: "memfd" | "tmpfs";
  readonly seals: Set<FileSeal> = new Set();
  readonly areas: Area[] = [];
  readonly #frames: FileOptions["frames"];
  readonly #cache = new Map<number, Folio>();
  /** Slots of the pages that are in swap. */
  readonly #swapped = new Map<number, number>();
  #length: number;
  #users = 1;

  /** All of it is a hole. The caller holds it. */
  constructor(options: FileOptions) {
    this.name = options.name;
    this.medium = options.medium ?? "memfd";
    this.#frames = options.frames;
    this.#length = options.length ?? 0;
  }

  get length(): number {
    return this.#length;
  }

  get endOffset(): number {
    return Math.ceil(this.#length / PAGE_SIZE);
  }

  /** Pages that are in swap. */
  get swappedPages(): number {
    return this.#swapped.size;
  }

  /** Pages that are in memory. */
  get cachedPages(): number {
    return this.#cache.size;
  }

  acquire(): void {
    this.#users++;
  }

  /** Its maker keeps it no longer: it lives as long as it is mapped, and was not acquired for that yet. */
  handOver(): void {
    this.#users--;
  }

  release(): void {
    this.#users--;
    if (this.#users === 0) this.#dropCache(0, Number.POSITIVE_INFINITY);
  }

  peek(offset: number): Folio | undefined {
    return this.#cache.get(offset);
  }

  get(offset: number): Folio | undefined {
    const cached = this.#cache.get(offset);
    if (cached) return cached;
    const folio = this.#frames.allocate(0);
    if (!folio) return undefined;
    folio.kind = "file";
    folio.object = this;
    folio.offset = offset;
    this.#cache.set(offset, folio);
    this.#bringBack(offset, folio);
    return folio;
  }

  toSwap(folio: Folio, slot: number): void {
    this.#cache.delete(folio.offset);
    this.#swapped.set(folio.offset, slot);
    folio.object = undefined;
  }

  replace(from: Folio, to: Folio): void {
    this.#cache.set(from.offset, to);
    from.object = undefined;
  }

  #bringBack(offset: number, folio: Folio): void {
    const slot = this.#swapped.get(offset);
    if (slot === undefined) return;
    const swap = this.#frames.swap!;
    const bytes = new Uint8Array(PAGE_SIZE);
    swap.read(slot, 0, bytes);
    this.#frames.memory.write(PhysAddr(folio.frame * PAGE_SIZE), bytes);
    swap.counts.in++;
    this.#swapped.delete(offset);
    swap.drop(slot);
  }

  /** From now on what `seal` forbids is refused. @throws DmaError ERR_DMA_USER_CALL (EPERM) once sealing is sealed */
  seal(seal: FileSeal): void {
    if (this.seals.has("seal")) throw refused("seal", "EPERM", `${this.name} takes no more seals`);
    this.seals.add(seal);
  }

  read(offset: number, into: Uint8Array): number {
    const length = Math.max(0, Math.min(into.length, this.#length - offset));
    this.#each(offset, length, (page, inside, at, count) => {
      const part = into.subarray(at, at + count);
      const folio = this.#cache.get(page);
      const slot = this.#swapped.get(page);
      if (folio) this.#frames.memory.read(PhysAddr(folio.frame * PAGE_SIZE + inside), part);
      else if (slot !== undefined) this.#frames.swap!.read(slot, inside, part);
      else part.fill(0);
    });
    return length;
  }

  /** @throws DmaError ERR_DMA_USER_CALL (EPERM) by a seal; ERR_DMA_USER_MEMORY (ENOMEM), part may be written then */
  write(offset: number, from: Uint8Array): number {
    if (this.seals.has("write") || this.seals.has("future-write"))
      throw refused("write", "EPERM", `${this.name} is sealed against writing`);
    if (offset + from.length > this.#length) {
      if (this.seals.has("grow")) throw refused("write", "EPERM", `${this.name} is sealed against growing`);
      this.#length = offset + from.length;
    }
    this.#each(offset, from.length, (page, inside, at, count) => {
      const folio = this.get(page);
      if (!folio) throw userMemory(1);
      this.#frames.memory.write(PhysAddr(folio.frame * PAGE_SIZE + inside), from.subarray(at, at + count));
    });
    return from.length;
  }

  pin(offset: number, count: number, into: Float64Array, at: number): void {
    const first = offset / PAGE_SIZE;
    if (!Number.isInteger(first) || first < 0 || count < 1 || (first + count) * PAGE_SIZE > this.#length)
      throw badFileRange(offset, count * PAGE_SIZE, this.#length);
    for (let i = 0; i < count; i++) {
      const folio = this.get(first + i);
      if (!folio) {
        for (let done = 0; done < i; done++) this.#frames.unpin(into[at + done]!, 1, false);
        throw userMemory(count);
      }
      folio.pins++;
      into[at + i] = folio.frame;
    }
  }

  /** Gives back what is in [start, end), whole pages: they read as zeros, and need no memory. */
  punch(start: number, end: number): void {
    finish(this.punchSteps(start, end));
  }

  /** As {@link SimulatedFile.punch}, in steps. @throws DmaError ERR_DMA_USER_CALL (EPERM) if it is sealed against writing */
  *punchSteps(start: number, end: number): Steps<void> {
    if (this.seals.has("write")) throw refused("fallocate", "EPERM", `${this.name} is sealed against writing`);
    const [first, last] = [Math.ceil(start / PAGE_SIZE), Math.floor(end / PAGE_SIZE)];
    if (first < last) yield* clearMappings(this, first, last, false);
    this.#zeroPart(start, Math.min(end, first * PAGE_SIZE));
    if (last >= first) this.#zeroPart(last * PAGE_SIZE, end);
    this.#dropCache(first, last);
  }

  /** Makes it `length` bytes long. */
  truncate(length: number): void {
    finish(this.truncateSteps(length));
  }

  /** As {@link SimulatedFile.truncate}, in steps. @throws DmaError ERR_DMA_USER_CALL (EPERM) if a seal forbids that */
  *truncateSteps(length: number): Steps<void> {
    const old = this.#length;
    if (length < old && this.seals.has("shrink")) throw refused("ftruncate", "EPERM", `${this.name} may not shrink`);
    if (length > old && this.seals.has("grow")) throw refused("ftruncate", "EPERM", `${this.name} may not grow`);
    this.#length = length;
    if (length >= old) return;
    const first = Math.ceil(length / PAGE_SIZE);
    const cuts = old > first * PAGE_SIZE;
    if (cuts) yield* clearMappings(this, first, Number.POSITIVE_INFINITY, true);
    this.#zeroPart(length, first * PAGE_SIZE);
    this.#dropCache(first, Number.POSITIVE_INFINITY);
    if (cuts) yield* clearMappings(this, first, Number.POSITIVE_INFINITY, true);
  }

  /** Fills [start, end) with zeros, which lie in one page. */
  #zeroPart(start: number, end: number): void {
    if (start >= end) return;
    const page = Math.floor(start / PAGE_SIZE);
    const folio = this.#cache.get(page);
    const slot = this.#swapped.get(page);
    if (slot !== undefined) this.#frames.swap!.clear(slot, start % PAGE_SIZE, (start % PAGE_SIZE) + end - start);
    if (!folio) return;
    const address = PhysAddr(folio.frame * PAGE_SIZE + (start % PAGE_SIZE));
    this.#frames.memory.write(address, new Uint8Array(end - start));
  }

  #dropCache(first: number, last: number): void {
    for (const [offset, folio] of this.#cache) {
      if (offset < first || offset >= last) continue;
      this.#cache.delete(offset);
      folio.object = undefined;
      this.#frames.release(folio);
    }
    for (const [offset, slot] of this.#swapped) {
      if (offset < first || offset >= last) continue;
      this.#swapped.delete(offset);
      this.#frames.swap!.drop(slot);
    }
  }

  #each(
    offset: number,
    length: number,
    visit: (page: number, inside: number, at: number, count: number) => void,
  ): void {
    for (let at = 0; at < length; ) {
      const inside = (offset + at) % PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - inside, length - at);
      visit((offset + at - inside) / PAGE_SIZE, inside, at, count);
      at += count;
    }
  }
}

/** Clears what maps offsets [first, last) of `object`, in every process; with `copiesToo` also what they made of it. */
export function* clearMappings(object: MappedObject, first: number, last: number, copiesToo: boolean): Steps<void> {
  for (const area of [...object.areas]) {
    const start = Math.max(area.start, area.start + first - area.offset);
    const end = Math.min(area.end, area.start + last - area.offset);
    if (start >= end) continue;
    const { space } = area;
    space.notifiers.begin("clear", start, end);
    yield ANNOUNCED;
    zapPages(space, area, start, end, { copiesToo });
    space.notifiers.end();
  }
}
