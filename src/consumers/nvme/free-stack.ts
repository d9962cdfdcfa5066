/**
 * Things that go round: what was given back last is taken first.
 *
 * An array that grows and never shrinks: `push` and `pop` would give its memory back and take it again for every request.
 */
export class FreeStack<T> {
  readonly #items: (T | undefined)[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  take(): T | undefined {
    return this.#count === 0 ? undefined : this.#items[--this.#count];
  }

  give(item: T): void {
    this.#items[this.#count++] = item;
  }

  clear(): void {
    this.#items.length = 0;
    this.#count = 0;
  }
}
