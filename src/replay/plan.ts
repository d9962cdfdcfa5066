/**
 * What is replayed: the recorded requests as loads, in the order of the recording.
 *
 * Idea: a plan is a value before it is an action, so that a question (what if requests were capped, what if buffers lay in
 * huge pages) changes the plan and nothing else. Promises: what cannot be memory is left out, and counted.
 */
import type { Request, Requests } from "../analysis/index.ts";
import { PAGE_SIZE, PhysAddr, pagesTouched } from "../base/index.ts";
import type { Direction, PhysVec } from "../dma/index.ts";
import { checkRequestCap } from "./options.ts";
import { isLinear, type ReplayRequest } from "./request.ts";

/** What is done at each step of `order`: `i` maps load i, `~i` gives it back. */
export interface Plan {
  readonly loads: readonly ReplayRequest[];
  readonly order: readonly number[];
  /** The replay ends these at once: the recording has no end for them because none was needed. */
  readonly atOnce: ReadonlySet<number>;
  readonly startMs: readonly number[];
  /** `undefined` for what has no end in the recording. */
  readonly endMs: readonly (number | undefined)[];
  /** Recorded requests that are in it; those of them that were live at the end; that were never unmapped; that were cut. */
  readonly requests: number;
  readonly liveAtEnd: number;
  readonly neverUnmapped: number;
  readonly cut: number;
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
  const place = hugePages ? inHugePages(used()) : ({ segments }: Request) => segments;
  const loads: ReplayRequest[] = [];
  const startMs: number[] = [];
  const endMs: (number | undefined)[] = [];
  const atOnce = new Set<number>();
  /** By recorded request: its first load, and the one after its last. */
  const range = new Map<number, readonly [first: number, end: number]>();
  let [endless, live] = [0, 0];
  for (const request of used()) {
    const whole = loadOf(place(request), request.direction ?? UNSAID);
    const first = loads.length;
    loads.push(...(requestCap === undefined || whole.length <= requestCap ? [whole] : cut(whole, requestCap)));
    range.set(request.id, [first, loads.length]);
    if (request.endNs === undefined) endless++;
    if (request.endNs === undefined && request.translated) live++;
    for (let i = first; i < loads.length; i++) {
      startMs.push(request.startNs / 1e6);
      endMs.push(request.endNs === undefined ? undefined : request.endNs / 1e6);
      if (request.endNs === undefined && !request.translated) atOnce.add(i);
    }
  }
  const steps: number[] = [];
  for (const step of recorded.order) {
    const found = range.get(step < 0 ? ~step : step);
    if (found) for (let i = found[0]; i < found[1]; i++) steps.push(step < 0 ? ~i : i);
  }
  return {
    loads,
    order: steps,
    atOnce,
    startMs,
    endMs,
    requests: range.size,
    liveAtEnd: live,
    neverUnmapped: endless - live,
    cut: [...range.values()].filter(([first, end]) => end - first > 1).length,
    leftOut: recorded.count - range.size,
  };
}

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
function inHugePages(
  requests: Iterable<Request>,
): (request: Request) => readonly { readonly phys: number; readonly length: number }[] {
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
