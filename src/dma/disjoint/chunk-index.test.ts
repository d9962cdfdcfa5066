import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Chunk, ChunkIndex } from "./chunk-index.ts";

/** Byte by byte: slow, and obviously right. */
class Model {
  readonly bytes: ({ phys: number; kind: string } | undefined)[] = [];

  set(offset: number, length: number, phys: number, kind: string): void {
    for (let i = 0; i < length; i++) this.bytes[offset + i] = { phys: phys + i, kind };
  }

  clear(offset: number, length: number): void {
    for (let i = 0; i < length; i++) this.bytes[offset + i] = undefined;
  }

  get chunks(): Chunk<string>[] {
    const chunks: { offset: number; length: number; phys: number; kind: string }[] = [];
    this.bytes.forEach((byte, offset) => {
      const last = chunks.at(-1);
      if (!byte) return;
      const joins = last && last.offset + last.length === offset && last.phys + last.length === byte.phys;
      if (joins && last.kind === byte.kind) last.length++;
      else chunks.push({ offset, length: 1, ...byte });
    });
    return chunks;
  }
}

const change = fc.record({
  set: fc.boolean(),
  offset: fc.nat(400),
  length: fc.integer({ min: 1, max: 60 }),
  phys: fc.nat(3).map((n) => n * 1000),
  kind: fc.constantFrom("memory", "peer"),
});

describe("an index of chunks", () => {
  test("holds exactly what was set and not cleared, in as few chunks as there are", () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 120 }), (changes) => {
        const index = new ChunkIndex<string>();
        const model = new Model();
        for (const { set, offset, length, phys, kind } of changes) {
          // Half of what is set goes on from its offset, so that chunks join.
          if (set) for (const one of [index, model]) one.set(offset, length, phys + offset, kind);
          else for (const one of [index, model]) one.clear(offset, length);
          expect([...index]).toEqual(model.chunks);
          expect(index.count).toBe(model.chunks.length);
        }
        for (let offset = 0; offset < 470; offset += 13) {
          const found = index.at(offset);
          expect(found && found.phys + offset - found.offset).toBe(model.bytes[offset]?.phys);
        }
      }),
    );
  });

  test("takes memory by chunks, not by pages: a terabyte in one place is one chunk", () => {
    const index = new ChunkIndex<string>();
    for (let at = 0; at < 2 ** 40; at += 2 ** 30) index.set(at, 2 ** 30, at, "memory");
    expect(index.count).toBe(1);
    index.set(2 ** 35, 4096, 0, "peer");
    expect([...index].map(({ kind }) => kind)).toEqual(["memory", "peer", "memory"]);
  });

  test("stays right over many blocks", () => {
    const index = new ChunkIndex<number>();
    for (let i = 0; i < 5000; i++) index.set(((i * 2741) % 5000) * 10, 10, i * 1000, i);
    expect(index.count).toBe(5000);
    expect([...index].every(({ offset }, i) => offset === i * 10)).toBe(true);
    index.clear(5, 49_990);
    expect([...index].map(({ offset, length }) => [offset, length])).toEqual([
      [0, 5],
      [49_995, 5],
    ]);
  });
});
