/**
 * Superpages: where small leaves cover what one large leaf could.
 *
 * A large leaf needs its address and its memory aligned to its size. Where memory is contiguous and aligned but the
 * addresses are not, the same memory at other addresses would do: that is counted apart.
 * Not for: judging whether the owner of the memory can unmap it in such pieces.
 */
import type { IovaPage, PhysPage } from "../base/index.ts";
import type { Mapping } from "./table-tree.ts";

/** Where small leaves cover what one large leaf could. */
export interface SuperpageAdvice {
  /** 4 KiB pages of a leaf as it is. */
  readonly leafPages: number;
  /** 4 KiB pages of a leaf as it could be. */
  readonly couldBePages: number;
  /** Large leaves that fit as things are. */
  readonly fits: number;
  /** The first of them; absent if there is none. */
  readonly first?: {
    /** Its first page of addresses. */
    readonly iova: IovaPage;
    /** Its first page of memory. */
    readonly phys: PhysPage;
  };
  /** More large leaves that would fit if the addresses were aligned as the memory is. */
  readonly misplaced: number;
}

/** For each leaf size in use, what the next larger of `leafSizes` (binary logarithms of 4 KiB pages) would gain, if anything. */
export function superpageAdvice(mappings: readonly Mapping[], leafSizes: readonly number[]): SuperpageAdvice[] {
  const advice: SuperpageAdvice[] = [];
  const sizes = leafSizes.map((lg) => 2 ** lg);
  for (const [i, leafPages] of sizes.entries()) {
    const couldBePages = sizes[i + 1];
    if (couldBePages === undefined) continue;
    let fits = 0;
    let misplaced = 0;
    let first: SuperpageAdvice["first"];
    for (const mapping of mappings) {
      if (mapping.leafPages !== leafPages) continue;
      const skipped = (couldBePages - (mapping.phys % couldBePages)) % couldBePages;
      const large = Math.floor((mapping.pages - skipped) / couldBePages);
      if (large < 1) continue;
      if ((mapping.iova + skipped) % couldBePages !== 0) misplaced += large;
      else {
        fits += large;
        first ??= { iova: (mapping.iova + skipped) as IovaPage, phys: (mapping.phys + skipped) as PhysPage };
      }
    }
    if (fits + misplaced > 0) advice.push({ leafPages, couldBePages, fits, misplaced, ...(first && { first }) });
  }
  return advice;
}
