/**
 * Advice on regions on demand: pages are brought before the device asks.
 *
 * Specified by: behaviour of Linux 7.2 ib_advise_mr (mlx5): all pieces are checked before any work begins; failures of the work are silent.
 */
import { DmaError } from "../../base/index.ts";
import { isWritableAccess } from "../../layouts/rdma/index.ts";
import { finish } from "../../platform/index.ts";
import { badArgument, memoryReadOnly, otherDomain } from "./errors.ts";
import type { MemoryRegion, ProtectionDomain } from "./region.ts";

/** What to bring, and how. */
export interface Advice {
  /** `read`: the device may read the pages, and not write. `write`: it may write. `present`: what is there is mapped, nothing brought. */
  readonly kind: "read" | "write" | "present";
  /** In this order; all are checked before any work begins. */
  readonly pieces: readonly AdvisedPiece[];
}

/** A part of a region. */
export interface AdvisedPiece {
  /** Local key of the region. */
  readonly key: number;
  /** First byte, as the region counts. */
  readonly address: number;
  /** How many. */
  readonly length: number;
}

/** Pieces that could not be brought. @throws DmaError as `RdmaDevice.advise` */
export function advised(
  domain: ProtectionDomain,
  { kind, pieces }: Advice,
  regionOf: (key: number) => MemoryRegion,
): number {
  const regions = pieces.map(({ key, address, length }) => {
    const region = regionOf(key);
    if (!region.backing.bringSteps) throw badArgument("advice is for regions on demand only");
    if (region.domain.number !== domain.number) throw otherDomain(key, "EPERM");
    if (kind === "write" && !isWritableAccess(region.access)) throw memoryReadOnly(region.access, "EPERM");
    if (!(address >= region.virt && address + length <= region.virt + region.length && length > 0))
      throw badArgument(`a piece of ${length} bytes that is not in its region`);
    return region;
  });
  let failed = 0;
  pieces.forEach(({ address, length }, i) => {
    const how = { write: kind === "write", readOnly: kind === "read", presentOnly: kind === "present" };
    try {
      finish(regions[i]!.backing.bringSteps!(address, length, how));
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      failed++;
    }
  });
  return failed;
}
