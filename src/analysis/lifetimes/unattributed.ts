/**
 * What `iommu:map` events mapped and no event has named a device for yet.
 *
 * Idea: each map is a piece. Pieces that one task maps one behind the other, each where the last one ended, are a run: one request,
 * most likely, which one unmap takes back. Most pieces leave at once, when the `dma:*` event of the same mapping claims
 * them; those that stay are the unattributed ones. Two domains may use one address: then an unmap is taken for the run that it
 * fits exactly, on the CPU that mapped it, the oldest first.
 * Promises: a piece that an unmap speaks for still waits: an event may name it yet, and then the unmap was another's.
 */
import { ChainedIndex, hashOf } from "./chained-index.ts";
import { FIRST_ROWS, RowNumbers, widened } from "./columns.ts";
import type { Place } from "./history.ts";
import { QueueLinks, RowQueue } from "./row-queue.ts";

const NONE = -1;

/** What a piece is: with who took it; waiting; waiting, and most likely what an unmap took back that nobody has named so far. */
const TAKEN = 0;
const WAITS = 1;
const SPOKEN_FOR = 2;

/** Longer than this between two requests is as good as apart. */
const LONG_NS = 1e9;
/** Pieces at one address that are looked at, newest first: as many domains as may use it. */
const MOST_AT_ONCE = 256;
/** Pieces that wait; what nobody unmaps would pile up. */
const MOST_PIECES = 2 ** 20;
/** Pieces that were put back stand behind younger ones: so many older ones are passed over. */
const MOST_OLDER = 8;

/** Tasks that keep a place in the map of last pieces though they have none. */
const MOST_TASKS = 65_536;

export class Unattributed {
  /** Pages of 4 KiB. */
  page: Float64Array = new Float64Array(FIRST_ROWS);
  pages: Float64Array = new Float64Array(FIRST_ROWS);
  /** Bytes. */
  phys: Float64Array = new Float64Array(FIRST_ROWS);
  startNs: Float64Array = new Float64Array(FIRST_ROWS);
  /** When, in the order of the recording. */
  order: Float64Array = new Float64Array(FIRST_ROWS);
  cpu: Uint16Array = new Uint16Array(FIRST_ROWS);
  pid: Int32Array = new Int32Array(FIRST_ROWS);
  task: Uint32Array = new Uint32Array(FIRST_ROWS);
  type: Uint16Array = new Uint16Array(FIRST_ROWS);
  /** Who called; 0: that was not recorded. */
  site: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** 1: another piece was live at its first page when it was mapped. */
  overLive: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Neighbours in its run. */
  #next: Int32Array = new Int32Array(FIRST_ROWS);
  #previous: Int32Array = new Int32Array(FIRST_ROWS);
  readonly #numbers = new RowNumbers();
  /** By first page. */
  readonly #index = new ChainedIndex();
  /** By task: the piece that it mapped last, if that waits still. */
  readonly #last = new Map<number, number>();
  /** The last pieces of other runs, by the page behind them and their task. */
  readonly #ends = new ChainedIndex();
  /** 1: in {@link #ends}. */
  #isEnd: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** The place of the unmap that speaks for a piece. */
  #speaker: Float64Array = new Float64Array(FIRST_ROWS);
  readonly #links = new QueueLinks();
  /** Pieces that wait, by age. */
  readonly #waiting = new RowQueue(this.#links);
  /** {@link TAKEN}, {@link WAITS} or {@link SPOKEN_FOR}. */
  #state: Uint8Array = new Uint8Array(FIRST_ROWS);

  /** Pieces that wait. */
  get live(): number {
    return this.#waiting.length;
  }

  /** Pieces that ever waited have numbers below this. */
  get used(): number {
    return this.#numbers.used;
  }

  /** There are too many: the oldest run is to go. */
  get isFull(): boolean {
    return this.#waiting.length > MOST_PIECES;
  }

  isLive(piece: number): boolean {
    return this.#numbers.isLive(piece) && this.#state[piece] !== TAKEN;
  }

  /** A map of the event at hand. */
  add(page: number, pages: number, phys: number, now: Place, order: number): void {
    const piece = this.#numbers.take();
    if (piece === this.page.length) this.#grow();
    this.page[piece] = page;
    this.pages[piece] = pages;
    this.phys[piece] = phys;
    this.startNs[piece] = now.timeNs;
    this.order[piece] = order;
    this.cpu[piece] = now.cpu;
    this.pid[piece] = now.pid;
    this.task[piece] = now.task;
    this.type[piece] = now.type;
    this.site[piece] = now.site;
    this.overLive[piece] = this.#waitsAt(page) ? 1 : 0;
    this.#next[piece] = NONE;
    this.#previous[piece] = NONE;
    this.#isEnd[piece] = 0;
    this.#state[piece] = WAITS;
    this.#index.add(piece, hashOf(page));
    this.#waiting.push(piece);
    this.#continue(piece, page);
  }

  /** Whether a piece at `page` waits that no unmap speaks for. */
  #waitsAt(page: number): boolean {
    let most = MOST_AT_ONCE;
    for (let piece = this.firstAt(page); piece >= 0 && most > 0; piece = this.nextAt(piece), most--)
      if (this.#state[piece] === WAITS) return true;
    return false;
  }

  /** The newest piece that begins at `page`; -1: none. */
  firstAt(page: number): number {
    return this.#atPage(this.#index.first(hashOf(page)), page);
  }

  /** The next older one that begins at the same page. */
  nextAt(piece: number): number {
    return this.#atPage(this.#index.next(piece), this.page[piece]!);
  }

  #atPage(piece: number, page: number): number {
    while (piece >= 0 && this.page[piece] !== page) piece = this.#index.next(piece);
    return piece;
  }

  /**
   * The piece at `page` that the event at hand, of `cpu` and `pid`, is about: of the memory at `phys` if that is known (-1: it is not)
   * and was mapped there, else the last one of this CPU, else of this task. -1: none.
   */
  mappedBy(page: number, phys: number, cpu: number, pid: number): number {
    let [best, fit] = [NONE, 0];
    let left = MOST_AT_ONCE;
    for (let piece = this.firstAt(page); piece >= 0 && left > 0; piece = this.nextAt(piece), left--) {
      const here = this.cpu[piece] === cpu ? 2 : this.pid[piece] === pid ? 1 : 0;
      const own = here + (phys >= 0 && this.phys[piece] === phys ? 4 : 0);
      if (own > fit) [best, fit] = [piece, own];
    }
    return best;
  }

  /** The pieces that `cpu` mapped after `order`, oldest first. */
  since(order: number, cpu: number): number[] {
    const later: number[] = [];
    let older = 0;
    for (let piece = this.#waiting.youngest; piece >= 0 && older < MOST_OLDER; piece = this.#links.older[piece]!)
      if (this.order[piece]! < order) older++;
      else if (this.cpu[piece] === cpu) later.push(piece);
    return later.reverse();
  }

  /** Takes `piece`: it does not wait any more, and is in no run. */
  take(piece: number): void {
    const [next, previous] = [this.#next[piece]!, this.#previous[piece]!];
    if (next >= 0) this.#previous[next] = previous;
    else this.#notLast(piece, previous);
    if (previous >= 0) this.#next[previous] = next;
    this.#index.remove(piece, hashOf(this.page[piece]!));
    this.#waiting.remove(piece);
    this.#state[piece] = TAKEN;
  }

  /** Takes all of `pieces`, which are a run or a part of one. */
  takeAll(pieces: readonly number[]): void {
    for (const piece of pieces) this.take(piece);
  }

  /** `piece` was the last of its run, and goes: what is left of it may go on where it began. */
  #notLast(piece: number, previous: number): void {
    const task = this.#task(piece);
    if (this.#last.get(task) === piece) {
      // A map whose keys come and go is built anew again and again: tasks are few, and stay.
      if (previous >= 0 || this.#last.size < MOST_TASKS) this.#last.set(task, previous);
      else this.#last.delete(task);
      return;
    }
    if (this.#isEnd[piece] === 1) {
      this.#ends.remove(piece, this.#endHash(piece));
      this.#isEnd[piece] = 0;
    }
    if (previous >= 0) this.#enterEnd(previous);
  }

  #enterEnd(piece: number): void {
    this.#ends.add(piece, this.#endHash(piece));
    this.#isEnd[piece] = 1;
  }

  /** Gives back a piece that was taken. */
  release(piece: number): void {
    this.#numbers.release(piece);
  }

  /**
   * What an unmap of [page, page + pages) on `cpu` took back of what was mapped before place `before`, in the order of the addresses: a
   * run that it fits, or, piece by piece, the oldest. It is spoken for from now on.
   */
  speakFor(page: number, pages: number, cpu: number, before: number): number[] {
    const found = this.#unmapped(page, pages, cpu, before);
    for (const piece of found) {
      this.#state[piece] = SPOKEN_FOR;
      this.#speaker[piece] = before;
    }
    return found;
  }

  /** The unmap at place `speaker` was another's: `pieces` wait as before. */
  giveBack(pieces: readonly number[], speaker: number): void {
    for (const piece of pieces) if (this.#isSpokenFor(piece, speaker)) this.#state[piece] = WAITS;
  }

  /** Whether the unmap at place `speaker` still speaks for all of `pieces`: none of them was named since. */
  areSpokenFor(pieces: readonly number[], speaker: number): boolean {
    for (const piece of pieces) if (!this.#isSpokenFor(piece, speaker)) return false;
    return true;
  }

  #isSpokenFor(piece: number, speaker: number): boolean {
    return this.#state[piece] === SPOKEN_FOR && this.#speaker[piece] === speaker;
  }

  #unmapped(page: number, pages: number, cpu: number, before: number): number[] {
    const found: number[] = [];
    let best = NONE;
    let fit = Number.NEGATIVE_INFINITY;
    let most = MOST_AT_ONCE;
    for (let piece = this.firstAt(page); piece >= 0 && most > 0; piece = this.nextAt(piece), most--) {
      const own = this.#fitOf(piece, pages, cpu, before);
      if (own !== undefined && own >= fit) [best, fit] = [piece, own]; // of equals the oldest: it comes last
    }
    if (best >= 0) {
      for (let left = pages; left > 0; best = this.#next[best]!) {
        left -= this.pages[best]!;
        found.push(best);
      }
      return found;
    }
    if (pages > this.#numbers.used * 2) {
      // A huge range over few pieces: look at those instead of at every page.
      for (let piece = 0; piece < this.#numbers.used; piece++)
        if (this.#isFree(piece, before) && this.page[piece]! >= page && this.page[piece]! < page + pages)
          found.push(piece);
      return found.sort((a, b) => this.page[a]! - this.page[b]! || this.order[a]! - this.order[b]!);
    }
    for (let at = page; at < page + pages; ) {
      const piece = this.#oldestAt(at, cpu, before);
      if (piece < 0) {
        at++;
        continue;
      }
      at += this.pages[piece]!;
      found.push(piece);
    }
    return found;
  }

  #isFree(piece: number, before: number): boolean {
    return this.#numbers.isLive(piece) && this.#state[piece] === WAITS && this.order[piece]! < before;
  }

  /** Takes the run of the piece that waits longest. */
  takeOldest(): number[] {
    const run = this.#runFrom(this.#head(this.#waiting.oldest));
    this.takeAll(run);
    return run;
  }

  /** What is left, run by run, in the order of their beginning. */
  runs(): number[][] {
    const heads: number[] = [];
    for (let piece = 0; piece < this.#numbers.used; piece++)
      if (this.isLive(piece) && this.#previous[piece]! < 0) heads.push(piece);
    heads.sort((a, b) => this.order[a]! - this.order[b]!);
    return heads.map((head) => this.#runFrom(head));
  }

  #head(piece: number): number {
    while (this.#previous[piece]! >= 0) piece = this.#previous[piece]!;
    return piece;
  }

  #runFrom(head: number): number[] {
    const run: number[] = [];
    for (let piece = head; piece >= 0; piece = this.#next[piece]!) run.push(piece);
    return run;
  }

  /**
   * How well an unmap of `pages` from `piece` on fits its run; `undefined`: not at all. Best on the CPU that mapped it; then the more
   * time there is between it and its neighbours in the run, which are other requests then.
   */
  #fitOf(piece: number, pages: number, cpu: number, before: number): number | undefined {
    let left = pages;
    let last = piece;
    for (let at = piece; at >= 0 && left > 0 && this.#isFree(at, before); at = this.#next[at]!) {
      left -= this.pages[at]!;
      last = at;
    }
    if (left !== 0) return undefined;
    const { startNs } = this;
    const [previous, next] = [this.#previous[piece]!, this.#next[last]!];
    const apartNs = Math.min(
      previous < 0 ? LONG_NS : startNs[piece]! - startNs[previous]!,
      next < 0 ? LONG_NS : startNs[next]! - startNs[last]!,
      LONG_NS,
    );
    return apartNs + (this.cpu[piece] === cpu ? 2 * LONG_NS : 0);
  }

  /** The oldest of `cpu` at `page`, else the oldest. */
  #oldestAt(page: number, cpu: number, before: number): number {
    let [oldest, own] = [NONE, NONE];
    let most = MOST_AT_ONCE;
    for (let piece = this.firstAt(page); piece >= 0 && most > 0; piece = this.nextAt(piece), most--) {
      if (!this.#isFree(piece, before)) continue;
      oldest = piece;
      if (this.cpu[piece] === cpu) own = piece;
    }
    return own >= 0 ? own : oldest;
  }

  /** Joins `piece` to the run of its task that ends where it begins, if there is one; on whatever CPU. */
  #continue(piece: number, page: number): void {
    const task = this.#task(piece);
    const last = this.#last.get(task);
    this.#last.set(task, piece);
    if (last !== undefined && last >= 0) {
      if (this.page[last]! + this.pages[last]! === page) {
        this.#next[last] = piece;
        this.#previous[piece] = last;
        return;
      }
      this.#enterEnd(last);
    }
    let end = this.#ends.first(hashOf(page, task));
    while (end >= 0 && (this.page[end]! + this.pages[end]! !== page || this.#task(end) !== task))
      end = this.#ends.next(end);
    if (end < 0) return;
    this.#ends.remove(end, this.#endHash(end));
    this.#isEnd[end] = 0;
    this.#next[end] = piece;
    this.#previous[piece] = end;
  }

  /** Who maps: a task, or, where no task runs, a CPU. */
  #task(piece: number): number {
    const pid = this.pid[piece]!;
    return pid !== 0 ? pid : -1 - this.cpu[piece]!;
  }

  #endHash(piece: number): number {
    return hashOf(this.page[piece]! + this.pages[piece]!, this.#task(piece));
  }

  #grow(): void {
    const rows = this.page.length * 2;
    this.page = widened(this.page, rows);
    this.pages = widened(this.pages, rows);
    this.phys = widened(this.phys, rows);
    this.startNs = widened(this.startNs, rows);
    this.order = widened(this.order, rows);
    this.cpu = widened(this.cpu, rows);
    this.pid = widened(this.pid, rows);
    this.task = widened(this.task, rows);
    this.type = widened(this.type, rows);
    this.site = widened(this.site, rows);
    this.overLive = widened(this.overLive, rows);
    this.#next = widened(this.#next, rows);
    this.#previous = widened(this.#previous, rows);
    this.#state = widened(this.#state, rows);
    this.#isEnd = widened(this.#isEnd, rows);
    this.#speaker = widened(this.#speaker, rows);
    this.#links.grow(rows);
    this.#index.grow(rows, (piece) => hashOf(this.page[piece]!));
    this.#ends.grow(rows, (piece) => this.#endHash(piece));
  }
}
