/** What a direction allows the device to do, as page-table permissions. */

import type { DmaAttributes } from "../../base/index.ts";
import { CACHE, MMIO, PRIVILEGED, READ, WRITE } from "../../layouts/pagetable/index.ts";
import type { Direction } from "../vectors.ts";

/**
 * The set of permission bits of a mapping.
 *
 * Anything but a direction, which only a caller without types can pass, allows nothing.
 * @param coherent whether the device's accesses look into the CPU's caches; if not, the entry must not say so either
 */
export function permissions(direction: Direction, attributes?: DmaAttributes, coherent: boolean = true): number {
  // Compared, not looked up: this is asked for every link.
  let prot: number;
  if (direction === "to-device") prot = READ;
  else if (direction === "from-device") prot = WRITE;
  else if (direction === "bidirectional") prot = READ | WRITE;
  else return 0;
  if (attributes === undefined) return coherent ? prot | CACHE : prot;
  if (attributes.mmio) prot |= MMIO;
  else if (coherent) prot |= CACHE;
  return attributes.privileged ? prot | PRIVILEGED : prot;
}
