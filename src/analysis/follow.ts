/**
 * Follows a trace: passes every event to the module that follows its kind and every mapping to the sinks, and counts both.
 *
 * Idea: there is one matcher of maps and unmaps (lifetimes/), and this is the way into it: `check`, `stats`, `compare`,
 * `export` and `query` are watchers and sinks of it, so that they cannot disagree about one trace.
 * Promises: memory follows what is live at once, not the length of the trace.
 */
import { type EventBatch, LOST_EVENTS, type Trace } from "../trace/index.ts";
import { Dispatch } from "./lifetimes/dispatch.ts";
import { Ledger } from "./lifetimes/ledger.ts";
import type { LifetimeCounts, LifetimeSink } from "./lifetimes/lifetime-counts.ts";
import type { Watcher } from "./lifetimes/watcher.ts";
import { mappingSelector, type Selection } from "./selection.ts";
import type { StartState } from "./start-state.ts";

/** What a consumer wants to see of each event beside the mappings. */
export type EventVisitor = (batch: EventBatch, row: number) => void;

/** What a trace holds, in numbers: the same ones wherever they are told. */
export interface TraceCounts extends LifetimeCounts {
  /** Events of all names; marks of lost events are none. */
  readonly eventTotal: number;
  /** Events by name, most first; marks of lost events are none. */
  readonly events: Readonly<Record<string, number>>;
  /** Events that the kernel or the recorder says were lost; -1 when it only says that some were. */
  readonly lost: number;
  /** Events that lie more than a millisecond before one that stands before them: the file holds two recordings, or another order. */
  readonly wentBack: number;
  /** From the first event to the last. */
  readonly durationNs: number;
  /** Devices that events named, in that order. */
  readonly devices: readonly string[];
}

/** Who sees mappings and events while a trace is followed. */
export interface FollowOptions {
  /** Who sees every mapping once, when it ends or when the trace does. */
  readonly sinks?: readonly LifetimeSink[];
  /** Which mappings are counted and shown; all are followed. */
  readonly selection?: Selection;
  /** Sees every event, before it is followed. */
  readonly visit?: EventVisitor;
  /** Sees every batch when all its events were followed. */
  readonly afterBatch?: (batch: EventBatch) => void;
  /** What was mapped when the recording began. */
  readonly start?: StartState;
  /** Called with the number of events so far, once a batch. */
  readonly progress?: (events: number) => void;
}

/**
 * Reads all of `trace`.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function followTrace(trace: Trace, options: FollowOptions = {}): Promise<TraceCounts> {
  const follow = new Follow(trace, options);
  await follow.all();
  return follow.finish();
}

/** The same in steps, for who watches as well. */
export class Follow {
  /** The mappings that are live, and what is counted of all. */
  readonly ledger: Ledger;
  /** Takes each event to what follows its kind. */
  readonly dispatch: Dispatch;
  readonly #trace: Trace;
  readonly #options: FollowOptions;

  /** Begins with nothing read. Sinks come with the options, watchers by {@link watch}. */
  constructor(trace: Trace, options: FollowOptions) {
    this.#trace = trace;
    this.#options = options;
    this.ledger = new Ledger(options.sinks);
    this.ledger.selects = mappingSelector(options.selection, this.ledger.table.devices, trace);
    this.dispatch = new Dispatch(this.ledger, trace);
  }

  /** Has `watcher` told of what happens to lifetimes as it happens; before the first event is read, or it misses some. */
  watch(watcher: Watcher): void {
    this.ledger.watch(watcher);
  }

  /** Reads to the end. */
  async all(): Promise<void> {
    const { start, visit, afterBatch, progress } = this.#options;
    start?.seed(this.dispatch, this.ledger);
    for await (const batch of this.#trace.batches()) {
      if (visit) for (let row = 0; row < batch.count; row++) visit(batch, row);
      this.dispatch.batch(batch);
      afterBatch?.(batch);
      progress?.(this.dispatch.eventTotal);
    }
    this.dispatch.iommu.finish();
  }

  /** The trace has ended: those who watch are told, then all that is left is shown. */
  finish(): TraceCounts {
    const { ledger, dispatch } = this;
    for (const hook of ledger.hooks.finish) hook();
    ledger.finish();
    dispatch.iommu.showWaiting();
    return {
      ...ledger.counts,
      eventTotal: dispatch.eventTotal,
      events: this.#events(),
      lost: this.#trace.lost,
      wentBack: dispatch.wentBack,
      durationNs: dispatch.durationNs,
      devices: ledger.table.devices,
    };
  }

  #events(): Record<string, number> {
    const byName = new Map<string, number>();
    for (const [type, count] of this.dispatch.typeCounts.entries()) {
      const name = this.#trace.types[type]?.name;
      if (count && name !== undefined && name !== LOST_EVENTS) byName.set(name, (byName.get(name) ?? 0) + count);
    }
    return Object.fromEntries([...byName].sort((a, b) => b[1] - a[1]));
  }
}
