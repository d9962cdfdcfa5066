/**
 * What is replayed: the recorded requests as loads, in the order of the recording.
 *
 * Idea: a plan is a value before it is an action, so that a question (what if requests were capped, what if buffers lay in
 * huge pages) changes the plan and nothing else. Promises: what cannot be memory is left out, and counted.
 */
import { REACHED, type Request, type Requests } from "../analysis/index.ts";
import { PAGE_SIZE, PhysAddr, pagesTouched } from "../base/index.ts";
import type { Direction, PhysVec } from "../dma/index.ts";
import { checkRequestCap } from "./options.ts";
import { isLinear, type ReplayRequest } from "./request.ts";

/** Loads by their numbers; each is made when it is asked for, so that a plan of a large recording stays small. */
export interface Loads extends Iterable<ReplayRequest> {
  /** How many there are. */
  readonly length: number;
  /** Load `index`, which is there. */
  at(index: number): ReplayRequest;
}

/** What is done at each step of `order`: `i` maps load i, `~i` gives it back. */
export interface Plan {
  /** What is mapped. */
  readonly loads: Loads;
  /** Mapping and giving back, in the order of the recording. */
  readonly order: Int32Array;
  /** The replay ends these at once: the recording has no end for them because none was needed. */
  readonly atOnce: Pick<ReadonlySet<number>, "has">;
  /** When each load begins, ms from the first event; by its number. */
  readonly startMs: Float64Array;
  /** NaN for what has no end in the recording. */
  readonly endMs: Float64Array;
  /** Recorded requests that are in it. */
  readonly requests: number;
  /** Of those, live when the recording ended. */
  readonly liveAtEnd: number;
  /** Of those, never unmapped, because a direct mapping need not be. */
  readonly neverUnmapped: number;
  /** Of those, cut by the cap. */
  readonly cut: number;
  /** Recorded requests that cannot be memory, or are too long, or of no length. */
  readonly leftOut: number;
}

/** How recorded requests become a load. */
export interface PlanOptions {
  /** Requests that are not of the load; they are counted as left out. */
  readonly leaveOut?: (request: Request) => boolean;
  /** Longer requests are mapped in pieces of this, bytes, a multiple of 4096. */
  readonly requestCap?: number;
  /** Each buffer in one piece of memory, as huge pages would give it. */
  readonly hugePages?: boolean;
}

/** Where the recording does not say which way, both are moved and checked. */
const UNSAID: Direction = "bidirectional";

const LARGEST_REQUEST = 2 ** 28;
const END_OF_MEMORY = 2 ** 51;

/**
 * A trace may say anything: what cannot be memory, or would take minutes to move, is left out, and counted. So is what began before
 * the recording: nobody knows all of it.
 */
const isReplayable = ({ segments, length, startNs }: Request): boolean =>
  startNs >= 0 &&
  segments.length > 0 &&
  length <= LARGEST_REQUEST &&
  segments.every(
    (segment) => segment.length > 0 && segment.phys >= 0 && segment.phys + segment.length <= END_OF_MEMORY,
  );

/** The load of segments of physical memory. */
export function loadOf(
  segments: readonly { readonly phys: number; readonly length: number }[],
  direction: Direction,
): ReplayRequest {
  const vecs = segments.map(({ phys, length }) => ({ phys: PhysAddr(phys), length }));
  return { vecs, length: vecs.reduce((sum, vec) => sum + vec.length, 0), direction, linear: isLinear(vecs) };
}

/**
 * The load of a recording: what is replayed, in which order it begins and ends, and what is left out.
 *
 * @throws DmaError ERR_DMA_REPLAY_OPTIONS (EINVAL)
 */
export function planOf(recorded: Requests, options: PlanOptions = {}): Plan {
  const { requestCap, hugePages, leaveOut } = options;
  if (requestCap !== undefined) checkRequestCap(requestCap);
  const used = (): Generator<Request> => replayable(recorded, leaveOut);
  const place = hugePages ? inHugePages(used()) : undefined;
  const loads = new RecordedLoads(recorded, place, requestCap);
  /** By recorded request: its first load, and the one after its last. */
  const first = new Int32Array(recorded.count).fill(-1);
  const end = new Int32Array(recorded.count);
  let [requests, endless, live, cut] = [0, 0, 0, 0];
  for (const request of used()) {
    first[request.id] = loads.length;
    loads.add(request);
    end[request.id] = loads.length;
    requests++;
    if (loads.length - first[request.id]! > 1) cut++;
    if (request.endNs === undefined) endless++;
    if (request.endNs === undefined && request.translated) live++;
  }
  const { columns } = recorded;
  const [startMs, endMs] = [new Float64Array(loads.length), new Float64Array(loads.length)];
  const atOnce = new Uint8Array(loads.length);
  for (let i = 0; i < loads.length; i++) {
    const row = recorded.rowOf(loads.idOf(i));
    startMs[i] = columns.startNs[row]! / 1e6;
    endMs[i] = columns.endNs[row]! < 0 ? Number.NaN : columns.endNs[row]! / 1e6;
    if (columns.endNs[row]! < 0 && columns.reached[row] !== TRANSLATED) atOnce[i] = 1;
  }
  let steps = 0;
  for (const step of recorded.order) {
    const id = step < 0 ? ~step : step;
    if (first[id]! >= 0) steps += end[id]! - first[id]!;
  }
  const order = new Int32Array(steps);
  let next = 0;
  for (const step of recorded.order) {
    const id = step < 0 ? ~step : step;
    if (first[id]! >= 0) for (let i = first[id]!; i < end[id]!; i++) order[next++] = step < 0 ? ~i : i;
  }
  return {
    loads,
    order,
    atOnce: { has: (index) => atOnce[index] === 1 },
    startMs,
    endMs,
    requests,
    liveAtEnd: live,
    neverUnmapped: endless - live,
    cut,
    leftOut: recorded.count - requests,
  };
}

/** The first `steps` of `plan`: what they begin and the rest ends stays mapped. */
export const beginningOf = (plan: Plan, steps: number): Plan => ({ ...plan, order: plan.order.subarray(0, steps) });

type Place = (request: Request) => readonly { readonly phys: number; readonly length: number }[];

/** The number in REACHED of what an IOMMU translated. */
const TRANSLATED = REACHED.indexOf("translated");

/** Loads that are requests of a recording, or pieces of them. */
class RecordedLoads implements Loads {
  readonly #recorded: Requests;
  readonly #place: Place | undefined;
  readonly #cap: number;
  /** Request of each load, and which piece of it. */
  #ids = new Int32Array(1024);
  #pieces: Int32Array | undefined;
  length = 0;
  /** Pieces of the request that was cut last. */
  #cutId = -1;
  /** The load that was asked for last: whoever works on it asks again. */
  #lastIndex = -1;
  #last: ReplayRequest | undefined;
  #cut: readonly ReplayRequest[] = [];

  constructor(recorded: Requests, place: Place | undefined, cap: number = Number.POSITIVE_INFINITY) {
    this.#recorded = recorded;
    this.#place = place;
    this.#cap = cap;
    if (Number.isFinite(cap)) this.#pieces = new Int32Array(1024);
  }

  add({ id, length }: Request): void {
    const pieces = length <= this.#cap ? 1 : this.#cutOf(id).length;
    for (let piece = 0; piece < pieces; piece++) {
      if (this.length === this.#ids.length) {
        this.#ids = widened(this.#ids, this.length * 2);
        this.#pieces &&= widened(this.#pieces, this.length * 2);
      }
      this.#ids[this.length] = id;
      if (this.#pieces) this.#pieces[this.length] = piece;
      this.length++;
    }
  }

  idOf(index: number): number {
    return this.#ids[index]!;
  }

  at(index: number): ReplayRequest {
    if (this.#lastIndex === index) return this.#last!;
    this.#last = this.#make(index);
    this.#lastIndex = index;
    return this.#last;
  }

  #make(index: number): ReplayRequest {
    const id = this.#ids[index]!;
    const { columns } = this.#recorded;
    if (columns.length[this.#recorded.rowOf(id)]! > this.#cap) return this.#cutOf(id)[this.#pieces![index]!]!;
    return this.#whole(id);
  }

  *[Symbol.iterator](): Generator<ReplayRequest> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }

  #whole(id: number): ReplayRequest {
    const { columns } = this.#recorded;
    const row = this.#recorded.rowOf(id);
    const direction = columns.directionOf(row) ?? UNSAID;
    if (this.#place) return loadOf(this.#place(this.#recorded.at(id)), direction);
    const vecs: PhysVec[] = [];
    columns.eachSegment(row, (_iova, phys, length) => void vecs.push({ phys: PhysAddr(phys), length }));
    return { vecs, length: columns.length[row]!, direction, linear: isLinear(vecs) };
  }

  #cutOf(id: number): readonly ReplayRequest[] {
    if (this.#cutId !== id) {
      this.#cut = cut(this.#whole(id), this.#cap);
      this.#cutId = id;
    }
    return this.#cut;
  }
}

const widened = (list: Int32Array, length: number): Int32Array<ArrayBuffer> => {
  const wider = new Int32Array(length);
  wider.set(list);
  return wider;
};

function* replayable(recorded: Requests, leaveOut: PlanOptions["leaveOut"]): Generator<Request> {
  for (const request of recorded) if (isReplayable(request) && !leaveOut?.(request)) yield request;
}

/** Pages that a load touches, one of two segments twice. */
export const pagesOf = (load: ReplayRequest): number =>
  load.vecs.reduce((sum, { phys, length }) => sum + pagesTouched(phys, length), 0);

/** Pieces of at most `cap` bytes that end on pages. */
function cut({ vecs, direction }: ReplayRequest, cap: number): ReplayRequest[] {
  const loads: ReplayRequest[] = [];
  let piece: PhysVec[] = [];
  let room = 0;
  const flush = (): void => {
    if (piece.length > 0) loads.push(loadOf(piece, direction));
    piece = [];
  };
  for (const { phys, length } of vecs)
    for (let at: number = phys; at < phys + length; ) {
      if (room === 0) {
        flush();
        room = cap - (at % PAGE_SIZE);
      }
      const part = Math.min(room, phys + length - at);
      piece.push({ phys: PhysAddr(at), length: part });
      room -= part;
      at += part;
    }
  flush();
  return loads;
}

/** Where buffers would lie: apart from each other, a large one at the start of a huge page. */
const FIRST_BUFFER = 2 ** 32;
const HUGE_PAGE = 2 ** 21;

/**
 * Every buffer in one piece. Requests that begin on the same page are of one buffer, the longest of them its length.
 */
function inHugePages(requests: Iterable<Request>): Place {
  const pageOf = ({ segments }: Request): number => Math.floor(segments[0]!.phys / PAGE_SIZE);
  const bytes = new Map<number, number>();
  for (const request of requests) {
    const span = (request.segments[0]!.phys % PAGE_SIZE) + request.length;
    bytes.set(pageOf(request), Math.max(bytes.get(pageOf(request)) ?? 0, span));
  }
  const start = new Map<number, number>();
  let next = FIRST_BUFFER;
  for (const [page, length] of bytes) {
    if (length >= HUGE_PAGE) next = Math.ceil(next / HUGE_PAGE) * HUGE_PAGE;
    start.set(page, next);
    next += Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
  }
  return (request) => [
    { phys: start.get(pageOf(request))! + (request.segments[0]!.phys % PAGE_SIZE), length: request.length },
  ];
}
