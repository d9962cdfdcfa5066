/**
 * The address history of a recording: what is live, from the table of lifetimes; what has ended lately, in columns of its own; and
 * the last end of each address, from the ledger's history.
 *
 * Idea: mappings that ended last go into a ring, with all that explains a fault. What has fallen out of it is known by its last end
 * alone, without direction and memory: IOVAs are used again and again, so that is what an old address can still mean.
 * A survey is one pass over all three.
 * Promises: memory is bounded, {@link RING_ROWS} rows of 100 bytes at most, and grows only with what has ended; an ended mapping
 * costs some tens of nanoseconds.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { History, Place } from "../lifetimes/history.ts";
import { type LifetimeTable, NO_DEVICE, NO_DIRECTION, TWO_STEP } from "../lifetimes/table.ts";
import type { AddressHistory, Holder, Question, Survey } from "./address-history.ts";
import { Finder, LIVE } from "./finder.ts";

/** Mappings that ended last, all of them. */
export const RING_ROWS: number = 1 << 16;
const FIRST_ROWS = 1 << 10;

/** Numbers per row: */
const NUMBERS = 10;
const IOVA = 0;
const LENGTH = 1;
const PHYS = 2;
const START_NS = 3;
const END_NS = 4;
/** cpu * 65536 + type, of the beginning and of the end; -1: not known. */
const BEGAN_AT = 5;
const ENDED_AT = 6;
const DEVICE = 7;
const KIND = 8;
/** Call sites, that of the beginning in the upper 20 bits. */
const SITES = 9;

/** Whole numbers per row: task and pid of the beginning, task and pid of the end, direction. */
const WORDS = 5;

/** Rows of ended mappings. */
class EndedRows {
  numbers: Float64Array = new Float64Array(FIRST_ROWS * NUMBERS);
  words: Int32Array = new Int32Array(FIRST_ROWS * WORDS);
  used = 0;

  /** Room for one more row; false: `most` are in use. */
  grow(most: number): boolean {
    if (this.used < this.numbers.length / NUMBERS) return true;
    if (this.used >= most) return false;
    const rows = Math.min(most, this.used * 2);
    const numbers = new Float64Array(rows * NUMBERS);
    numbers.set(this.numbers);
    this.numbers = numbers;
    const words = new Int32Array(rows * WORDS);
    words.set(this.words);
    this.words = words;
    return true;
  }
}

/** What `iommu:map` events mapped and no event has named a device for yet, as columns. */
export interface UnattributedPieces {
  readonly used: number;
  isLive(piece: number): boolean;
  /** Pages of 4 KiB. */
  readonly page: Float64Array;
  readonly pages: Float64Array;
  readonly phys: Float64Array;
  readonly startNs: Float64Array;
  readonly cpu: Uint16Array;
  readonly pid: Int32Array;
  readonly task: Uint32Array;
  readonly type: Uint16Array;
  readonly site: Uint32Array;
}

/** Mappings without a device, as far as they are not yet told as ended. */
export interface Unattributed {
  pieces(): UnattributedPieces;
  /** Of those, which `iommu:unmap` took each, although nobody has said so by name yet. */
  takenBy(): ReadonlyMap<number, Place>;
}

export class RecordedAddresses implements AddressHistory {
  readonly #table: LifetimeTable;
  readonly #now: Place;
  readonly #unattributed: Unattributed;
  readonly #history: History;
  readonly #ring = new EndedRows();
  #next = 0;

  /**
   * `now` is the event at hand, read when a mapping ends; `history` the last end of each address; `unattributed` what no event has named a
   * device for.
   */
  constructor(table: LifetimeTable, now: Place, history: History, unattributed: Unattributed) {
    this.#table = table;
    this.#now = now;
    this.#history = history;
    this.#unattributed = unattributed;
  }

  /** Remembers that `row` of `table` has ended. */
  lifetime(table: LifetimeTable, row: number): void {
    const endNs = table.endNs[row]!;
    if (endNs < 0) return; // it is live: the table has it
    const at = this.#place();
    const { numbers, words } = this.#ring;
    const n = at * NUMBERS;
    const seen = table.startNs[row]! >= 0;
    const now = this.#now;
    // Taken back by an event before this one: that one is not remembered.
    const named = endNs === now.timeNs;
    numbers[n + IOVA] = table.iova[row]!;
    numbers[n + LENGTH] = table.reserved[row]!;
    numbers[n + PHYS] = table.phys[row]!;
    numbers[n + START_NS] = table.startNs[row]!;
    numbers[n + END_NS] = endNs;
    numbers[n + BEGAN_AT] = seen ? table.cpu[row]! * 65536 + table.type[row]! : -1;
    numbers[n + ENDED_AT] = named ? now.cpu * 65536 + now.type : -1;
    numbers[n + DEVICE] = table.device[row]!;
    numbers[n + KIND] = table.kind[row]!;
    numbers[n + SITES] = (table.site[row]! & 0xf_ffff) * 2 ** 20 + (now.site & 0xf_ffff);
    const w = at * WORDS;
    words[w] = table.task[row]!;
    words[w + 1] = table.pid[row]!;
    words[w + 2] = now.task;
    words[w + 3] = now.pid;
    words[w + 4] = table.direction[row]!;
  }

  /** A row of the ring: a free one, or the oldest. */
  #place(): number {
    const ring = this.#ring;
    if (ring.grow(RING_ROWS)) return ring.used++;
    const at = this.#next;
    this.#next = (at + 1) % RING_ROWS;
    return at;
  }

  survey(question: Question): Survey {
    const finder = new Finder(question);
    const table = this.#table;
    for (let row = 0; row < table.used; row++) {
      if (!table.isLive(row)) continue;
      const rank = finder.look(
        table.device[row]!,
        table.iova[row]!,
        table.reserved[row]!,
        table.phys[row]!,
        table.startNs[row]!,
        table.endNs[row]!,
      );
      if (rank !== 0) finder.take(rank, () => this.#liveHolder(row));
    }
    const pieces = this.#unattributed.pieces();
    const taken = this.#unattributed.takenBy();
    for (let piece = 0; piece < pieces.used; piece++) {
      if (!pieces.isLive(piece)) continue;
      const [iova, length] = [pieces.page[piece]! * PAGE_SIZE, pieces.pages[piece]! * PAGE_SIZE];
      const rank = finder.look(
        NO_DEVICE,
        iova,
        length,
        pieces.phys[piece]!,
        pieces.startNs[piece]!,
        taken.get(piece)?.timeNs ?? -1,
      );
      if (rank !== 0) finder.take(rank, () => pieceHolder(pieces, piece, taken.get(piece)));
    }
    const ring = this.#ring;
    const { numbers } = ring;
    for (let row = 0, n = 0; row < ring.used; row++, n += NUMBERS) {
      const rank = finder.look(
        numbers[n + DEVICE]!,
        numbers[n + IOVA]!,
        numbers[n + LENGTH]!,
        numbers[n + PHYS]!,
        numbers[n + START_NS]!,
        numbers[n + END_NS]!,
      );
      if (rank !== 0) finder.take(rank, () => ringHolder(ring, row));
    }
    this.#surveyHistory(finder, question);
    return finder.survey();
  }

  /**
   * The last ends of addresses: those that the ring still has say nothing new, and are passed over as equals. An end may be one
   * without a mapping, or of an unknown beginning: it says that something ended, never that something was live before.
   */
  #surveyHistory(finder: Finder, { timeNs, toleranceNs }: Question): void {
    const history = this.#history;
    const untilNs = timeNs === undefined ? Number.POSITIVE_INFINITY : timeNs + toleranceNs;
    for (let nth = 0; nth < history.count; nth++) {
      const i = history.indexAt(nth);
      const space = history.spaceOf(i);
      if (space > NO_DEVICE) continue; // a list's or a range's, by something else than its address
      if (history.startNsOf(i) < 0 || history.endNsOf(i) > untilNs) continue;
      const rank = finder.look(
        space,
        history.iovaOf(i),
        history.lengthOf(i),
        -1,
        history.startNsOf(i),
        history.endNsOf(i),
      );
      if ((rank & ~LIVE) !== 0) finder.take(rank & ~LIVE, () => historyHolder(history, i));
    }
  }

  #liveHolder(row: number): Holder {
    const table = this.#table;
    const startNs = table.startNs[row]!;
    return {
      device: table.device[row]!,
      kind: table.kind[row]!,
      iova: table.iova[row]!,
      length: table.reserved[row]!,
      direction: table.direction[row]!,
      phys: table.phys[row]!,
      startNs,
      endNs: table.endNs[row]!,
      began:
        startNs < 0
          ? undefined
          : {
              timeNs: startNs,
              cpu: table.cpu[row]!,
              pid: table.pid[row]!,
              task: table.task[row]!,
              type: table.type[row]!,
              site: table.site[row]!,
            },
      ended: undefined,
      unsynced: table.kind[row] === TWO_STEP ? table.unsynced[row]! : 0,
      linkedEnd: table.kind[row] === TWO_STEP ? table.linkedEnd[row]! : table.reserved[row]!,
    };
  }
}

/** One `iommu:map`: which way the data go no event says. */
function pieceHolder(pieces: UnattributedPieces, piece: number, taken: Place | undefined): Holder {
  const length = pieces.pages[piece]! * PAGE_SIZE;
  const startNs = pieces.startNs[piece]!;
  const [cpu, pid, task, type] = [pieces.cpu[piece]!, pieces.pid[piece]!, pieces.task[piece]!, pieces.type[piece]!];
  return {
    device: NO_DEVICE,
    kind: UNATTRIBUTED,
    iova: pieces.page[piece]! * PAGE_SIZE,
    length,
    direction: NO_DIRECTION,
    phys: pieces.phys[piece]!,
    startNs,
    endNs: taken?.timeNs ?? -1,
    began: { timeNs: startNs, cpu, pid, task, type, site: pieces.site[piece]! },
    // The object is used again.
    ended: taken && {
      timeNs: taken.timeNs,
      cpu: taken.cpu,
      pid: taken.pid,
      task: taken.task,
      type: taken.type,
      site: taken.site,
    },
    unsynced: 0,
    linkedEnd: length,
  };
}

/** Kind of what only `iommu:map` events show: an index into KINDS. */
const UNATTRIBUTED = 4;

/** What the ledger remembers of an address: when and by whom, not in which direction. */
function historyHolder(history: History, index: number): Holder {
  const began = history.startOf(index);
  const ended = history.endOf(index);
  const length = history.lengthOf(index);
  return {
    device: history.spaceOf(index),
    kind: 0,
    iova: history.iovaOf(index),
    length,
    direction: NO_DIRECTION,
    phys: -1,
    startNs: began?.timeNs ?? -1,
    endNs: ended.timeNs,
    began,
    ended,
    unsynced: 0,
    linkedEnd: length,
  };
}

function ringHolder({ numbers, words }: EndedRows, row: number): Holder {
  const n = row * NUMBERS;
  const w = row * WORDS;
  const sites = numbers[n + SITES]!;
  const place = (timeNs: number, packed: number, task: number, pid: number, site: number): Place | undefined =>
    packed < 0
      ? undefined
      : { timeNs, cpu: Math.floor(packed / 65536), type: packed % 65536, pid, task: task >>> 0, site };
  return {
    device: numbers[n + DEVICE]!,
    kind: numbers[n + KIND]!,
    iova: numbers[n + IOVA]!,
    length: numbers[n + LENGTH]!,
    direction: words[w + 4]!,
    phys: numbers[n + PHYS]!,
    startNs: numbers[n + START_NS]!,
    endNs: numbers[n + END_NS]!,
    began: place(numbers[n + START_NS]!, numbers[n + BEGAN_AT]!, words[w]!, words[w + 1]!, Math.floor(sites / 2 ** 20)),
    ended: place(numbers[n + END_NS]!, numbers[n + ENDED_AT]!, words[w + 2]!, words[w + 3]!, sites % 2 ** 20),
    unsynced: 0,
    linkedEnd: numbers[n + LENGTH]!,
  };
}
