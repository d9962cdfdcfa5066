/** Which code a call chain stands for. */
import { describe, expect, test } from "vitest";
import { CallSites } from "./call-sites.ts";

const codeOf = (chain: readonly string[]): readonly string[] | undefined => {
  const sites = new CallSites();
  return sites.codeAt(sites.ofChain(1, chain));
};

describe("the code behind a chain", () => {
  test("begins above the DMA layer, IOMMU and helpers, and is named as the source names it", () => {
    expect(
      codeOf(["iommu_map_nosync", "__iommu_dma_map", "dma_map_phys", "nvme_prep_rq.part.0", "nvme_queue_rq"]),
    ).toEqual(["nvme_prep_rq", "nvme_queue_rq"]);
    expect(codeOf(["dma_iova_link", "blk_rq_dma_map_iter_start", "nvme_prep_rq.isra.0.cold"])).toEqual([
      "nvme_prep_rq",
    ]);
    expect(codeOf(["iommu_dma_map_sg", "__dma_map_sg_attrs", "dma_map_sgtable", "edu_submit_sg"])).toEqual([
      "edu_submit_sg",
    ]);
  });

  test("is the whole chain where nothing lies above", () => {
    expect(codeOf(["dma_unmap_phys"])).toEqual(["dma_unmap_phys"]);
  });

  test("has one number, whatever layers lie below it; 0 is not recorded", () => {
    const sites = new CallSites();
    const one = sites.ofChain(1, ["dma_map_phys", "f", "g", "h", "i"]);
    expect(sites.ofChain(2, ["iommu_map", "dma_map_phys", "f", "g", "h", "i"])).toBe(one);
    expect([sites.texts[one], sites.codeAt(one)]).toEqual(["f ← g ← h", ["f", "g", "h", "i"]]);
    expect([sites.named(""), sites.texts[0], sites.codeAt(sites.named("probe"))]).toEqual([0, "", undefined]);
  });
});
