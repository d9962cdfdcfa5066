/**
 * Who called: the code that made or ended a mapping, by its call chain or by the site that an event names.
 *
 * Idea: a number stands for a site, so that mappings keep one number however long the chain is. What leads from the event down into
 * the DMA layer is the same for every driver and says nothing; a site begins with the first function above it.
 * Promises: 0 is "not recorded"; a number never changes its meaning; memory is bounded.
 * Not for: the chains themselves (src/trace/chains.ts).
 */
import type { CallChain } from "../../trace/index.ts";

/** Sites that are kept; two numbers of them fit into a double. */
const MOST_SITES = 2 ** 20;
/** Functions of a site that a sentence names. */
const NAMED = 3;

/** How the functions begin that lie between a driver and the event: the DMA API, IOMMUs, bounce buffers, the block layer's helpers. */
const LAYERS = [
  "dma_(?:un)?map_",
  "dma_(?:alloc|free|sync|iova|direct|common)_",
  "dma_v(?:un)?map_",
  "dma_pool_z?(?:alloc|free)",
  "pool_alloc_page",
  "dmam_",
  "debug_dma_",
  "iommu_",
  "(?:intel|amd|s390|apple_dart|rk|mtk|msm|qcom|exynos)_iommu_",
  "arm_(?:smmu|lpae)_",
  "pt_iommu_",
  "viommu_",
  "(?:xen_)?swiotlb_",
  "trace_",
  "traceiter_",
  "blk_(?:rq_)?dma_",
  "blk_rq_map_sg",
];
const IS_LAYER = new RegExp(`^_*(?:${LAYERS.join("|")})`);

/** What a compiler appends to a function that it has split, cloned or moved. */
const CLONE = /(?:\.(?:part|isra|constprop|cold|llvm|lto_priv|localalias)(?:\.\d+)*)+$/;

/** The frames of `chain` that are a driver's own, the innermost first, as the source names them; all of it, if none is. */
function codeOf(chain: CallChain): CallChain {
  const named = chain.map((frame) => frame.replace(CLONE, ""));
  const first = named.findIndex((frame) => !IS_LAYER.test(frame));
  return first < 0 ? named : named.slice(first);
}

/** "nvme_prep_rq ← nvme_queue_rq ← blk_mq_…": the innermost of `code`. */
const codeText = (code: CallChain): string => code.slice(0, NAMED).join(" ← ");

export class CallSites {
  /** By number: how a sentence names it. */
  readonly texts: string[] = [""];
  /** By number: its call chain without the layers; absent where an event named the site itself. */
  readonly #codes: (CallChain | undefined)[] = [undefined];
  readonly #byText = new Map<string, number>();
  /** By index of the chain. */
  readonly #byChain: number[] = [];

  /** The site that an event names. */
  named(text: string): number {
    return text === "" ? 0 : this.#enter(text, text, undefined);
  }

  /** The site at the end of the chain with this index. */
  ofChain(index: number, chain: CallChain): number {
    const known = this.#byChain[index];
    if (known !== undefined) return known;
    const code = codeOf(chain);
    const site = code.length === 0 ? 0 : this.#enter(`\n${code.join("\n")}`, codeText(code), code);
    this.#byChain[index] = site;
    return site;
  }

  /** The call chain of a site; `undefined`: it has none. */
  codeAt(site: number): CallChain | undefined {
    return this.#codes[site];
  }

  #enter(key: string, text: string, code: CallChain | undefined): number {
    const seen = this.#byText.get(key);
    if (seen !== undefined) return seen;
    if (this.texts.length >= MOST_SITES) return 0;
    this.#byText.set(key, this.texts.length);
    this.#codes.push(code);
    return this.texts.push(text) - 1;
  }
}
