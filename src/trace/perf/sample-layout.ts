/**
 * Where the parts of a sample lie, and of the identity that every other record ends with.
 *
 * Idea: an event's `sample_type` fixes which parts a sample has and their order; up to the payload only the values read by
 * groups and the call chain have lengths of their own, and each says its length first.
 * Promises: never reads outside the record. Specified by: perf_event_open(2), PERF_RECORD_SAMPLE, Linux 4.1 to 7.2.
 */

const SAMPLE = {
  ip: 1 << 0,
  tid: 1 << 1,
  time: 1 << 2,
  addr: 1 << 3,
  read: 1 << 4,
  callchain: 1 << 5,
  id: 1 << 6,
  cpu: 1 << 7,
  period: 1 << 8,
  streamId: 1 << 9,
  raw: 1 << 10,
  identifier: 1 << 16,
} as const;
const READ = { enabled: 1, running: 2, id: 4, group: 8, lost: 16 } as const;

interface LayoutOptions {
  /** The tracepoint's number; -1: another kind of event. */
  readonly tracepoint: number;
  readonly sampleType: number;
  readonly readFormat: number;
  /** Records other than samples end with the identity, too. */
  readonly hasIdOnAll: boolean;
  /** The clock that was asked for; `undefined`: perf's own. */
  readonly clockid: number | undefined;
}

/** One sample, or the identity of another record, as offsets into 32-bit words. -1: it has none. */
export interface SampleParts {
  tid: number;
  time: number;
  cpu: number;
  chain: number;
  chainLength: number;
  /** Bytes of the payload, [rawStart, rawEnd) of the record's own bytes. */
  rawStart: number;
  rawEnd: number;
}

export class SampleLayout {
  readonly tracepoint: number;
  readonly clockid: number | undefined;
  readonly hasTime: boolean;
  readonly hasCpu: boolean;
  readonly hasTid: boolean;
  readonly hasIdOnAll: boolean;
  /** Words from the start of a sample's body to the id of its event; -1: it has none. */
  readonly idAt: number;
  /** Words from the end of another record to it. */
  readonly idFromEnd: number;
  readonly #has: (bit: number) => boolean;
  readonly #readFormat: number;
  /** Words from the start of a sample to its time; -1: it has none. */
  readonly #timeAt: number;

  constructor({ tracepoint, sampleType, readFormat, hasIdOnAll, clockid }: LayoutOptions) {
    this.tracepoint = tracepoint;
    this.clockid = clockid;
    this.hasIdOnAll = hasIdOnAll;
    const has = (bit: number): boolean => (sampleType & bit) !== 0;
    this.#has = has;
    this.#readFormat = readFormat;
    this.hasTime = has(SAMPLE.time);
    this.hasCpu = has(SAMPLE.cpu);
    this.hasTid = has(SAMPLE.tid);
    this.#timeAt = this.hasTime ? [SAMPLE.identifier, SAMPLE.ip, SAMPLE.tid].filter(has).length * 2 : -1;
    const before = [SAMPLE.ip, SAMPLE.tid, SAMPLE.time, SAMPLE.addr].filter(has).length * 2;
    this.idAt = has(SAMPLE.identifier) ? 0 : has(SAMPLE.id) ? before : -1;
    const behind = [SAMPLE.streamId, SAMPLE.cpu].filter(has).length * 2;
    this.idFromEnd = has(SAMPLE.identifier) ? 2 : has(SAMPLE.id) ? behind + 2 : -1;
  }

  /** Finds the parts of the sample in words [at, end) (little words first as in the file). False: it is too short. */
  find(words: Uint32Array, at: number, end: number, little: boolean, parts: SampleParts): boolean {
    const has = this.#has;
    let next = at;
    const take = (bit: number): number => {
      if (!has(bit)) return -1;
      next += 2;
      return next - 2;
    };
    take(SAMPLE.identifier);
    take(SAMPLE.ip);
    parts.tid = take(SAMPLE.tid);
    parts.time = take(SAMPLE.time);
    take(SAMPLE.addr);
    take(SAMPLE.id);
    take(SAMPLE.streamId);
    parts.cpu = take(SAMPLE.cpu);
    take(SAMPLE.period);
    parts.chain = -1;
    parts.chainLength = 0;
    parts.rawStart = parts.rawEnd = -1;
    const low = (word: number): number => words[little ? word : word + 1]!;
    if (has(SAMPLE.read)) {
      if (next + 2 > end) return false;
      const format = this.#readFormat;
      const one = 1 + ((format & READ.id) !== 0 ? 1 : 0) + ((format & READ.lost) !== 0 ? 1 : 0);
      const times = ((format & READ.enabled) !== 0 ? 1 : 0) + ((format & READ.running) !== 0 ? 1 : 0);
      const values = (format & READ.group) !== 0 ? 1 + times + low(next) * one : one + times;
      next += values * 2;
    }
    if (has(SAMPLE.callchain)) {
      if (next + 2 > end) return false;
      parts.chainLength = low(next);
      parts.chain = next + 2;
      next += 2 + parts.chainLength * 2;
    }
    if (has(SAMPLE.raw)) {
      if (next + 1 > end) return false;
      const size = words[next]!;
      parts.rawStart = (next + 1) * 4;
      parts.rawEnd = parts.rawStart + size;
      if (parts.rawEnd > end * 4) return false;
    }
    return next <= end;
  }

  /** Finds the time alone, in words from the start of the sample. */
  findTime(parts: SampleParts): void {
    parts.time = this.#timeAt;
  }

  /** Finds the identity at the end of another record. */
  findAtEnd(end: number, parts: SampleParts): void {
    const has = this.#has;
    let next = end;
    const takeBack = (bit: number): number => {
      if (!has(bit)) return -1;
      next -= 2;
      return next;
    };
    takeBack(SAMPLE.identifier);
    parts.cpu = takeBack(SAMPLE.cpu);
    takeBack(SAMPLE.streamId);
    takeBack(SAMPLE.id);
    parts.time = takeBack(SAMPLE.time);
    parts.tid = takeBack(SAMPLE.tid);
  }
}
