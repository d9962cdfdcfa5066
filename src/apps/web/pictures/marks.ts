/**
 * Every event of a trace as a mark: when, where, and of which class. What the timeline draws for each CPU.
 *
 * Cost: 15 bytes an event. Not for: what an event says; that is read again where somebody looks at it.
 */
import { type EventBatch, known, type Meaning, type Trace } from "../../../trace/index.ts";

/** What a mark is of, in the order in which they lie on each other: the last is on top. */
export const MARKS = ["other", "unmap", "map", "link", "sync", "bounce", "flush", "fault"] as const;
type Mark = (typeof MARKS)[number];

const CLASS: Readonly<Record<Meaning, Mark>> = {
  "dma-map": "map",
  "dma-unmap": "unmap",
  "dma-alloc": "map",
  "dma-free": "unmap",
  "dma-map-list": "map",
  "dma-unmap-list": "unmap",
  "dma-sync": "sync",
  "dma-failed": "other",
  "iommu-map": "link",
  "iommu-unmap": "unmap",
  "iommu-fault": "fault",
  bounced: "bounce",
  "range-reserve": "map",
  "range-link": "link",
  "range-sync": "sync",
  "range-unlink": "unmap",
  "range-free": "unmap",
  "range-destroy": "unmap",
};
/** Events of invalidation queues, which the catalogue has no meaning for: qi_submit, tlb_flush and the like. */
const FLUSH = /qi_submit|flush|tlb_inv|iotlb/i;

const FIRST = 1 << 14;

/** Marks as columns, in the order of the file. */
export class Marks {
  count = 0;
  timeNs: Float64Array = new Float64Array(FIRST);
  kind: Uint8Array = new Uint8Array(FIRST);
  cpu: Uint16Array = new Uint16Array(FIRST);
  /** Type of the event, in the trace's `types`. */
  type: Uint32Array = new Uint32Array(FIRST);
  /** Rows in the order of time, if that is not their order. */
  #inOrder = true;
  readonly #trace: Trace;
  readonly #classOf: number[] = [];

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  /** Keeps event `row`; given to {@link readRecording} as `visit`. */
  readonly add = (batch: EventBatch, row: number): void => {
    const at = this.count++;
    if (at === this.kind.length) this.#grow();
    const type = batch.type[row]!;
    const time = batch.timeNs[row]!;
    if (at > 0 && time < this.timeNs[at - 1]!) this.#inOrder = false;
    this.timeNs[at] = time;
    this.type[at] = type;
    this.cpu[at] = batch.cpu[row]!;
    this.kind[at] = this.#classOf[type] ??= this.#classify(type);
  };

  /** Puts them in the order of time, once all are there. */
  finish(): void {
    if (this.#inOrder) return;
    const order = new Uint32Array(this.count)
      .map((_, i) => i)
      .sort((a, b) => this.timeNs[a]! - this.timeNs[b]! || a - b);
    this.timeNs = Float64Array.from(order, (row) => this.timeNs[row]!);
    this.kind = Uint8Array.from(order, (row) => this.kind[row]!);
    this.cpu = Uint16Array.from(order, (row) => this.cpu[row]!);
    this.type = Uint32Array.from(order, (row) => this.type[row]!);
  }

  /** First row at or behind `timeNs`. */
  from(timeNs: number): number {
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.timeNs[middle]! < timeNs) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #classify(type: number): number {
    const it = this.#trace.types[type]!;
    const meaning = known(it)?.meaning;
    return MARKS.indexOf(meaning ? CLASS[meaning] : FLUSH.test(it.name) ? "flush" : "other");
  }

  #grow(): void {
    const wider = <T extends Float64Array | Uint8Array | Uint16Array | Uint32Array>(column: T): T => {
      const longer = new (column.constructor as new (length: number) => T)(column.length * 2);
      longer.set(column);
      return longer;
    };
    this.timeNs = wider(this.timeNs);
    this.kind = wider(this.kind);
    this.cpu = wider(this.cpu);
    this.type = wider(this.type);
  }
}
