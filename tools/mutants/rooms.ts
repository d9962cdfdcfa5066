/** The rooms whose tests are tested: what is mutated, and which tests are asked whether they notice. */

/** A room of `src`. */
export interface Room {
  /** Folders whose sources are mutated; tests and benchmarks in them are left out. */
  readonly sources: readonly string[];
  /** Patterns of the test files that speak of the room. */
  readonly tests: readonly string[];
  /** Folders of `test/golden` that judge it. */
  readonly golden: readonly string[];
}

export const ROOMS: Readonly<Record<string, Room>> = {
  iova: { sources: ["src/iova"], tests: ["src/iova/**/*.test.ts"], golden: ["iova"] },
  pagetable: {
    sources: ["src/pagetable"],
    tests: ["src/pagetable/**/*.test.ts", "test/conformance/pagetable*.test.ts"],
    golden: ["pagetable"],
  },
  dma: {
    sources: ["src/dma"],
    tests: ["src/dma/**/*.test.ts", "test/dma/**/*.test.ts", "test/conformance/dma-api.test.ts"],
    golden: ["dma-api"],
  },
  swiotlb: {
    sources: ["src/swiotlb"],
    tests: ["src/swiotlb/**/*.test.ts", "test/golden/bounce-pool.test.ts", "test/dma/vectors.test.ts"],
    golden: [],
  },
  iommu: {
    sources: ["src/iommu"],
    tests: ["src/iommu/**/*.test.ts", "test/vtd/**/*.test.ts", "test/virtio/**/*.test.ts", "test/dma/**/*.test.ts"],
    golden: ["invalidation"],
  },
  nvme: {
    sources: ["src/consumers/nvme", "src/hosts/simulated/devices/nvme"],
    tests: ["src/layouts/nvme/**/*.test.ts", "test/nvme/**/*.test.ts"],
    golden: ["nvme"],
  },
  analysis: {
    sources: ["src/analysis"],
    tests: ["src/analysis/**/*.test.ts", "test/golden/{cases,faults,one-truth,misuse,check,traces}.test.ts"],
    golden: [],
  },
  trace: {
    sources: ["src/trace"],
    tests: ["src/trace/**/*.test.ts", "test/golden/{forms,traces}.test.ts", "test/fuzz/corpus.test.ts"],
    golden: [],
  },
};
