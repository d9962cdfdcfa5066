/**
 * The words for what explains a fault: one sentence for the cause, one for what to do or to record next.
 *
 * Idea: one function a cause, with the numbers in it. Times are given as differences from the fault.
 * Not for: the fault itself (findings/device-fault.ts).
 */
import type { Access } from "../../trace/index.ts";
import { address, noun, size, time } from "../findings/words.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Holder } from "./address-history.ts";
import type { Cause, Hypothesis } from "./relation.ts";

/** What a sentence needs to know besides. */
export interface Telling {
  readonly access: Access;
  /** When the fault was; `undefined`: by a clock that cannot be compared. */
  readonly timeNs: number | undefined;
  deviceName(device: number): string;
  /** The task that a mapping was made or ended by; `undefined`: not known. */
  taskOf(holder: Holder, step: "began" | "ended"): string | undefined;
}

/** The mapping in words: "the mapping of 2 KiB at 0xfff80000 (mapped by fio-12, live since 10 ms)". */
function told(holder: Holder, telling: Telling): string {
  const { timeNs } = telling;
  const by = telling.taskOf(holder, "began");
  const facts = [by === undefined ? undefined : `mapped by ${by}`];
  if (holder.startNs < 0) facts.push("from before the recording");
  else if (timeNs !== undefined && holder.endNs < 0)
    facts.push(`live since ${time(Math.max(0, timeNs - holder.startNs))}`);
  if (holder.endNs >= 0) {
    if (holder.startNs >= 0) facts.push(`live for ${time(holder.endNs - holder.startNs)}`);
    if (timeNs !== undefined) facts.push(`unmapped ${ago(timeNs, holder.endNs)}`);
  }
  if (holder.device === NO_DEVICE) facts.push("whose no event says");
  const known = facts.filter((fact) => fact !== undefined);
  const what = `the ${noun(holder.kind)} of ${size(holder.length)} at ${address(holder.iova)}`;
  return known.length === 0 ? what : `${what} (${known.join(", ")})`;
}

const ago = (timeNs: number, thenNs: number): string =>
  timeNs >= thenNs ? `${time(timeNs - thenNs)} before` : `${time(thenNs - timeNs)} later`;

const TRIED: Readonly<Record<Access, string>> = { read: "a read", write: "a write", unknown: "the access" };
const ALLOWS = ["reading and writing", "reading only (to the device)", "writing only (from the device)"];

/** The cause in one sentence. */
export function sentence(hypothesis: Hypothesis, telling: Telling): string {
  const { cause, holder } = hypothesis;
  return holder ? ofHolder(hypothesis, holder, telling) : WITHOUT[cause];
}

function ofHolder({ cause, relation, distanceBytes, bits }: Hypothesis, holder: Holder, telling: Telling): string {
  const mapping = told(holder, telling);
  switch (cause) {
    case "wrong-direction":
      if (ALLOWS[holder.direction] === undefined)
        return `The address ${relation === "ended" ? "was, until then," : "is"} that of ${mapping}; in which direction no event says: it may not allow ${TRIED[telling.access]}.`;
      return `The address ${relation === "ended" ? "was, until then," : "is"} that of ${mapping}, which allows the device ${ALLOWS[holder.direction]}: its direction is wrong for ${TRIED[telling.access]}.`;
    case "not-synced":
      return `The address is in ${mapping}, of which ${size(holder.unsynced)} are linked and not synced yet: the device was told too early.`;
    case "not-linked":
      return `The address is in ${mapping}, but only its first ${size(holder.linkedEnd)} are linked: the device went past what is there.`;
    case "stale-translation":
      return `The address is that of ${mapping}, which should allow it: the IOMMU or the device still knew what was there before, or the fault is older than the mapping.`;
    case "used-after-unmap": {
      const by = telling.taskOf(holder, "ended");
      const when = telling.timeNs === undefined ? "" : ` ${ago(telling.timeNs, holder.endNs)}`;
      const began = telling.taskOf(holder, "began");
      const life =
        holder.startNs < 0 ? "mapped before the recording" : `live for ${time(holder.endNs - holder.startNs)}`;
      return `The address was unmapped${when}${by === undefined ? "" : ` by ${by}`} (the ${noun(holder.kind)} of ${size(holder.length)} at ${address(holder.iova)}, ${began === undefined ? "" : `mapped by ${began}, `}${life}): the device used it too late, or was still at work.`;
    }
    case "past-the-end":
      return `The address lies ${distanceBytes === 0 ? "right" : size(distanceBytes!)} behind the end of ${mapping}: the device went past the end of its buffer.`;
    case "before-the-start":
      return `The address lies ${size(distanceBytes!)} before ${mapping}: the device began before its buffer.`;
    case "address-cut":
      return `The address equals, in its lower ${bits} bits, one in ${mapping}: the device, or a bus before it, drives ${bits} address bits, and the driver's mask allows more.`;
    case "physical-address":
      return `The address is the memory's own (physical) address of ${mapping}: the device was given that, not the DMA address.`;
    case "other-device":
      return `The address is mapped for ${telling.deviceName(holder.device)}, not for this device: ${mapping}. The device was given another one's address, or one asks under the other's name.`;
    case "not-attached":
      return `The IOMMU has no tables for the device, although ${mapping} is recorded for it: it was detached, or asks under another name.`;
    default:
      return WITHOUT[cause];
  }
}

const WITHOUT: Readonly<Record<Cause, string>> = {
  "wrong-direction": "The direction is wrong.",
  "not-synced": "The range is not synced.",
  "not-linked": "Nothing is linked there.",
  "stale-translation": "The translation is stale.",
  "used-after-unmap": "The address was unmapped before.",
  "past-the-end": "The address lies behind a mapping.",
  "before-the-start": "The address lies before a mapping.",
  "address-cut": "Upper bits of the address were lost.",
  "physical-address": "The address is the memory's own.",
  "other-device": "The address is another device's.",
  "no-address":
    "Address 0 was never mapped for the device: it was given no address, or lost it (a descriptor that was not filled in, a register that a reset cleared).",
  "failed-address": 'The address means "mapping failed": the driver did not check, and gave it to the device.',
  "maps-nothing": "The device maps nothing in this recording.",
  "no-device-named":
    "No event of this recording says whose the mappings are (dma:* events are not in it), and none that is known has the address.",
  "from-before": "It may have been mapped before the recording began.",
  "not-attached":
    "The IOMMU has no tables for the device: it is attached to nothing, or asks under another name (a bridge's, a function's).",
  unexplained: "Nothing of it was ever mapped for the device in this recording.",
};

const ADVICE: Readonly<Record<Cause, string>> = {
  "wrong-direction":
    "Map with the direction of what the device does: to-device if it only reads, from-device if it only writes, bidirectional if it does both (a descriptor ring, read-modify-write). Find the call from the task and time of the map.",
  "not-synced": "Call dma_iova_sync after the last link and before the device is told.",
  "not-linked": "Link all of the range that the device is told of, or tell it the linked length only.",
  "stale-translation":
    "Record intel_iommu:cache_tag_flush_range (or the unit's own invalidation events) too: they show whether the IOTLB was told before the device. Try iommu.strict=1; a device with its own TLB (ATS) may need its firmware looked at.",
  "used-after-unmap":
    "Unmap only after the device has said that it is done: look at the path that unmapped (time-out, reset, close, error), and whether it stops the device first. Record the driver's own completion events beside dma:* to see which of the two came first.",
  "past-the-end":
    "Compare the length that the device was given with the length that was mapped; devices that read ahead need room mapped behind the buffer. One page mapped behind it tells an over-read from a wrong address.",
  "before-the-start":
    "Compare the address that the device was given with the one that the map returned: an offset was subtracted, or a headroom is not mapped.",
  "address-cut":
    "Set the device's real width with dma_set_mask_and_coherent, or dma-ranges of its bus in the device tree. dmalink check --device-bits DEVICE=BITS finds every mapping beyond it before it faults.",
  "physical-address": "Give the device what dma_map_* returned, not virt_to_phys or sg_phys.",
  "other-device":
    "Map for the struct device that does the DMA; where functions or a bridge ask under one name, they need one group and one domain.",
  "no-address":
    "Look at what the device was told before its first access: a descriptor that was not written (or not visible yet: dma_wmb), a base register that a reset cleared.",
  "failed-address": "Check every map with dma_mapping_error before the device is told.",
  "maps-nothing":
    "Is its driver bound, and were its dma:* events recorded? Firmware that still uses the device from before the boot needs a reserved region (RMRR, IVMD).",
  "no-device-named":
    "Record dma:* events too (Linux 6.12 and newer): they name the device, the direction and who mapped.",
  "from-before":
    "Record from before the driver is bound, or give what was mapped at the start: --dma-dump, --snapshot.",
  "not-attached":
    "Look whether a driver is bound and which group the device is in (/sys/kernel/iommu_groups); a device behind a bridge asks under the bridge's name, some devices under a function that does not exist.",
  unexplained:
    "The address comes from elsewhere: a descriptor that was overwritten, firmware, a stale register. Record from before the driver is bound (dmalink record -- modprobe DRIVER), so that everything it maps is seen.",
};

/** What to do, or to record next. */
export const adviceFor = (cause: Cause): string => ADVICE[cause];

/** What to record next where only a log is there. */
export const ADVICE_LOG_ALONE =
  "Record what the driver maps, then check both: sudo dmalink record --for 10s -o trace.dat, then dmalink check trace.dat --kernel-log FILE. It tells who had the address.";
