/**
 * A stream of text as lines in one window of bytes.
 *
 * Promises: linear in the text, however it is cut into chunks: no byte is searched twice for a newline, and a line that
 * grows over many chunks is moved only when the window is full. Memory is the longest line and one chunk, twice.
 */
const NEWLINE = 10;

export class Lines {
  /** The window: text not read yet is in [from, to), of which [from, whole) are whole lines. */
  bytes: Uint8Array = new Uint8Array(0);
  from = 0;
  to = 0;
  whole = 0;
  /** Where the window's first byte lies in the text. */
  offset = 0;
  /** Number of the line at `from`, counted from 1. */
  line = 1;
  /** Nothing comes any more. */
  ended = false;
  readonly #chunks: AsyncIterator<Uint8Array>;

  constructor(chunks: AsyncIterator<Uint8Array>) {
    this.#chunks = chunks;
  }

  /** Appends the next chunk to the window. */
  async fill(): Promise<void> {
    const next = await this.#chunks.next();
    if (next.done) {
      this.ended = true;
      return;
    }
    const chunk = next.value;
    if (this.to + chunk.length > this.bytes.length) this.#makeRoom(chunk.length);
    this.bytes.set(chunk, this.to);
    const last = chunk.lastIndexOf(NEWLINE);
    if (last >= 0) this.whole = this.to + last + 1;
    this.to += chunk.length;
  }

  #makeRoom(length: number): void {
    const kept = this.to - this.from;
    if (kept + length > this.bytes.length || kept > this.bytes.length >>> 1) {
      const wider = new Uint8Array((kept + length) * 2);
      wider.set(this.bytes.subarray(this.from, this.to));
      this.bytes = wider;
    } else this.bytes.copyWithin(0, this.from, this.to);
    this.offset += this.from;
    this.whole = Math.max(0, this.whole - this.from);
    this.from = 0;
    this.to = kept;
  }

  /** Steps over lines without a character. */
  skipEmpty(): void {
    const { bytes, whole } = this;
    const before = this.from;
    let at = before;
    while (at < whole && bytes[at] === NEWLINE) at++;
    this.line += at - before;
    this.from = at;
  }

  /** The newline of the line that begins at `at`, which is in the whole lines. */
  endOf(at: number): number {
    return this.bytes.indexOf(NEWLINE, at);
  }

  /** Without the carriage return of a file that went through Windows. */
  textEnd(start: number, newline: number): number {
    return newline > start && this.bytes[newline - 1] === 13 ? newline - 1 : newline;
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
