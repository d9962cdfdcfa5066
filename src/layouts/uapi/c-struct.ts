/**
 * Structures of the kernel's interface, as data: which field lies where.
 *
 * Idea: one table of fields serves packing, unpacking, and the test that asks the C compiler whether it is right.
 * Values are numbers; fields of 64 bits take safe integers, and hold anything as bigint.
 */

export interface Field {
  readonly offset: number;
  readonly bytes: 1 | 2 | 4 | 8;
}

export interface CStruct<Name extends string = string> {
  /** `struct` of the header, without the word. */
  readonly name: string;
  /** Bytes that are passed: where the kernel's structure has grown, of the first version that has these fields. */
  readonly bytes: number;
  readonly fields: Readonly<Record<Name, Field>>;
}

/** Fields by name: `[offset, bytes]`. */
export function cStruct<Name extends string>(
  name: string,
  bytes: number,
  fields: Readonly<Record<Name, readonly [number, 1 | 2 | 4 | 8]>>,
): CStruct<Name> {
  const entries = Object.entries<readonly [number, 1 | 2 | 4 | 8]>(fields).map(([field, [offset, size]]) => [
    field,
    { offset, bytes: size },
  ]);
  return { name, bytes, fields: Object.fromEntries(entries) as Record<Name, Field> };
}

/** A structure in memory. */
export class CStructValue<Name extends string> {
  readonly bytes: Uint8Array;
  readonly #fields: Readonly<Record<Name, Field>>;
  readonly #view: DataView;

  /** @param extra bytes after the structure: arrays, chains of capabilities */
  constructor(layout: CStruct<Name>, values: Partial<Record<Name, number>> = {}, extra = 0) {
    this.bytes = new Uint8Array(layout.bytes + extra);
    this.#fields = layout.fields;
    this.#view = new DataView(this.bytes.buffer);
    for (const name in values) this.set(name, values[name]!);
  }

  /** `value`: a safe integer, negative where the field is signed. */
  set(name: Name, value: number): void {
    const { offset, bytes } = this.#fields[name];
    if (bytes === 8) {
      this.#view.setUint32(offset, value % 2 ** 32, true);
      this.#view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
    } else if (bytes === 4) this.#view.setUint32(offset, value, true);
    else if (bytes === 2) this.#view.setUint16(offset, value, true);
    else this.#view.setUint8(offset, value);
  }

  setBig(name: Name, value: bigint): void {
    this.#view.setBigUint64(this.#fields[name].offset, value, true);
  }

  /** Unsigned. Of 64 bits: exact up to 2^53, the nearest double above. */
  get(name: Name): number {
    const { offset, bytes } = this.#fields[name];
    if (bytes === 8) return this.#view.getUint32(offset, true) + this.#view.getUint32(offset + 4, true) * 2 ** 32;
    if (bytes === 4) return this.#view.getUint32(offset, true);
    return bytes === 2 ? this.#view.getUint16(offset, true) : this.#view.getUint8(offset);
  }
}
