/** What no mapping and no device can be asked for: numbers that they cannot have, and options that are none. */
import type { AddressSpace } from "../iommu/index.ts";
import { ALL_ADDRESSES, type DeviceOptions } from "./device.ts";
import { badAddress, badDomain, badLength, badLimit, badList, badOptions, badPhysOffset, badPiece } from "./errors.ts";
import type { PhysVec } from "./vectors.ts";

/** @throws DmaError ERR_DMA_LENGTH (EINVAL) */
export function checkLength(length: number): void {
  if (!(Number.isSafeInteger(length) && length > 0)) throw badLength(length);
}

/** @throws DmaError ERR_DMA_ADDRESS (EINVAL) */
export function checkAddress(phys: number): void {
  if (!(Number.isSafeInteger(phys) && phys >= 0)) throw badAddress(phys);
}

/**
 * The address of a link: a whole number, 0 or more. Whether it is too high the page table decides. @throws DmaError
 * ERR_DMA_ADDRESS (EINVAL)
 */
export function checkLinkAddress(phys: number): void {
  if (!(Number.isInteger(phys) && phys >= 0)) throw badAddress(phys);
}

/** @throws DmaError ERR_DMA_LENGTH, ERR_DMA_ADDRESS (EINVAL) */
export function checkVec(vec: PhysVec): void {
  if (typeof vec !== "object" || vec === null) throw badPiece(vec);
  const { phys, length } = vec;
  checkLength(length);
  checkAddress(phys);
}

/** Of a link: whether the range has room for it is another question. @throws DmaError ERR_DMA_LENGTH (EINVAL) */
export function checkPiece(vec: PhysVec | undefined): void {
  if (typeof vec !== "object" || vec === null) throw badPiece(vec);
  if (typeof vec.length !== "number") throw badLength(vec.length);
}

/** A list, of whatever. @throws DmaError ERR_DMA_LENGTH (EINVAL) */
export function checkList(vecs: unknown): void {
  if (!Array.isArray(vecs)) throw badList(vecs);
}

/** @throws DmaError ERR_DMA_OFFSET (EINVAL) */
export function checkPhysOffset(physOffset: number): void {
  if (!(Number.isSafeInteger(physOffset) && physOffset >= 0)) throw badPhysOffset(physOffset);
}

/** @throws DmaError ERR_DMA_LIMIT (EINVAL) */
export function checkLimit(name: string, value: number): void {
  if (!(Number.isInteger(value) && value >= 0 && value <= ALL_ADDRESSES)) throw badLimit(name, value);
}

const LIMITS = ["mask", "coherentMask", "busLimit", "maxSegmentSize", "minAlignMask", "cacheLine"] as const;

/**
 * A domain in place of the options would silently be a device that is not translated.
 *
 * @throws DmaError ERR_DMA_OPTIONS, ERR_DMA_LIMIT (EINVAL)
 */
export function checkOptions(options: DeviceOptions & { readonly domain?: AddressSpace }): void {
  const isObject = typeof options === "object" && options !== null && !Array.isArray(options);
  if (!isObject || isAddressSpace(options)) throw badOptions(options);
  if (options.domain !== undefined && !isAddressSpace(options.domain)) throw badDomain(options.domain);
  for (const name of LIMITS) {
    const value = options[name];
    if (value !== undefined) checkLimit(name, value);
  }
  const { busOffset } = options; // of either sign
  if (busOffset !== undefined && !Number.isSafeInteger(busOffset)) throw badLimit("busOffset", busOffset);
}

const isAddressSpace = (value: unknown): boolean =>
  typeof value === "object" && value !== null && typeof (value as Partial<AddressSpace>).reserve === "function";
