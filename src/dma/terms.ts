/**
 * The terms of a mapping: its direction and its attributes, as the one value that every function below the public calls
 * takes.
 *
 * The public calls take them as two arguments, as Linux does; {@link termsOf} joins them, and allocates only where there
 * are attributes. A link on a plain device (coherent, trusted, not watched) is passed a direction alone, for speed.
 */
import type { DmaAttributes } from "../base/index.ts";
import type { Direction } from "./vectors.ts";

/** How memory is mapped. */
export interface Terms {
  /** Who may write. */
  readonly direction: Direction;
  /** Undefined for none. */
  readonly attributes: DmaAttributes | undefined;
}

const TO_DEVICE: Terms = { direction: "to-device", attributes: undefined };
const FROM_DEVICE: Terms = { direction: "from-device", attributes: undefined };
const BIDIRECTIONAL: Terms = { direction: "bidirectional", attributes: undefined };

/** Direction and attributes as one value: always the same ones where there are no attributes. */
export function termsOf(direction: Direction, attributes?: DmaAttributes): Terms {
  if (attributes === undefined) {
    if (direction === "to-device") return TO_DEVICE;
    if (direction === "from-device") return FROM_DEVICE;
    if (direction === "bidirectional") return BIDIRECTIONAL;
  }
  if (last.direction !== direction || last.attributes !== attributes) last = { direction, attributes };
  return last;
}

/** Whoever maps page by page says the same each time, and makes no garbage by it. */
let last: Terms = BIDIRECTIONAL;

/** The same terms with more attributes. */
export const withAttributes = ({ direction, attributes }: Terms, more: DmaAttributes): Terms => ({
  direction,
  attributes: { ...attributes, ...more },
});
