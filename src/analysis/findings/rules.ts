/** All rules, in the order in which they are told. One file each; a new one is a line here. */
import { above4g } from "./above-4g.ts";
import { accessBeforeSync } from "./access-before-sync.ts";
import { beyondDeviceWidth } from "./beyond-device-width.ts";
import { bouncePoolFull } from "./bounce-pool-full.ts";
import { destroyWithLiveLinks } from "./destroy-with-live-links.ts";
import { deviceFault } from "./device-fault.ts";
import { deviceMismatch } from "./device-mismatch.ts";
import { directionMismatch } from "./direction-mismatch.ts";
import { dmaApiReport } from "./dma-api-report.ts";
import { doubleUnmap } from "./double-unmap.ts";
import { entryBudget } from "./entry-budget.ts";
import { entryCount } from "./entry-count.ts";
import { flushStorm } from "./flush-storm.ts";
import { invalidAddress } from "./invalid-address.ts";
import { iovaFragmentation } from "./iova-fragmentation.ts";
import { iovaReuseBeforeFlush } from "./iova-reuse-before-flush.ts";
import { keepMapped } from "./keep-mapped.ts";
import { leak } from "./leak.ts";
import { leftAtRelease } from "./left-at-release.ts";
import { linkOutOfRange } from "./link-out-of-range.ts";
import { longUnmap } from "./long-unmap.ts";
import { mapOverLive } from "./map-over-live.ts";
import { mergeContiguous } from "./merge-contiguous.ts";
import { missedSuperpage } from "./missed-superpage.ts";
import { needlessBounce } from "./needless-bounce.ts";
import { overCacheSize } from "./over-cache-size.ts";
import { pageFreedWhileMapped } from "./page-freed-while-mapped.ts";
import type { Rule } from "./rule.ts";
import { sameMemory } from "./same-memory.ts";
import { sharedPageWrite } from "./shared-page-write.ts";
import { shortUnmap } from "./short-unmap.ts";
import { sizeMismatch } from "./size-mismatch.ts";
import { syncOutside } from "./sync-outside.ts";
import { truncatedScatterlist } from "./truncated-scatterlist.ts";
import { unknownStart } from "./unknown-start.ts";
import { unlinkHole } from "./unlink-hole.ts";
import { unmapUnknown } from "./unmap-unknown.ts";
import { useTwoStep } from "./use-two-step.ts";
import { wrongFunction } from "./wrong-function.ts";

/** Every rule, in the order of reports. */
export const RULES: readonly Rule[] = [
  deviceFault,
  beyondDeviceWidth,
  dmaApiReport,
  bouncePoolFull,
  leak,
  leftAtRelease,
  unmapUnknown,
  doubleUnmap,
  sizeMismatch,
  directionMismatch,
  deviceMismatch,
  wrongFunction,
  entryCount,
  syncOutside,
  shortUnmap,
  longUnmap,
  mapOverLive,
  linkOutOfRange,
  destroyWithLiveLinks,
  unlinkHole,
  accessBeforeSync,
  iovaReuseBeforeFlush,
  invalidAddress,
  sharedPageWrite,
  truncatedScatterlist,
  needlessBounce,
  pageFreedWhileMapped,
  sameMemory,
  above4g,
  entryBudget,
  flushStorm,
  iovaFragmentation,
  mergeContiguous,
  missedSuperpage,
  useTwoStep,
  keepMapped,
  overCacheSize,
  unknownStart,
];
