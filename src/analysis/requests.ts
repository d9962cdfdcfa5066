/**
 * From events to requests: which memory was mapped together for a device, and when it was given back.
 *
 * Idea: a *request* is what the kernel maps for one transfer and tears down at once. Its segments are known by, in this
 * order: the two-step probe events (`dma_iova_try_alloc` … `destroy`); a `dma:*` event that names the device, next to
 * the `iommu:map` events of the same addresses; else the `iommu:map` events that one `iommu:unmap` takes back. In a
 * trace without `iommu:*` events each `dma:*` mapping is its own request.
 *
 * Promises: nothing is guessed. A request whose device no event names is kept with device `undefined` and counted as
 * ambiguous; teardown of what was mapped before the recording began is counted apart; what is live at the end stays so.
 * Not for: judging (that is findings). Specified by: the grammar of the kernel's events (docs/traces.md).
 */
import { PAGE_SIZE } from "../base/index.ts";

export type Direction = "bidirectional" | "to-device" | "from-device";

/** One run of physical memory inside a request. Bytes. */
export interface Segment {
  readonly phys: number;
  readonly length: number;
  /** Where the kernel placed it; the device's address. */
  readonly iova: number;
}

/** How the kernel mapped it, as far as the trace shows. */
export type RequestKind = "one-shot" | "scatterlist" | "two-step" | "coherent" | "unattributed";

export interface Request {
  readonly id: number;
  /** The device that an event named; `undefined` where none did. */
  readonly device: string | undefined;
  readonly kind: RequestKind;
  /** `undefined` where no event says: only `iommu:map` events, or a range without a link. */
  readonly direction: Direction | undefined;
  readonly segments: readonly Segment[];
  /** Sum of the segments' lengths, bytes. */
  readonly length: number;
  /** Nanoseconds since the trace's time base. */
  readonly startNs: number;
  /** `undefined`: live at the end of the recording, or (direct mapping) never unmapped by the driver. */
  readonly endNs: number | undefined;
  /** An IOMMU translated it: its pages were seen in `iommu:map` events. */
  readonly translated: boolean;
}

export interface Requests {
  readonly requests: readonly Request[];
  /** The order of the recording: `id` where a request begins, `~id` where it ends. */
  readonly order: readonly number[];
  /** Teardowns of what was mapped before the recording began. */
  readonly liveAtStart: number;
  /** Requests whose device no event names. */
  readonly ambiguous: number;
  /** Ended by an `iommu:unmap` alone: the call of the DMA API that goes with it is not in the recording. They are not live. */
  readonly endUnsaid: number;
  /** `iommu:unmap` events seen: in strict mode each is one IOTLB invalidation of the kernel. */
  readonly unmapEvents: number;
  /** Of those, the ones that took nothing known back. */
  readonly unmapsOfUnseen: number;
  /** Maps over an address that was live: two domains that the events do not tell apart. */
  readonly mapsOverLive: number;
}

/** A request while it is being put together. */
interface Open {
  id: number;
  device: string | undefined;
  kind: RequestKind;
  direction: Direction | undefined;
  segments: Segment[];
  /** Known when all segments are. */
  length: number;
  startNs: number;
  endNs: number | undefined;
  translated: boolean;
}

/** One `iommu:map` event that has not been unmapped. Page numbers. */
interface Piece {
  readonly page: number;
  readonly pages: number;
  readonly phys: number;
  readonly timeNs: number;
  readonly position: number;
  request: Open | undefined;
}

const DIRECTIONS: readonly Direction[] = ["bidirectional", "to-device", "from-device"];
/** The kernel's number in words; `undefined` for what is none. */
export const directionOf = (code: number): Direction | undefined => DIRECTIONS[code];

/** Put together from events in time order; {@link finish} gives the requests. */
export class RequestBuilder {
  readonly #requests: Open[] = [];
  /** Beginnings and ends, and at the same place the position of their event, by which they are sorted at the end. */
  readonly #actions: number[] = [];
  readonly #positions: number[] = [];
  /** Live pieces by first page. More than one where two domains use the same address. */
  readonly #live = new Map<number, Piece[]>();
  #livePieces = 0;
  /** Per CPU: pieces mapped since the last event that named a device. */
  readonly #recent = new Map<number, Piece[]>();
  /** Two-step ranges by the kernel's state pointer. */
  readonly #ranges = new Map<string, Open>();
  /** Per CPU: the first page of a link whose `iommu:map` comes next, and its range. */
  readonly #linking = new Map<number, { readonly page: number; readonly range: Open }>();
  /** Mappings without pages of their own in the trace (direct, bounced): by device and address. */
  readonly #direct = new Map<string, Open[]>();
  #position = 0;
  /** Ends of mappings that were not seen to begin, by `dma:*` events alone. */
  #strayUnmaps = 0;
  /** Ends of which only one half was seen so far, the `iommu:unmap` or the free before it: by device and address. */
  readonly #halfEnds = new Map<string, number>();
  #endUnsaid = 0;
  #unmapEvents = 0;
  #unmapsOfUnseen = 0;
  #mapsOverLive = 0;
  #translates = false;

  /** `iommu:map`: `pages` from IOVA page `page` now reach `phys` (bytes). */
  map(timeNs: number, cpu: number, page: number, phys: number, pages: number): void {
    this.#translates = true;
    if (pages <= 0) return;
    const piece: Piece = { page, pages, phys, timeNs, position: this.#position++, request: undefined };
    const linking = this.#linking.get(cpu);
    if (linking?.page === page) {
      piece.request = linking.range;
      this.#linking.delete(cpu);
    }
    const stack = this.#live.get(page);
    if (stack) {
      this.#mapsOverLive++;
      stack.push(piece);
    } else this.#live.set(page, [piece]);
    this.#livePieces++;
    if (piece.request) return;
    const recent = this.#recent.get(cpu) ?? [];
    this.#recent.set(cpu, recent);
    recent.push(piece);
    if (recent.length > RECENT_LIMIT) recent.splice(0, recent.length - RECENT_LIMIT / 2);
  }

  /** `dma_map_phys` and its older names: one segment of `device`. Comes after the `iommu:map` of its pages. */
  mapped(timeNs: number, cpu: number, device: string, segment: Segment, direction: Direction | undefined): void {
    this.#named(timeNs, cpu, device, "one-shot", direction, [segment]);
  }

  /** `dma_alloc`: coherent memory of `device`; its physical runs are the pages just mapped. */
  allocated(timeNs: number, cpu: number, device: string, address: number, length: number, direction?: Direction): void {
    const pieces = this.#takeRecent(cpu, address, length);
    const segments = pieces.map((piece) => ({
      phys: piece.phys,
      length: piece.pages * PAGE_SIZE,
      iova: piece.page * PAGE_SIZE,
    }));
    // A direct mapping: the address is the memory.
    if (segments.length === 0) segments.push({ phys: address, length, iova: address });
    this.#open(timeNs, device, "coherent", direction, segments, pieces);
  }

  /** `dma_map_sg`: `segments` as the event lists them; where pages were seen, those say the physical lengths. */
  mappedList(timeNs: number, cpu: number, device: string, segments: Segment[], direction: Direction | undefined): void {
    const [first] = segments;
    if (!first) return;
    const end = segments.reduce((most, segment) => Math.max(most, segment.iova + segment.length), 0);
    const pieces = this.#takeRecent(cpu, first.iova, end - first.iova);
    const known = pieces.map((p) => ({ phys: p.phys, length: p.pages * PAGE_SIZE, iova: p.page * PAGE_SIZE }));
    this.#open(timeNs, device, "scatterlist", direction, known.length > 0 ? known : segments, pieces);
  }

  /** `dma_iova_try_alloc` that succeeded. */
  reserved(timeNs: number, device: string, state: string): void {
    this.#ranges.set(state, this.#begin(timeNs, device, "two-step", undefined, this.#position++));
  }

  /** `dma_iova_link`: comes just before the `iommu:map` of its pages. */
  linked(cpu: number, state: string, segment: Segment, direction: Direction | undefined): void {
    const range = this.#ranges.get(state);
    if (!range) return;
    this.#linking.set(cpu, { page: Math.floor(segment.iova / PAGE_SIZE), range });
    range.segments.push(segment);
    range.direction = direction;
  }

  /** `dma_iova_destroy` or `free`: the unmap that follows takes its pages back. */
  released(timeNs: number, state: string): void {
    const range = this.#ranges.get(state);
    if (!range) return; // reserved before the recording began: its unmap is counted there
    this.#ranges.delete(state);
    this.#end(range, timeNs);
  }

  /** `iommu:unmap` of `pages` from `page`. */
  unmap(timeNs: number, page: number, pages: number): void {
    this.#translates = true;
    this.#unmapEvents++;
    const taken = this.#takeLive(page, pages);
    if (taken.length === 0) {
      this.#unmapsOfUnseen++;
      return;
    }
    const owners = new Set<Open>();
    const orphans: Piece[] = [];
    for (const piece of taken) {
      if (piece.request) owners.add(piece.request);
      else orphans.push(piece);
    }
    for (const owner of owners) {
      if (owner.endNs !== undefined) continue;
      this.#end(owner, timeNs);
      this.#endNamed(owner);
    }
    if (orphans.length === 0) return;
    orphans.sort((a, b) => a.page - b.page);
    this.#end(this.#fromPieces(orphans), timeNs);
  }

  /**
   * `dma_unmap_phys` and `dma_free`: ends a mapping that has no pages in the trace. Of one that has some this is one half of the
   * end, after the `iommu:unmap`, or (`announced`) before it.
   */
  unmapped(timeNs: number, device: string, address: number, announced = false): void {
    const key = `${device} ${address}`;
    this.#apiEnd(key, announced);
    const open = this.#direct.get(key);
    const last = open?.pop();
    if (open?.length === 0) this.#direct.delete(key);
    if (last) this.#end(last, timeNs);
    // With an IOMMU the iommu:unmap beside this event says it too; a free of NULL is no mapping.
    else if (address !== 0) this.#strayUnmaps++;
  }

  /** `dma_unmap_sg`, which names its list by the first piece of memory. */
  unmappedList(device: string, phys: number): void {
    this.#apiEnd(`${device} list ${Math.floor(phys / PAGE_SIZE)}`, false);
  }

  finish(): Requests {
    const left = [...this.#live.values()].flat().filter((piece) => !piece.request);
    // What one unmap would have taken together is unknown: adjacent pages mapped in sequence are one request.
    left.sort((a, b) => a.position - b.position);
    let run: Piece[] = [];
    const flush = (): void => {
      if (run.length > 0) this.#fromPieces(run);
      run = [];
    };
    for (const piece of left) {
      const previous = run.at(-1);
      if (previous && previous.page + previous.pages !== piece.page) flush();
      run.push(piece);
    }
    flush();
    const requests = this.#requests;
    for (const request of requests) request.length = request.segments.reduce((sum, { length }) => sum + length, 0);
    const [actions, positions] = [this.#actions, this.#positions];
    const sorted = Uint32Array.from(actions, (_, i) => i).sort((a, b) => positions[a]! - positions[b]! || a - b);
    return {
      requests,
      order: Array.from(sorted, (at) => actions[at]!),
      liveAtStart: this.#translates ? this.#unmapsOfUnseen : this.#strayUnmaps,
      ambiguous: requests.filter((request) => request.device === undefined).length,
      endUnsaid: this.#endUnsaid,
      unmapEvents: this.#unmapEvents,
      unmapsOfUnseen: this.#unmapsOfUnseen,
      mapsOverLive: this.#mapsOverLive,
    };
  }

  #named(
    timeNs: number,
    cpu: number,
    device: string,
    kind: RequestKind,
    direction: Direction | undefined,
    segments: Segment[],
  ): void {
    const first = segments[0]!;
    this.#open(timeNs, device, kind, direction, segments, this.#takeRecent(cpu, first.iova, first.length));
  }

  #open(
    timeNs: number,
    device: string,
    kind: RequestKind,
    direction: Direction | undefined,
    segments: Segment[],
    pieces: Piece[],
  ): void {
    const position = pieces[0]?.position ?? this.#position++;
    const request = this.#begin(timeNs, device, kind, direction, position);
    request.segments.push(...segments);
    for (const piece of pieces) piece.request = request;
    if (pieces.length > 0) {
      request.translated = true;
      return;
    }
    const key = `${device} ${segments[0]!.iova}`;
    const same = this.#direct.get(key);
    if (same) same.push(request);
    else this.#direct.set(key, [request]);
  }

  /** A request that only `iommu:map` events show. */
  #fromPieces(pieces: Piece[]): Open {
    const first = pieces.reduce((a, b) => (a.position < b.position ? a : b));
    const request = this.#begin(first.timeNs, undefined, "unattributed", undefined, first.position);
    request.translated = true;
    for (const piece of pieces) {
      piece.request = request;
      request.segments.push({ phys: piece.phys, length: piece.pages * PAGE_SIZE, iova: piece.page * PAGE_SIZE });
    }
    return request;
  }

  #begin(
    timeNs: number,
    device: string | undefined,
    kind: RequestKind,
    direction: Direction | undefined,
    position: number,
  ): Open {
    const request: Open = {
      id: this.#requests.length,
      device,
      kind,
      direction,
      segments: [],
      length: 0,
      startNs: timeNs,
      endNs: undefined,
      translated: kind === "two-step",
    };
    this.#requests.push(request);
    this.#note(position, request.id);
    return request;
  }

  #end(request: Open, timeNs: number): void {
    request.endNs = timeNs;
    this.#note(this.#position++, ~request.id);
  }

  /** The pages of `request` were taken back: who asked for it is said before (a free) or after (an unmap). */
  #endNamed({ kind, device, segments }: Open): void {
    const first = segments[0];
    if (first === undefined || kind === "two-step" || kind === "unattributed") return;
    const key =
      kind === "scatterlist" ? `${device} list ${Math.floor(first.phys / PAGE_SIZE)}` : `${device} ${first.iova}`;
    if (kind === "coherent" && this.#halfEnds.delete(key)) return;
    this.#endUnsaid++;
    if (kind !== "coherent") this.#halfEnds.set(key, (this.#halfEnds.get(key) ?? 0) + 1);
  }

  #apiEnd(key: string, announced: boolean): void {
    if (announced) {
      if (this.#translates) this.#halfEnds.set(key, 1);
      return;
    }
    const half = this.#halfEnds.get(key);
    if (half === undefined) return;
    this.#endUnsaid--;
    if (half === 1) this.#halfEnds.delete(key);
    else this.#halfEnds.set(key, half - 1);
  }

  #note(position: number, action: number): void {
    this.#positions.push(position);
    this.#actions.push(action);
  }

  /** The pieces just mapped on `cpu` that lie in [address, address + length), and no longer waiting for a name. */
  #takeRecent(cpu: number, address: number, length: number): Piece[] {
    const recent = this.#recent.get(cpu);
    if (!recent) return [];
    const first = Math.floor(address / PAGE_SIZE);
    const end = Math.ceil((address + Math.max(length, 1)) / PAGE_SIZE);
    const inside = recent.filter((piece) => !piece.request && piece.page >= first && piece.page + piece.pages <= end);
    if (inside.length > 0) this.#recent.set(cpu, []);
    return inside.sort((a, b) => a.page - b.page);
  }

  /** Removes and gives the newest live piece at each place of [page, page + pages). */
  #takeLive(page: number, pages: number): Piece[] {
    const taken: Piece[] = [];
    const take = (at: number): Piece | undefined => {
      const stack = this.#live.get(at);
      const piece = stack?.pop();
      if (stack?.length === 0) this.#live.delete(at);
      if (piece) {
        this.#livePieces--;
        taken.push(piece);
      }
      return piece;
    };
    if (pages > this.#livePieces * 8) {
      // A huge range over few pieces: look at those instead of at every page.
      for (const at of [...this.#live.keys()]) if (at >= page && at < page + pages) take(at);
      return taken;
    }
    for (let at = page; at < page + pages; ) at += take(at)?.pages ?? 1;
    return taken;
  }
}

/** Pieces per CPU that may wait for the event that names their device: a coherent allocation of 4 MiB in single pages. */
const RECENT_LIMIT = 2048;
