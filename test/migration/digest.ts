/** A guest as one text: memory, device, processors. Two that are equal are the same guest. */
import { createHash } from "node:crypto";
import { PAGE_SIZE } from "../../src/base/index.ts";
import type { Guest } from "./guest.ts";
import { stateOf } from "./stand.ts";

export function digestOf({ ram, place, processors }: Guest): string {
  const hash = createHash("sha256");
  const bytes = new Uint8Array(256 * PAGE_SIZE);
  for (let first = 0; first < ram.layout.pageCount; first += 256) {
    ram.read(first, bytes);
    hash.update(bytes);
  }
  return hash.update(JSON.stringify([stateOf(place.first), processors.count])).digest("hex");
}
