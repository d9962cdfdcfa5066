/**
 * Texts of a Perfetto trace that are written once and then named by a number, per sequence of packets.
 *
 * Idea: a text gets its number when it is first used, and stands in the packet of that use. Specified by: Perfetto's InternedData.
 */
import type { ProtoWriter } from "./protobuf.ts";

/** Fields of InternedData, by what the text is. */
const KINDS = { category: 1, name: 2, argument: 3 } as const;
const ENTRY = { number: 1, text: 2 } as const;

type KindOfText = keyof typeof KINDS;

export class InternedTexts {
  readonly #numbers: Record<KindOfText, Map<string, number>> = {
    category: new Map(),
    name: new Map(),
    argument: new Map(),
  };
  /** Not written yet. */
  readonly #fresh: { readonly kind: KindOfText; readonly number: number; readonly text: string }[] = [];

  category(text: string): number {
    return this.#numberOf("category", text);
  }

  /** Of an event. */
  name(text: string): number {
    return this.#numberOf("name", text);
  }

  /** The name of an argument. */
  argument(text: string): number {
    return this.#numberOf("argument", text);
  }

  /** Writes what is new as `field` of the packet at hand, which uses it. */
  write(out: ProtoWriter, field: number): void {
    if (this.#fresh.length === 0) return;
    out.message(field, () => {
      for (const { kind, number, text } of this.#fresh)
        out.message(KINDS[kind], () => {
          out.uint(ENTRY.number, number);
          out.string(ENTRY.text, text);
        });
    });
    this.#fresh.length = 0;
  }

  #numberOf(kind: KindOfText, text: string): number {
    const numbers = this.#numbers[kind];
    const known = numbers.get(text);
    if (known !== undefined) return known;
    const number = numbers.size + 1;
    numbers.set(text, number);
    this.#fresh.push({ kind, number, text });
    return number;
  }
}
