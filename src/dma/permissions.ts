/** What a direction allows the device to do, as page-table permissions. */
import { CACHE, MMIO, PRIVILEGED, READ, WRITE } from "../layouts/pagetable/index.ts";
import type { Direction, DmaAttributes } from "./vectors.ts";

export function permissions(direction: Direction, attributes?: DmaAttributes): number {
  let prot = direction === "to-device" ? READ : direction === "from-device" ? WRITE : READ | WRITE;
  prot |= attributes?.mmio ? MMIO : CACHE;
  if (attributes?.privileged) prot |= PRIVILEGED;
  return prot;
}
