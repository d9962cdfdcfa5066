/**
 * Checks of two-step ranges, which Linux does not look at: 24 link outside state, 25 unlink of a hole, 26 destroy with a
 * wrong length; and what 27 and 28 need to know: which pieces are linked, and which of them the device may use.
 *
 * Idea: each range keeps its pieces in order; a sync or an unlink of a part of one cuts it.
 */
import { hex, type MisuseCode } from "../base/index.ts";
import { ATTRIBUTE_BITS, attributeBits, type Terms } from "../dma/index.ts";
import type { DebugStore } from "./debug-store.ts";
import type { FindingSite } from "./finding.ts";
import type { Live } from "./live.ts";
import type { MappingChecks } from "./mapping-checks.ts";
import type { LinkedPiece, LiveRange } from "./records.ts";

/** Attributes that decide what unlinking must do. */
const COMPARED = ATTRIBUTE_BITS.mmio | ATTRIBUTE_BITS.skipCpuSync;

export class RangeChecks {
  readonly #store: DebugStore;
  readonly #owner: Live;
  readonly #checks: MappingChecks;

  constructor(facility: DebugStore, owner: Live, checks: MappingChecks) {
    this.#store = facility;
    this.#owner = owner;
    this.#checks = checks;
  }

  /** `capacity` bytes from `address` are reserved. */
  reserved(address: number, capacity: number): LiveRange {
    const facility = this.#store;
    facility.tick();
    const range: LiveRange = {
      device: this.#owner.device,
      address,
      capacity,
      pieces: [],
      site: facility.site(),
      call: facility.calls,
      order: facility.nextOrder(),
      timeMs: facility.nowMs,
    };
    if (facility.take(range.device.name)) this.#owner.ranges.add(range);
    return range;
  }

  /** A link is going to be made in a range of `length` bytes; over granules of `granule` bytes. */
  linking(range: LiveRange, offset: number, length: number, reserved: number, granule: number, live: boolean): void {
    let why: string | undefined;
    if (!live) why = "which was given back";
    else if (!(offset >= 0 && offset + length <= reserved)) why = `which has ${reserved} bytes`;
    const start = Math.floor((range.address + offset) / granule) * granule - range.address;
    const end = Math.ceil((range.address + offset + length) / granule) * granule - range.address;
    const next = why === undefined ? range.pieces[firstEndingAfter(range, start)] : undefined;
    const other = next !== undefined && next.offset < end ? next : undefined;
    if (other) why = `over ${other.length} bytes linked at offset ${other.offset}`;
    if (why === undefined) return;
    this.#report(
      "link-outside-state",
      range,
      `links ${length} bytes at offset ${offset} of the range at ${hex(range.address)}, ${why}`,
      { address: range.address, offset, length, reserved },
      "linked at",
      other && [["first linked at", other.site]],
    );
  }

  linked(range: LiveRange, offset: number, length: number, phys: number, { direction, attributes }: Terms): void {
    const facility = this.#store;
    if (facility.disabled) return;
    facility.tick();
    const site = facility.site();
    const bits = attributeBits(attributes);
    this.#checks.memory(phys, length, bits, site);
    if (!facility.take(range.device.name)) return;
    const piece: LinkedPiece = { offset, length, phys, direction, attributes: bits, synced: false, site };
    const { pieces } = range;
    const last = pieces[pieces.length - 1];
    if (last === undefined || last.offset < offset) pieces.push(piece);
    else pieces.splice(firstEndingAfter(range, offset), 0, piece);
  }

  synced(range: LiveRange, offset: number, length: number): void {
    if (this.#store.disabled) return;
    this.#store.tick();
    this.#cut(range, offset, offset + length);
    const { pieces } = range;
    for (let i = firstEndingAfter(range, offset); i < pieces.length; i++) {
      const piece = pieces[i]!;
      if (piece.offset >= offset + length) break;
      piece.synced = true;
    }
  }

  /** [offset, + length) is going to be unlinked. */
  unlinking(range: LiveRange, offset: number, length: number, terms: Partial<Terms>): void {
    if (this.#store.disabled) return;
    const { pieces } = range;
    const first = firstEndingAfter(range, offset);
    let covered = offset;
    for (let i = first; i < pieces.length && pieces[i]!.offset <= covered && covered < offset + length; i++)
      covered = pieces[i]!.offset + pieces[i]!.length;
    const piece = pieces[first];
    const known = piece !== undefined && terms.direction !== undefined && piece.offset < offset + length;
    if (covered >= offset + length && !known) return;
    const details = { address: range.address, offset, length };
    const what = `unlinks ${length} bytes at offset ${offset} of the range at ${hex(range.address)}`;
    if (!(covered >= offset + length))
      this.#report(
        "unlink-hole",
        range,
        `${what}; from offset ${covered} on they are not linked`,
        { ...details, hole: covered },
        "unlinked at",
      );
    if (!known) return;
    const linkedAt: FindingSite[] = [["linked at", piece.site]];
    if (piece.direction !== terms.direction) {
      const message = `${what} as ${terms.direction}; they were linked as ${piece.direction}`;
      const sides = { mapped: piece.direction, unmapped: terms.direction };
      this.#report("different-direction", range, message, { ...details, ...sides }, "unlinked at", linkedAt);
    }
    const [was, is] = [piece.attributes & COMPARED, attributeBits(terms.attributes) & COMPARED];
    if (was !== is) {
      const message = `${what} with attributes ${hex(is)}; they were linked with ${hex(was)}`;
      const sides = { mapped: was, unmapped: is };
      this.#report("different-attributes", range, message, { ...details, ...sides }, "unlinked at", linkedAt);
    }
  }

  unlinked(range: LiveRange, offset: number, length: number): void {
    const facility = this.#store;
    if (facility.disabled) return;
    facility.tick();
    this.#cut(range, offset, offset + length);
    const first = firstEndingAfter(range, offset);
    const { pieces } = range;
    let end = first;
    while (end < pieces.length && pieces[end]!.offset < offset + length) end++;
    if (end === first) return;
    const [gone] = pieces.splice(first, end - first);
    facility.give(end - first);
    this.#past(range, range.address + offset, length, gone!);
  }

  /** `said` bytes are linked from the start, says the caller; over granules of `granule` bytes. */
  destroying(range: LiveRange, said: number, granule: number): void {
    const granules = (bytes: number): number => (bytes === 0 ? 0 : Math.ceil((inside + bytes) / granule));
    const inside = range.address % granule;
    let prefix = 0;
    let linked = 0;
    for (const { offset, length } of range.pieces) {
      if (granules(offset) <= granules(prefix)) prefix = offset + length;
      linked += length;
    }
    const only = range.pieces.length === 0 || prefix === range.pieces.at(-1)!.offset + range.pieces.at(-1)!.length;
    if (only && granules(prefix) === granules(said)) return;
    this.#report(
      "destroy-wrong-length",
      range,
      `destroys the range at ${hex(range.address)} as if ${said} bytes from its start were linked; ` +
        (only ? `${prefix} are` : `${prefix} are, and ${linked - prefix} further on`),
      { address: range.address, said, prefix, linked },
      "destroyed at",
      [["linked at", range.pieces[0]?.site]],
    );
  }

  destroyed(range: LiveRange): void {
    const facility = this.#store;
    if (facility.disabled || !this.#owner.ranges.delete(range)) return;
    facility.tick();
    facility.give(1 + range.pieces.length);
    if (range.pieces.length > 0) this.#past(range, range.address, range.capacity, range.pieces[0]!);
    range.pieces = [];
  }

  #past(range: LiveRange, address: number, length: number, { site }: LinkedPiece): void {
    const unmappedAt = this.#store.site();
    const order = this.#store.nextOrder();
    this.#owner.history.add({ kind: "two-step", address, length, mappedAt: site ?? range.site, unmappedAt, order });
  }

  /** Makes `start` and `end` borders between pieces. */
  #cut(range: LiveRange, start: number, end: number): void {
    for (const border of [start, end]) {
      const at = firstEndingAfter(range, border);
      const piece = range.pieces[at];
      if (piece === undefined || piece.offset >= border || !this.#store.take(range.device.name)) continue;
      const head = border - piece.offset;
      const tail = { ...piece, offset: border, phys: piece.phys + head, length: piece.length - head };
      range.pieces.splice(at, 1, { ...piece, length: head }, tail);
    }
  }

  #report(
    code: MisuseCode,
    range: LiveRange,
    message: string,
    details: Readonly<Record<string, number | string>>,
    here: string,
    before: readonly FindingSite[] = [],
  ): void {
    const sites: FindingSite[] = [["reserved at", range.site], ...before, [here, this.#store.site()]];
    this.#store.report(code, range.device.name, message, details, sites);
  }
}

/** The piece that holds `offset`. */
export function pieceAt(range: LiveRange, offset: number): LinkedPiece | undefined {
  const piece = range.pieces[firstEndingAfter(range, offset)];
  return piece && piece.offset <= offset ? piece : undefined;
}

/** Index of the first piece with a byte after `offset`. Pieces are in order; binary search. */
function firstEndingAfter({ pieces }: LiveRange, offset: number): number {
  let low = 0;
  let high = pieces.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (pieces[middle]!.offset + pieces[middle]!.length <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
