/**
 * A gigabyte whose chunks move, 10^4 times: what lies where kept by chunks, against a kind and an address for every page.
 *
 * One change replaces 64 KiB to 2 MiB by memory of another kind, and then asks for the run that some address lies in, as who maps it
 * does. By pages both are as long as the change and the run; by chunks they are not.
 */
import { type Bench, type Contender, fold, HASH } from "../../../bench/bench.ts";
import type { Random } from "../../base/index.ts";
import { ChunkIndex } from "./chunk-index.ts";

const PAGE = 4096;
const PAGES = 2 ** 18;
/** Of one gigabyte; then comes the next. */
const CHANGES = 10_000;
const LEAST = 16;
const MOST = 512;
const KINDS = 4;

/** What lies where, whoever keeps it. Pages. */
interface Keeper {
  set(first: number, pages: number, phys: number, kind: number): void;
  /** First page, pages and kind of the run that `page` lies in. */
  runAt(page: number): readonly [first: number, pages: number, kind: number];
}

class ByChunks implements Keeper {
  readonly #index = new ChunkIndex<number>();

  set(first: number, pages: number, phys: number, kind: number): void {
    this.#index.set(first * PAGE, pages * PAGE, phys * PAGE, kind);
  }

  runAt(page: number): readonly [number, number, number] {
    const { offset, length, kind } = this.#index.at(page * PAGE)!;
    return [offset / PAGE, length / PAGE, kind];
  }
}

class ByPages implements Keeper {
  readonly #kinds = new Uint8Array(PAGES);
  readonly #frames = new Float64Array(PAGES);

  set(first: number, pages: number, phys: number, kind: number): void {
    for (let i = 0; i < pages; i++) {
      this.#kinds[first + i] = kind;
      this.#frames[first + i] = phys + i;
    }
  }

  runAt(page: number): readonly [number, number, number] {
    let first = page;
    while (first > 0 && this.#goesOn(first - 1)) first--;
    let last = page;
    while (last + 1 < PAGES && this.#goesOn(last)) last++;
    return [first, last - first + 1, this.#kinds[page]!];
  }

  #goesOn(page: number): boolean {
    return this.#kinds[page] === this.#kinds[page + 1] && this.#frames[page]! + 1 === this.#frames[page + 1];
  }
}

function contender(name: string, make: () => Keeper): Contender {
  return {
    name,
    prepare: (random: Random) => {
      const changes = random.fork("changes");
      return (units) => {
        let keeper = make();
        let hash = HASH;
        for (let i = 0; i < units; i++) {
          if (i % CHANGES === 0) {
            keeper = make();
            keeper.set(0, PAGES, 2 ** 20, 0);
          }
          const pages = LEAST + changes.below(MOST - LEAST + 1);
          keeper.set(changes.below(PAGES - pages), pages, changes.below(2 ** 30), changes.below(KINDS));
          const [first, length, kind] = keeper.runAt(changes.below(PAGES));
          hash = fold(fold(fold(hash, first), length), kind);
        }
        return { units, hash };
      };
    },
  };
}

export const benches: readonly Bench[] = [
  {
    name: "1 GiB whose chunks move",
    unit: "change",
    smoke: 200,
    full: 100_000,
    contenders: [contender("chunks", () => new ByChunks()), contender("pages", () => new ByPages())],
  },
];
