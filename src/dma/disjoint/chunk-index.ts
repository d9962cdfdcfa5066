/**
 * What a range holds, by chunks: a chunk is a part of the range whose memory is contiguous and reached one way.
 *
 * Idea: a sorted list cut into blocks of a bounded size. A change touches the blocks it falls into and no others, so
 * replacing one page of a mix of millions costs what it costs in a mix of ten. Neighbouring chunks that continue each other are joined.
 * Promises: memory is O(chunks), never O(pages); the chunks never overlap; `set` over something replaces it.
 * Asked for on the Linux mailing lists, for memory regions that mix RAM and peers, and never built there.
 */

/** A part of a range that is contiguous in memory. Bytes. `kind` tells the ways apart: a provider, a direction, private or shared. */
export interface Chunk<Kind> {
  /** Where it begins in the range. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** Physical address of its first byte. */
  readonly phys: number;
  /** The way to it: chunks of different kinds are never joined. */
  readonly kind: Kind;
}

/** Chunks in a block at most; half of it after a block was cut in two. */
const BLOCK = 64;

/**
 * Which parts of an address range lie in which kind of memory: O(chunks) of memory, and a change of one chunk touches
 * its neighbours only.
 */
export class ChunkIndex<Kind> {
  readonly #blocks: Chunk<Kind>[][] = [];
  #count = 0;

  /** Chunks there are. */
  get count(): number {
    return this.#count;
  }

  /** The chunk that `offset` lies in. O(log chunks). */
  at(offset: number): Chunk<Kind> | undefined {
    const block = this.#blocks[this.#blockOf(offset)];
    const chunk = block?.[indexIn(block, offset)];
    return chunk && offset < chunk.offset + chunk.length ? chunk : undefined;
  }

  /** [offset, + length) is at `phys` now, whatever was there before. */
  set(offset: number, length: number, phys: number, kind: Kind): void {
    if (this.#setInBlock(offset, length, phys, kind)) return;
    this.clear(offset, length);
    let chunk: Chunk<Kind> = { offset, length, phys, kind };
    const before = this.at(offset - 1);
    if (before && goesOn(before, chunk)) {
      this.#remove(before.offset);
      chunk = { ...before, length: before.length + length };
    }
    const after = this.at(offset + length);
    if (after && goesOn(chunk, after)) {
      this.#remove(after.offset);
      chunk = { ...chunk, length: chunk.length + after.length };
    }
    this.#insert(chunk);
  }

  /**
   * The short way of {@link set}, and nearly always taken: what is replaced, and the neighbours that may join, are in one block. False, and
   * nothing is changed, if they are not.
   */
  #setInBlock(offset: number, length: number, phys: number, kind: Kind): boolean {
    const number = this.#blockOf(offset);
    const block = this.#blocks[number];
    if (block === undefined) return false;
    const end = offset + length;
    let first = indexIn(block, offset); // the last chunk that starts before `offset`
    if (first >= 0 && block[first]!.offset === offset) first--;
    if (first < 0 && number > 0) return false;
    let next = first + 1; // the first one that starts at `end` or later
    while (next < block.length && block[next]!.offset < end) next++;
    if (next === block.length && number + 1 < this.#blocks.length) return false;
    let start = offset;
    let at = phys;
    let left: Chunk<Kind> | undefined;
    let right: Chunk<Kind> | undefined;
    let from = first + 1;
    const before = block[first];
    if (before !== undefined && before.offset + before.length >= offset) {
      if (before.kind === kind && before.phys + offset - before.offset === phys) {
        start = before.offset;
        at = before.phys;
        from = first;
      } else if (before.offset + before.length > offset) {
        left = { offset: before.offset, length: offset - before.offset, phys: before.phys, kind: before.kind };
        from = first;
      }
    }
    let to = end;
    const last = block[next - 1];
    const after = block[next];
    if (last !== undefined && last.offset + last.length > end) {
      const over = last.offset + last.length - end;
      const restPhys = last.phys + last.length - over;
      if (last.kind === kind && restPhys === at + end - start) to += over;
      else right = { offset: end, length: over, phys: restPhys, kind: last.kind };
    } else if (after?.offset === end && after.kind === kind && after.phys === at + end - start) {
      to += after.length;
      next++;
    }
    const chunk: Chunk<Kind> = { offset: start, length: to - start, phys: at, kind };
    const pieces = left ? (right ? [left, chunk, right] : [left, chunk]) : right ? [chunk, right] : [chunk];
    block.splice(from, next - from, ...pieces);
    this.#count += pieces.length - (next - from);
    if (block.length > BLOCK) this.#blocks.splice(number + 1, 0, block.splice(BLOCK / 2));
    return true;
  }

  /** Nothing is at [offset, + length) any more; a chunk that reaches in is cut. */
  clear(offset: number, length: number): void {
    const end = offset + length;
    const first = this.at(offset);
    if (first && first.offset < offset) {
      this.#remove(first.offset);
      this.#insert({ ...first, length: offset - first.offset });
      const over = first.offset + first.length - end;
      if (over > 0) {
        this.#insert({ ...first, offset: end, length: over, phys: first.phys + end - first.offset });
        return;
      }
    }
    for (let chunk = this.#from(offset); chunk && chunk.offset < end; chunk = this.#from(offset)) {
      this.#remove(chunk.offset);
      const over = chunk.offset + chunk.length - end;
      if (over > 0) this.#insert({ ...chunk, offset: end, length: over, phys: chunk.phys + chunk.length - over });
    }
  }

  /** What lies in [offset, + length), in order, cut to it. O(log chunks) for each; what was given may be changed meanwhile. */
  *within(offset: number, length: number): Generator<Chunk<Kind>> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const chunk = this.at(at) ?? this.#from(at);
      if (chunk === undefined || chunk.offset >= end) return;
      const first = Math.max(at, chunk.offset);
      const last = Math.min(end, chunk.offset + chunk.length);
      yield { ...chunk, offset: first, length: last - first, phys: chunk.phys + first - chunk.offset };
      at = last;
    }
  }

  /** The chunks in order. */
  *[Symbol.iterator](): Generator<Chunk<Kind>> {
    for (const block of this.#blocks) yield* block;
  }

  /** The first chunk that starts at `offset` or later. */
  #from(offset: number): Chunk<Kind> | undefined {
    const number = this.#blockOf(offset);
    const block = this.#blocks[number];
    if (!block) return undefined;
    const index = indexIn(block, offset);
    if (index >= 0 && block[index]!.offset === offset) return block[index];
    return block[index + 1] ?? this.#blocks[number + 1]?.[0];
  }

  #insert(chunk: Chunk<Kind>): void {
    this.#count++;
    if (this.#blocks.length === 0) {
      this.#blocks.push([chunk]);
      return;
    }
    const number = this.#blockOf(chunk.offset);
    const block = this.#blocks[number]!;
    block.splice(indexIn(block, chunk.offset) + 1, 0, chunk);
    if (block.length > BLOCK) this.#blocks.splice(number + 1, 0, block.splice(BLOCK / 2));
  }

  #remove(offset: number): void {
    this.#count--;
    const number = this.#blockOf(offset);
    const block = this.#blocks[number]!;
    block.splice(indexIn(block, offset), 1);
    if (block.length === 0) this.#blocks.splice(number, 1);
  }

  /** The block in which a chunk at `offset` is or would be: the last one that starts at or before it. */
  #blockOf(offset: number): number {
    let low = 0;
    let high = this.#blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#blocks[middle]![0]!.offset <= offset) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
}

/** The last chunk of a block that starts at or before `offset`; -1 if none does. */
function indexIn(block: readonly Chunk<unknown>[], offset: number): number {
  let low = 0;
  let high = block.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (block[middle]!.offset <= offset) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

const goesOn = (before: Chunk<unknown>, after: Chunk<unknown>): boolean =>
  before.kind === after.kind &&
  before.offset + before.length === after.offset &&
  before.phys + before.length === after.phys;
