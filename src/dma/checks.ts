/** What no mapping and no device can be asked for: numbers that they cannot have, and options that are none. */
import type { PhysAddr } from "../base/index.ts";
import type { AddressSpace } from "../iommu/index.ts";
import { ALL_ADDRESSES, type DeviceOptions } from "./device.ts";
import {
  badAddress,
  badColumns,
  badDomain,
  badLength,
  badLimit,
  badList,
  badOptions,
  badPhysOffset,
  badPiece,
} from "./errors.ts";
import type { PhysColumns, PhysVec } from "./vectors.ts";

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

/** A list, or columns: how many pieces it has. @throws DmaError ERR_DMA_LENGTH (EINVAL) */
export function checkPieces(pieces: readonly PhysVec[] | PhysColumns): number {
  if (Array.isArray(pieces)) return pieces.length;
  const columns = pieces as PhysColumns | null | undefined;
  if (!(columns?.phys instanceof Float64Array)) throw badList(pieces);
  const { phys, length, count = phys.length } = columns;
  const isLong = typeof length === "number" || (length instanceof Float64Array && length.length >= count);
  if (!(isLong && Number.isInteger(count) && count >= 0 && count <= phys.length)) throw badColumns(columns);
  return count;
}

/** The same pieces as objects. */
export function piecesOf(pieces: readonly PhysVec[] | PhysColumns): readonly PhysVec[] {
  if (Array.isArray(pieces)) return pieces;
  const count = checkPieces(pieces);
  const { phys, length } = pieces as PhysColumns;
  return Array.from({ length: count }, (_, i) => ({
    phys: phys[i] as PhysAddr,
    length: typeof length === "number" ? length : length[i]!,
  }));
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
