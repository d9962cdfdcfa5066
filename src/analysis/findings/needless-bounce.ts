/** Copies through a bounce buffer, and why they are made. */
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { plural, size } from "./words.ts";

/** A DMA mask by its length: all-ones arrive rounded. */
const bits = (mask: number): string => `${Math.round(Math.log2(mask + 1))}-bit`;

type Why = "forced" | "mask" | "alignment";

const ADVICE: Readonly<Record<Why, string>> = {
  forced:
    "Boot without swiotlb=force (a confidential guest needs it: there nothing can be saved); every mapped byte is copied by the processor.",
  mask: "If the device can address more, set a wider mask (dma_set_mask_and_coherent) in its driver; if it cannot, an IOMMU or memory below the mask avoids the copy.",
  alignment:
    "Align buffers and lengths to the cache line (an untrusted device: to the page), so that nothing has to be copied.",
};

export const needlessBounce: Rule = {
  name: "needless-bounce",
  severity: "warning",
  summary: "memory is copied through a bounce buffer that could be mapped where it lies",
  advice: ADVICE.forced,
  watch: ({ deviceName, current, report }) => {
    const seen = new Map<
      string,
      { device: number; why: Why; mask: number; times: number; bytes: number; first: Evidence }
    >();
    return {
      bounced(device, mask, start, length, forced) {
        const why: Why = start + length - 1 > mask ? "mask" : forced ? "forced" : "alignment";
        const key = `${device} ${why}`;
        const known = seen.get(key) ?? {
          device,
          why,
          mask,
          times: 0,
          bytes: 0,
          first: current("bounced", start, length),
        };
        seen.set(key, known);
        known.times++;
        known.bytes += length;
      },
      finish() {
        for (const { device, why, mask, times, bytes, first } of seen.values()) {
          const reason = {
            forced: `the kernel bounces everything, although the device's ${bits(mask)} addresses reach that far (swiotlb=force, or a confidential guest, whose memory the device may not see)`,
            mask: `the memory lies above what the device can address (${bits(mask)})`,
            alignment: "the memory does not fill whole cache lines or pages",
          }[why];
          report({
            device,
            timeNs: first.timeNs,
            message: `${deviceName(device)}: ${plural(times, "mapping")} (${size(bytes)}) copied through a bounce buffer: ${reason}.`,
            advice: ADVICE[why],
            evidence: [first],
            selfEvident: true,
          });
        }
      },
    };
  },
};
