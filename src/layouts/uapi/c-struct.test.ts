/** Structures: what is set is what is got, in the bytes that the field has and no others. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { CStructValue } from "./c-struct.ts";
import { STRUCTURES } from "./vfio-iommufd.ts";
import { MIGRATION_STRUCTURES } from "./vfio-migration.ts";

test.each([...STRUCTURES, ...MIGRATION_STRUCTURES].map((layout) => [layout.name, layout] as const))(
  "%s: fields do not overlap, lie inside, and keep their values",
  (_name, layout) => {
    const used = new Uint8Array(layout.bytes);
    for (const { offset, bytes } of Object.values(layout.fields)) {
      expect(offset % Math.min(bytes, 8)).toBe(0);
      expect(offset + bytes).toBeLessThanOrEqual(layout.bytes);
      expect(used.subarray(offset, offset + bytes).every((mark) => mark === 0)).toBe(true);
      used.fill(1, offset, offset + bytes);
    }
    for (const [name, { bytes }] of Object.entries(layout.fields))
      fc.assert(
        fc.property(fc.maxSafeNat(), (any) => {
          const value = bytes === 8 ? any : any % 2 ** (8 * bytes);
          const structure = new CStructValue(layout, { [name]: value });
          expect(structure.get(name)).toBe(value);
          for (const other of Object.keys(layout.fields)) if (other !== name) expect(structure.get(other)).toBe(0);
        }),
        { numRuns: 20 },
      );
  },
);
