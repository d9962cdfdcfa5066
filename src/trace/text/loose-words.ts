/** Loose fields as the words of a batch. */
import type { Columns } from "../columns.ts";
import type { EventField } from "../events.ts";
import type { StringTable } from "../string-table.ts";
import type { LooseFields } from "./loose-fields.ts";

const LOW = 0xffff_ffffn;

/** Appends the words of an event's `fields` by their loose values; an event that is one text has `text` for it. */
export function putLoose(
  columns: Columns,
  fields: readonly EventField[],
  loose: LooseFields | undefined,
  text: string,
  strings: StringTable,
): void {
  let at = columns.used;
  columns.used += fields.length * 2;
  const isOneText = fields.length === 1 && fields[0]!.name === "text" && loose?.fields[0]?.name !== "text";
  for (let i = 0; i < fields.length; i++, at += 2) {
    const value = isOneText ? text : loose!.fields[i]!.value;
    if (typeof value === "string") {
      columns.words[at] = strings.intern(value);
      columns.words[at + 1] = 0;
    } else if (typeof value === "bigint") {
      columns.words[at] = Number(value & LOW);
      columns.words[at + 1] = Number((value >> 32n) & LOW);
    } else {
      columns.grow(value.length * 2);
      columns.words[at] = columns.used;
      columns.words[at + 1] = value.length;
      for (const item of value) {
        columns.words[columns.used++] = Number(item & LOW);
        columns.words[columns.used++] = Number((item >> 32n) & LOW);
      }
    }
  }
}
