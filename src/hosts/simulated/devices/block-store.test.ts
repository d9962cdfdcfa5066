import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type BlockStore, FileStore, MemoryStore } from "./block-store.ts";

const SIZE = 40_000;

/** A file in memory, which is as long as what was written to it. */
function file() {
  let bytes = new Uint8Array(0);
  let synced = 0;
  const store = new FileStore({
    readAt: (offset, into) => {
      const part = bytes.subarray(offset, offset + into.length);
      into.set(part);
      return part.length;
    },
    writeAt: (offset, from) => {
      const grown = new Uint8Array(Math.max(bytes.length, offset + from.length));
      grown.set(bytes);
      grown.set(from, offset);
      bytes = grown;
    },
    sync: () => {
      synced++;
    },
  });
  return { store, synced: () => synced };
}

const step = fc.record({
  what: fc.constantFrom("write", "read", "discard"),
  offset: fc.nat(SIZE - 1),
  length: fc.integer({ min: 1, max: 9000 }),
  salt: fc.nat(255),
});

const stores: [string, () => BlockStore][] = [
  ["in memory", () => new MemoryStore()],
  ["in a file", () => file().store],
];
describe.each(stores)("a disk %s", (_name, make) => {
  test("reads what was written last, and zero where nothing was or it was discarded", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const store = make();
        const model = new Uint8Array(SIZE + 9000);
        for (const { what, offset, length, salt } of steps) {
          if (what === "write") {
            const bytes = Uint8Array.from({ length }, (_, i) => (i * 7 + salt) & 0xff);
            store.write(offset, bytes);
            model.set(bytes, offset);
          } else if (what === "discard") {
            store.discard(offset, length);
            model.fill(0, offset, offset + length);
          } else {
            const into = new Uint8Array(length).fill(0xee);
            store.read(offset, into);
            expect(Buffer.compare(into, model.subarray(offset, offset + length))).toBe(0);
          }
        }
        const all = new Uint8Array(model.length).fill(0xee);
        store.read(0, all);
        expect(Buffer.compare(all, model)).toBe(0);
      }),
      { numRuns: 100 },
    );
  });
});

test("a disk in memory takes room only for what was written, and gives it back", () => {
  const store = new MemoryStore();
  store.write(2 ** 40, new Uint8Array(4096));
  expect(store.chunks).toBe(1);
  store.discard(2 ** 40, 4096);
  expect(store.chunks).toBe(0);
});

test("a flush makes the file safe", () => {
  const { store, synced } = file();
  store.flush();
  expect(synced()).toBe(1);
});
