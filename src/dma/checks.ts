/** What no mapping can be asked for: lengths and addresses that memory cannot have. */
import { badAddress, badLength } from "./errors.ts";
import type { PhysVec } from "./vectors.ts";

/** @throws DmaError ERR_DMA_LENGTH (EINVAL) */
export function checkLength(length: number): void {
  if (!(Number.isSafeInteger(length) && length > 0)) throw badLength(length);
}

/** @throws DmaError ERR_DMA_ADDRESS (EINVAL) */
export function checkAddress(phys: number): void {
  if (!(Number.isSafeInteger(phys) && phys >= 0)) throw badAddress(phys);
}

/** @throws DmaError ERR_DMA_LENGTH, ERR_DMA_ADDRESS (EINVAL) */
export function checkVec({ phys, length }: PhysVec): void {
  checkLength(length);
  checkAddress(phys);
}
