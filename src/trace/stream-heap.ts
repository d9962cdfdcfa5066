/**
 * The CPUs of a recording in the order of their next events: the earliest first, at equal times in the file's order.
 *
 * Cost: logarithmic in the number of CPUs for each change of the first one.
 */
interface TimedStream {
  readonly timeNs: number;
  /** Place in the file. */
  readonly order: number;
}

export class StreamHeap<T extends TimedStream> {
  readonly #streams: T[] = [];

  get first(): T | undefined {
    return this.#streams[0];
  }

  /** The earliest but the first; `undefined` where there is one stream only. */
  get second(): T | undefined {
    const [, left, right] = this.#streams;
    return right && left && isBefore(right, left) ? right : left;
  }

  push(stream: T): void {
    const streams = this.#streams;
    let at = streams.push(stream) - 1;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!isBefore(stream, streams[parent]!)) break;
      streams[at] = streams[parent]!;
      at = parent;
    }
    streams[at] = stream;
  }

  /** The first one's time has grown. */
  firstIsLater(): void {
    const first = this.#streams[0];
    if (first) this.#sink(first);
  }

  /** Takes the first one out. */
  dropFirst(): void {
    const last = this.#streams.pop();
    if (last && this.#streams.length > 0) this.#sink(last);
  }

  /** Lets `stream` sink from the top to its place. */
  #sink(stream: T): void {
    const streams = this.#streams;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= streams.length) break;
      if (child + 1 < streams.length && isBefore(streams[child + 1]!, streams[child]!)) child++;
      if (!isBefore(streams[child]!, stream)) break;
      streams[at] = streams[child]!;
      at = child;
    }
    streams[at] = stream;
  }
}

const isBefore = (a: TimedStream, b: TimedStream): boolean =>
  a.timeNs < b.timeNs || (a.timeNs === b.timeNs && a.order < b.order);
