/**
 * What happened on the machine, in words: the stack's own observer, heard for each device.
 *
 * Idea: nothing is guessed from a call; each line is an event that the library announced, right after it did it. What pictures need and
 * tables do not say is kept beside: which addresses are reserved, wait for a flush, or are linked and not yet synced.
 */
import { bytes, hex, type Observer, PAGE_SIZE, plural } from "../../../../base/index.ts";
import type { EventPicture } from "./picture.ts";
import { rightsOf } from "./tables.ts";

/** Lines that are kept of one step; more are counted. */
const MOST_LINES = 200;
/** Pages that are remembered for the picture of memory. */
const MOST_FRAMES = 96;

/** Addresses of one device, as the allocator has them. Pages. */
export interface AddressBook {
  /** By first page. */
  readonly reserved: Map<number, { readonly pages: number; waiting: boolean }>;
  /** [start, end), linked and not yet synced. */
  unsynced: (readonly [number, number])[];
  /** Mappings of a device without translation, by address. Bytes. */
  readonly direct: Map<number, { readonly lengthBytes: number; readonly phys: number }>;
}

type Say = (kind: EventPicture["kind"], text: string) => void;

/** What was heard since the last step, and what is true now. */
export class Happenings {
  /** Lines since {@link beginStep}. */
  lines: EventPicture[] = [];
  left = 0;
  readonly books: Map<string, AddressBook> = new Map();
  /** Pool offset to the memory that it stands in for, both bytes, and how much. */
  readonly bounces: Map<number, { readonly phys: number; readonly size: number }> = new Map();
  /** Pages of memory that were ever reached or mapped, the latest last. */
  readonly frames: Set<number> = new Set();

  beginStep(): void {
    this.lines = [];
    this.left = 0;
  }

  say(kind: EventPicture["kind"], text: string, device?: string): void {
    if (this.lines.length < MOST_LINES) this.lines.push({ kind, device, text });
    else this.left++;
  }

  /** This page of memory has to do with what goes on. */
  touch(page: number, pages = 1): void {
    for (let at = page; at < page + Math.min(pages, MOST_FRAMES); at++) {
      this.frames.delete(at);
      this.frames.add(at);
    }
    for (const oldest of this.frames) {
      if (this.frames.size <= MOST_FRAMES) break;
      this.frames.delete(oldest);
    }
  }

  book(device: string): AddressBook {
    let book = this.books.get(device);
    if (!book) {
      book = { reserved: new Map(), unsynced: [], direct: new Map() };
      this.books.set(device, book);
    }
    return book;
  }

  /** Hears the steps of one device's stack. */
  observer(device: string): Observer {
    const book = this.book(device);
    const say: Say = (kind, text) => this.say(kind, text, device);
    const forget = (start: number, end: number): void => {
      book.unsynced = book.unsynced.flatMap(([from, to]) => cut(from, to, start, end));
    };
    return {
      iovaAllocated: (pages, limitPage, page) => {
        if (page === 0) say("iova", `no room for ${plural(pages, "page")} below ${at(limitPage)}`);
        else {
          book.reserved.set(page, { pages, waiting: false });
          say("iova", `${plural(pages, "page")} of addresses reserved at ${at(page)}`);
        }
      },
      iovaFreed: (page, pages) => {
        book.reserved.delete(page);
        say("iova", `${plural(pages, "page")} of addresses at ${at(page)} can be given out again`);
      },
      flushQueued: (page, pages) => {
        book.reserved.set(page, { pages, waiting: true });
        say("iova", `${plural(pages, "page")} at ${at(page)} wait for a flush`);
      },
      mapped: (iova, phys, length, prot) => {
        const [start, pages] = [iova / PAGE_SIZE, length / PAGE_SIZE];
        if (pages === 0) return;
        forget(start, start + pages);
        book.unsynced.push([start, start + pages]);
        this.touch(phys / PAGE_SIZE, pages);
        say("table", `entries written: ${hex(iova)} → memory ${hex(phys)}, ${bytes(length)}, ${rightsOf(prot)}`);
      },
      unmapped: (iova, _asked, length) => {
        if (length === 0) return;
        forget(iova / PAGE_SIZE, (iova + length) / PAGE_SIZE);
        say("table", `entries cleared: ${hex(iova)}, ${bytes(length)}`);
      },
      mapSynced: (iova, length) => {
        forget(iova / PAGE_SIZE, (iova + length) / PAGE_SIZE);
        say("iotlb", `synced: ${hex(iova)}, ${bytes(length)}: the device may look`);
      },
      iotlbSynced: (start, last) => say("iotlb", `IOTLB invalidated: ${hex(start)} to ${hex(last)}`),
      domainInvalidated: () => say("iotlb", "IOTLB invalidated: the whole address space"),
      ...this.#copies(say),
      dmaCalled: ({ name, address, addresses, length = 0, phys, errno }) => {
        if (addresses !== undefined) {
          say("call", `${name} ${addresses.map((each) => hex(each)).join(", ")}`);
          return;
        }
        const where = address === undefined ? `failed${errno === undefined ? "" : `, ${errno}`}` : hex(address);
        if (name === "dma_map_phys" && address !== undefined && phys !== undefined) {
          book.direct.set(address, { lengthBytes: length, phys });
          this.touch(Math.floor(phys / PAGE_SIZE));
        } else if (name === "dma_unmap_phys" && address !== undefined) book.direct.delete(address);
        say("call", `${name} ${where}${length > 0 ? `, ${bytes(length)}` : ""}`);
      },
      twoStepCalled: ({ name, address, offset, length, ok }) =>
        say(
          "call",
          `${name} ${hex(address)}${offset === undefined ? "" : ` + ${hex(offset)}`}${length === undefined ? "" : `, ${bytes(length)}`}${ok === false ? ": failed" : ""}`,
        ),
    };
  }

  /** What units that keep mappings themselves are asked, bounce buffers, and caches. */
  #copies(say: Say): Observer {
    return {
      mapRequested: (iova, phys, pageBytes, count) => {
        this.touch(phys / PAGE_SIZE, (pageBytes * count) / PAGE_SIZE);
        say("table", `the unit is asked to map ${hex(iova)} to ${hex(phys)}, ${bytes(pageBytes * count)}`);
      },
      unmapRequested: (iova, pageBytes, count) =>
        say("table", `the unit is asked to unmap ${hex(iova)}, ${bytes(pageBytes * count)}`),
      slotsTaken: (phys, size, _mask, offset) => {
        if (offset === undefined) say("copy", `no room in the bounce pool for ${bytes(size)}`);
        else {
          this.bounces.set(offset, { phys, size });
          this.touch(Math.floor(phys / PAGE_SIZE));
          say("copy", `the bounce pool stands in for memory ${hex(phys)}, ${bytes(size)}`);
        }
      },
      bounceCopied: (_offset, size, way) =>
        say(
          "copy",
          way === "in"
            ? `${bytes(size)} copied into the pool, for the device`
            : `${bytes(size)} copied out of the pool, for the CPU`,
        ),
      slotsFreed: (offset) => {
        this.bounces.delete(offset);
        say("copy", "the place in the bounce pool is free again");
      },
      cacheForDevice: (phys, length) => say("copy", `CPU caches written back: memory ${hex(phys)}, ${bytes(length)}`),
      cacheForCpu: (phys, length) => say("copy", `CPU caches dropped: memory ${hex(phys)}, ${bytes(length)}`),
    };
  }
}

const at = (page: number): string => hex(page * PAGE_SIZE);

/** [from, to) without [start, end). */
const cut = (from: number, to: number, start: number, end: number): (readonly [number, number])[] =>
  (
    [
      [from, Math.min(to, start)],
      [Math.max(from, end), to],
    ] as const
  ).filter(([low, high]) => low < high);

/** Two who hear the same. */
export function bothHear(first: Observer | undefined, second: Observer): Observer {
  if (!first) return second;
  const all: Record<string, (...heard: never[]) => void> = {};
  for (const one of [first, second] as Record<string, ((...heard: never[]) => void) | undefined>[])
    for (const name of Object.keys(one)) {
      const before = all[name];
      all[name] = (...heard) => {
        before?.(...heard);
        one[name]?.(...heard);
      };
    }
  return all;
}
