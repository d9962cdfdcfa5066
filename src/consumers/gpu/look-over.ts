/**
 * A look over what a walk found, before anything is mapped: which pages are in devices, of whom, and whether they may be mixed.
 *
 * Promises: refuses before anything has changed.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { HMM, type PfnWords } from "../hmm/index.ts";
import type { BackingOptions, DevicePlace } from "./backing.ts";
import { mixedPlaces, peerPage, unreachablePlace } from "./errors.ts";

/** What each page of a walk is: NaN a page of the system, else the GPU's page for a page of a device. */
interface Looked {
  readonly targets: Float64Array;
  /** Pages of devices among them. */
  readonly devicePages: number;
}

/** @throws DmaError ERR_DMA_GPU_MIXED, ERR_DMA_GPU_PEER (EOPNOTSUPP), ERR_DMA_GPU_PLACE (EFAULT) */
export function lookOver(options: BackingOptions, first: number, found: PfnWords): Looked {
  const { memory, placeOf, allowMixed, allowPeers } = options;
  const targets = new Float64Array(found.count).fill(Number.NaN);
  let devicePages = 0;
  let systemPages = 0;
  let one: DevicePlace | undefined;
  const addressOf = (i: number): number => options.start + (first + i) * PAGE_SIZE;
  for (let i = 0; i < found.count; i++) {
    if (!found.has(i, HMM.valid)) continue;
    const page = found.page(i);
    const kind = memory.pages.kindOf(page);
    if (kind === "peer" && !allowPeers) throw peerPage(addressOf(i));
    if (kind !== "device-private" && kind !== "device-coherent") {
      systemPages++;
      continue;
    }
    const place = placeOf?.(page);
    if (kind === "device-coherent" && !place) {
      systemPages++; // the CPU's bus leads there: it is mapped like any memory
      continue;
    }
    if (place?.target === undefined) throw unreachablePlace(addressOf(i));
    if (one && place.provider !== one.provider) throw mixedPlaces(addressOf(i), "pages of several devices");
    if (one && place.allocation !== one.allocation && !allowMixed)
      throw mixedPlaces(addressOf(i), "several allocations, and mixing is not allowed");
    one = place;
    targets[i] = place.target;
    devicePages++;
  }
  if (devicePages > 0 && systemPages > 0 && !allowMixed)
    throw mixedPlaces(addressOf(0), "system and device, and mixing is not allowed");
  return { targets, devicePages };
}
