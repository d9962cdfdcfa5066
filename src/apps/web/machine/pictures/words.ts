/** How places are written in the machine's pictures. */
import { hex, PAGE_SIZE } from "../../../../base/index.ts";

/** A page as the address of its first byte. */
export const at = (page: number): string => hex(page * PAGE_SIZE);

/** A device without the segment that all have. */
export const short = (name: string): string => name.replace(/^0000:/, "");

/** Bytes as text where they are that, else as hex; nothing for zeros. */
export function preview(bytes: readonly number[]): string {
  const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
  if (end === 0) return "";
  const used = bytes.slice(0, end);
  return used.every((byte) => byte >= 0x20 && byte < 0x7f)
    ? `“${String.fromCharCode(...used)}”`
    : used
        .slice(0, 6)
        .map((byte) => byte.toString(16).padStart(2, "0"))
        .join(" ");
}
