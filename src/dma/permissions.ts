/** What a direction allows the device to do, as page-table permissions. */
import { CACHE, MMIO, PRIVILEGED, READ, WRITE } from "../layouts/pagetable/index.ts";
import type { Direction, DmaAttributes } from "./vectors.ts";

const ACCESS: Readonly<Record<Direction, number>> = {
  bidirectional: READ | WRITE,
  "to-device": READ,
  "from-device": WRITE,
};

/**
 * The set of permission bits of a mapping.
 *
 * Anything but a direction, which only a caller without types can pass, allows nothing.
 * @param coherent whether the device's accesses look into the CPU's caches; if not, the entry must not say so either
 */
export function permissions(direction: Direction, attributes?: DmaAttributes, coherent: boolean = true): number {
  const access: number | undefined = ACCESS[direction];
  if (access === undefined) return 0;
  let prot = access;
  if (attributes?.mmio) prot |= MMIO;
  else if (coherent) prot |= CACHE;
  if (attributes?.privileged) prot |= PRIVILEGED;
  return prot;
}
