/**
 * Sets of address ranges up to 2^64 - 1: sorted lists of areas, overlapping reservations, and the search for free addresses.
 *
 * Idea: ends are inclusive, so that the last address of all needs no special care. The search is the kernel's: first fit, in
 * the allowed windows, aligned as the memory is, so that equal histories give equal addresses.
 * Specified by: behaviour of Linux 7.2 (iopt_alloc_iova); judged by test/golden/iommufd.
 */
import type { IovaSpan } from "./hardware.ts";

/** Last of all addresses. */
export const LAST_IOVA: bigint = 2n ** 64n - 1n;

/** A chunk has no more ranges than this; two halves take the place of a full one. */
const CHUNK = 512;

/** Disjoint ranges in order, in chunks. Cost: two binary searches; a change moves one chunk's ranges at most. */
export class SortedRanges<Range extends IovaSpan> {
  readonly #chunks: Range[][] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  *[Symbol.iterator](): IterableIterator<Range> {
    for (const chunk of this.#chunks) yield* chunk;
  }

  /** The first range that ends at `iova` or above. */
  from(iova: bigint): Range | undefined {
    const chunk = this.#chunks[this.#chunkFrom(iova)];
    return chunk?.[indexFrom(chunk, iova)];
  }

  /** The first range that meets [first, last]. */
  firstIn(first: bigint, last: bigint): Range | undefined {
    const range = this.from(first);
    return range && range.first <= last ? range : undefined;
  }

  insert(range: Range): void {
    const chunks = this.#chunks;
    const at = Math.min(this.#chunkFrom(range.first), Math.max(0, chunks.length - 1));
    const chunk = chunks[at];
    this.#length++;
    if (!chunk) {
      chunks.push([range]);
      return;
    }
    chunk.splice(indexFrom(chunk, range.first), 0, range);
    if (chunk.length >= CHUNK) chunks.splice(at + 1, 0, chunk.splice(CHUNK / 2));
  }

  /** Takes out the range that begins where `range` does. */
  remove(range: Range): void {
    const at = this.#chunkFrom(range.first);
    const chunk = this.#chunks[at]!;
    chunk.splice(indexFrom(chunk, range.first), 1);
    if (chunk.length === 0) this.#chunks.splice(at, 1);
    this.#length--;
  }

  /** The first chunk whose last range ends at `iova` or above. */
  #chunkFrom(iova: bigint): number {
    const chunks = this.#chunks;
    let low = 0;
    let high = chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (chunks[middle]!.at(-1)!.last < iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The first range of a chunk that ends at `iova` or above. */
function indexFrom(chunk: readonly IovaSpan[], iova: bigint): number {
  let low = 0;
  let high = chunk.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (chunk[middle]!.last < iova) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A range that must not be used, and on whose behalf. */
interface Reservation extends IovaSpan {
  readonly owner: object | undefined;
}

/** Reservations; they may overlap. There are few. */
export class Reservations {
  #all: Reservation[] = [];

  add(first: bigint, last: bigint, owner: object | undefined): void {
    const at = this.#all.findIndex((each) => each.first > first);
    this.#all.splice(at < 0 ? this.#all.length : at, 0, { first, last, owner });
  }

  /** Those of one owner go. */
  removeOf(owner: object): void {
    this.#all = this.#all.filter((each) => each.owner !== owner);
  }

  meets(first: bigint, last: bigint): boolean {
    return this.#all.some((each) => each.first <= last && each.last >= first);
  }

  /** The end of a reservation that holds `iova`, as far as others go on from it; undefined: none does. */
  endAt(iova: bigint): bigint | undefined {
    let end: bigint | undefined;
    for (const each of this.#all)
      if (each.first <= (end === undefined ? iova : end) && each.last >= iova && (end === undefined || each.last > end))
        end = each.last;
    return end;
  }

  /** The first reserved address from `iova` on. */
  nextFrom(iova: bigint): bigint | undefined {
    let next: bigint | undefined;
    for (const { first, last } of this.#all) {
      if (last < iova) continue;
      const at = first < iova ? iova : first;
      if (next === undefined || at < next) next = at;
    }
    return next;
  }

  /** What is not reserved, in order. */
  holes(): IovaSpan[] {
    const holes: IovaSpan[] = [];
    let at = 0n;
    for (const { first, last } of this.#all) {
      if (first > at) holes.push({ first: at, last: first - 1n });
      if (last >= at) at = last + 1n;
    }
    if (at <= LAST_IOVA) holes.push({ first: at, last: LAST_IOVA });
    return holes;
  }
}

/** Largest alignment that is tried for: a huge page. */
const MOST_ALIGNMENT = 2n ** 21n;

/** The alignment at which memory at `address` can have large leaves. */
export function idealAlignment(address: bigint, length: bigint): bigint {
  let alignment = 1n;
  while (alignment < length && alignment < MOST_ALIGNMENT) alignment <<= 1n;
  const lowest = address === 0n ? MOST_ALIGNMENT : address & -address;
  return alignment < lowest ? alignment : lowest;
}

/** `start` moved up to the alignment and offset, if `length` fits before `last`. */
function fitted(start: bigint, last: bigint, length: bigint, alignment: bigint, offset: bigint): bigint | undefined {
  const up = start + alignment - 1n;
  if (up > LAST_IOVA) return undefined;
  const aligned = (up & -alignment) | offset;
  return aligned >= last || last - aligned < length - 1n ? undefined : aligned;
}

/** Where to look for free addresses. */
interface SearchSpace {
  readonly areas: SortedRanges<IovaSpan>;
  readonly reserved: Reservations;
  /** Windows; none: everything but the first page and the last addresses. */
  readonly allowed: SortedRanges<IovaSpan>;
}

const FIRST_SEARCHED = 4096n;
const LAST_SEARCHED = LAST_IOVA - 4096n;

/** The lowest free address for `length` bytes of memory at byte `address` of its own; undefined: there is none. */
export function findFree(space: SearchSpace, address: bigint, length: bigint, alignment: bigint): bigint | undefined {
  const offset = address % 4096n;
  const windows = space.allowed.length > 0 ? space.allowed : [{ first: FIRST_SEARCHED, last: LAST_SEARCHED }];
  for (const window of windows) {
    const first = window.first < FIRST_SEARCHED ? FIRST_SEARCHED : window.first;
    const last = window.last > LAST_SEARCHED ? LAST_SEARCHED : window.last;
    if (first > last) continue;
    const start = fitted(first, last, length, alignment, offset);
    if (start === undefined) continue;
    const found = findGap(space, start, last, length, alignment, offset);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The same within [first, last]: gap by gap between areas and reservations. */
function findGap(
  { areas, reserved }: SearchSpace,
  first: bigint,
  last: bigint,
  length: bigint,
  alignment: bigint,
  offset: bigint,
): bigint | undefined {
  let at = first;
  while (at <= last) {
    const area = areas.from(at);
    if (area && area.first <= at) {
      at = area.last + 1n;
      continue;
    }
    const end = reserved.endAt(at);
    if (end !== undefined) {
      at = end + 1n;
      continue;
    }
    let gapLast = area && area.first <= last ? area.first - 1n : last;
    const next = reserved.nextFrom(at);
    if (next !== undefined && next <= gapLast) gapLast = next - 1n;
    const found = fitted(at, gapLast, length, alignment, offset);
    if (found !== undefined) return found;
    at = gapLast + 1n;
  }
  return undefined;
}
