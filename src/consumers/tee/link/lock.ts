/**
 * Locks for calls that wait: many readers or one writer, in the order they came.
 *
 * Promises: what was called first runs first; a call that throws gives its lock back. Not for: calls from within a locked one,
 * which would wait for themselves.
 */

interface Waiting {
  readonly isWriter: boolean;
  readonly go: () => void;
}

/** Many readers or one writer at a time. */
export class ReadWriteLock {
  #readers = 0;
  #writing = false;
  readonly #waiting: Waiting[] = [];

  /** Runs `work` together with other readers. */
  read<T>(work: () => Promise<T>): Promise<T> {
    return this.#run(false, work);
  }

  /** Runs `work` alone. */
  write<T>(work: () => Promise<T>): Promise<T> {
    return this.#run(true, work);
  }

  async #run<T>(isWriter: boolean, work: () => Promise<T>): Promise<T> {
    if (this.#waiting.length > 0 || !this.#fits(isWriter))
      await new Promise<void>((go) => void this.#waiting.push({ isWriter, go }));
    else this.#enter(isWriter);
    try {
      return await work();
    } finally {
      if (isWriter) this.#writing = false;
      else this.#readers--;
      this.#next();
    }
  }

  #fits(isWriter: boolean): boolean {
    return !this.#writing && (!isWriter || this.#readers === 0);
  }

  #enter(isWriter: boolean): void {
    if (isWriter) this.#writing = true;
    else this.#readers++;
  }

  #next(): void {
    for (let first = this.#waiting[0]; first && this.#fits(first.isWriter); first = this.#waiting[0]) {
      this.#waiting.shift();
      this.#enter(first.isWriter);
      first.go();
    }
  }
}
