/**
 * The owner of every page of a machine: the host, or a confidential guest, and then whether it is private or shared.
 *
 * Idea: what hardware keeps for each page and no host can write (an owner, private or shared, accepted or not). The host gives
 * pages and takes them; what a page held is gone at each change, and a guest's private page is one only once the guest has
 * accepted it. Pages of device memory are the host's until a guest accepts them.
 * Promises: a page has one owner; every change scrubs it; what is refused changes nothing.
 */
import type { PhysPage } from "../../../base/index.ts";

/** A guest, as hardware knows it: 1 and up. The host is 0. */
export type GuestNumber = number;

/** What is known of a page. */
export interface PageState {
  /** 0 for the host, else the guest's number. */
  readonly owner: GuestNumber;
  /** Only requests inside the owner's trust may touch it. */
  readonly isPrivate: boolean;
  /** The guest has taken it; before that it is not usable. */
  readonly accepted: boolean;
}

const HOST: PageState = { owner: 0, isPrivate: false, accepted: false };

interface GuestPagesOptions {
  /** Zeroes pages of RAM, and takes them out of all caches. */
  readonly scrub: (first: PhysPage, pages: number) => void;
  readonly isRam: (page: PhysPage) => boolean;
}

/** The book of pages of one machine. */
export class GuestPages {
  readonly #options: GuestPagesOptions;
  readonly #pages = new Map<PhysPage, PageState>();
  /** Conversions that will fail: for those who test what comes then. */
  failures = 0;
  /** Changes of RAM between private and shared so far, by the page. */
  conversions = 0;
  /** Changes of device memory so far, by the page. */
  memoryConversions = 0;
  /** Each conversion makes every cache of translations forget the page. */
  shootdowns = 0;

  /** All pages are the host's, and shared. */
  constructor(options: GuestPagesOptions) {
    this.#options = options;
  }

  /** Who owns `page`, and whether it is private: the host, and shared, unless it was given to a guest. */
  at(page: PhysPage): PageState {
    return this.#pages.get(page) ?? HOST;
  }

  /** Pages that are a guest's private ones. */
  privatePagesOf(guest: GuestNumber): number {
    let count = 0;
    for (const { owner, isPrivate } of this.#pages.values()) if (owner === guest && isPrivate) count++;
    return count;
  }

  /** Pages that are a guest's. */
  pagesOf(guest: GuestNumber): number {
    let count = 0;
    for (const { owner } of this.#pages.values()) if (owner === guest) count++;
    return count;
  }

  /** All pages with an owner. */
  entries(): IterableIterator<[PhysPage, PageState]> {
    return this.#pages.entries();
  }

  /** The host gives pages to a guest: private, and not yet accepted. False, and nothing is given, if one is somebody's. */
  give(guest: GuestNumber, first: PhysPage, pages: number): boolean {
    if (!this.#areAll(first, pages, ({ owner }) => owner === 0)) return false;
    this.#set(first, pages, { owner: guest, isPrivate: true, accepted: false });
    return true;
  }

  /** The guest takes pages that it was given: zeroed, and its own from here on. False if one was not given to it. */
  accept(guest: GuestNumber, first: PhysPage, pages: number): boolean {
    if (!this.#areAll(first, pages, ({ owner, isPrivate }) => owner === guest && isPrivate)) return false;
    this.#scrub(first, pages);
    this.#set(first, pages, { owner: guest, isPrivate: true, accepted: true });
    return true;
  }

  /** A host that gives a page back to itself: what the guest had there is gone, and the guest has it no more. */
  takeBack(first: PhysPage, pages: number): void {
    this.#scrub(first, pages);
    for (let i = 0; i < pages; i++) this.#pages.delete((first + i) as PhysPage);
  }

  /** A guest's pages become private or shared. False if one is not its own, or the machine could not. */
  convert(guest: GuestNumber, first: PhysPage, pages: number, to: "private" | "shared"): boolean {
    if (!this.#areAll(first, pages, ({ owner }) => owner === guest)) return false;
    if (this.failures > 0) {
      this.failures--;
      // Neither is known to be so: hardware keeps them from everybody.
      this.#set(first, pages, { owner: guest, isPrivate: true, accepted: false });
      return false;
    }
    this.#scrub(first, pages);
    this.#set(first, pages, { owner: guest, isPrivate: to === "private", accepted: to === "private" });
    this.conversions += pages;
    this.shootdowns += pages;
    return true;
  }

  /** Pages of device memory become a guest's private ones. False if one is somebody's already. */
  acceptMemory(guest: GuestNumber, first: PhysPage, pages: number): boolean {
    if (!this.#areAll(first, pages, ({ owner }) => owner === 0)) return false;
    this.#set(first, pages, { owner: guest, isPrivate: true, accepted: true });
    this.memoryConversions += pages;
    this.shootdowns += pages;
    return true;
  }

  /** And nobody's again. */
  returnMemory(guest: GuestNumber, first: PhysPage, pages: number): void {
    for (let i = 0; i < pages; i++) {
      const page = (first + i) as PhysPage;
      if (this.at(page).owner !== guest || this.#options.isRam(page)) continue;
      this.#pages.delete(page);
      this.memoryConversions++;
      this.shootdowns++;
    }
  }

  #areAll(first: PhysPage, pages: number, test: (state: PageState) => boolean): boolean {
    for (let i = 0; i < pages; i++) if (!test(this.at((first + i) as PhysPage))) return false;
    return true;
  }

  #set(first: PhysPage, pages: number, state: PageState): void {
    for (let i = 0; i < pages; i++) this.#pages.set((first + i) as PhysPage, state);
  }

  #scrub(first: PhysPage, pages: number): void {
    for (let i = 0; i < pages; i++) {
      const page = (first + i) as PhysPage;
      if (this.#options.isRam(page)) this.#options.scrub(page, 1);
    }
  }
}
