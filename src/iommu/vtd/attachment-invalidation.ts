/**
 * What is told to a unit when an attachment comes or goes: to forget a context, a PASID, and all of their translations.
 *
 * Idea: one method per cache. Those named after a cache send one submission and return when it is done, as the next step
 * depends on it; `stage...` only adds to the submission that is being made.
 * Specified by: VT-d specification, 6.5.3; behaviour of Linux 7.2 (drivers/iommu/intel/pasid.c).
 */
import type { IovaPage, PhysAddr } from "../../base/index.ts";
import {
  CONTEXT_GRANULARITY,
  type DeviceTlb,
  END_OF_PAGES,
  IOTLB_GRANULARITY,
  PASID_CACHE_GRANULARITY,
  PASID_IOTLB_GRANULARITY,
  type VtdInvalidationTraits,
  writeContextCache,
  writeDeviceTlbRange,
  writeIotlb,
  writePasidCache,
  writePasidIotlb,
  writeWait,
} from "../../layouts/invalidation/index.ts";
import type { Requester } from "../../platform/index.ts";
import type { InvalidationQueue } from "./invalidation-queue.ts";
import type { TranslationSetup } from "./translation-setup.ts";

/** A device with a TLB, as it has to be told; `ats` is undefined for a device without. */
export interface DeviceTlbOwner {
  readonly requester: Requester;
  readonly ats: DeviceTlb | undefined;
  readonly twice: boolean;
}

const NO_PAGE = 0 as IovaPage;
/** What a wait without status write carries all the same. */
const STATUS_DATA = 2;

export class AttachmentInvalidation {
  readonly #queue: InvalidationQueue;
  readonly #unit: VtdInvalidationTraits;

  constructor(queue: InvalidationQueue, unit: VtdInvalidationTraits) {
    this.#queue = queue;
    this.#unit = unit;
  }

  /** Everything, as at the start. */
  everything(scalable: boolean): void {
    const queue = this.#queue;
    writeContextCache(queue.words, queue.at, CONTEXT_GRANULARITY.global, 0, 0, 0);
    this.#send();
    if (scalable) {
      writePasidCache(queue.words, queue.at, PASID_CACHE_GRANULARITY.global, 0, 0);
      this.#send();
    }
    const { drainReads, drainWrites } = this.#unit;
    writeIotlb(queue.words, queue.at, IOTLB_GRANULARITY.global, 0, NO_PAGE, 0, false, drainReads, drainWrites);
    this.#send();
  }

  /** The context entry of a device. One that was absent belongs to domain 0. */
  context(requester: Requester, domainId: number): void {
    const { words, at } = this.#queue;
    writeContextCache(words, at, CONTEXT_GRANULARITY.device, domainId, requester, 0);
    this.#send();
  }

  pasid({ domainId }: TranslationSetup, pasid: number): void {
    const { words, at } = this.#queue;
    writePasidCache(words, at, PASID_CACHE_GRANULARITY.pasid, domainId, pasid);
    this.#send();
  }

  /** Every translation of an attachment in the unit. */
  iotlb(target: TranslationSetup, pasid: number): void {
    this.stageIotlb(target, pasid);
    this.#queue.submit(false);
  }

  /** Every translation that a device keeps for a PASID. */
  deviceTlb(holder: DeviceTlbOwner, pasid: number): void {
    this.stageDeviceTlb(holder, pasid);
    this.#queue.submit(false);
  }

  /** What follows begins when everything before is done. */
  stageFence(): void {
    const { words, at } = this.#queue;
    writeWait(words, at, 0 as PhysAddr, STATUS_DATA, false, false, true, false);
    this.#queue.push();
  }

  stageIotlb({ domainId, forgets }: TranslationSetup, pasid: number): void {
    const { words, at } = this.#queue;
    const { drainReads, drainWrites } = this.#unit;
    if (forgets === "pasid")
      writePasidIotlb(words, at, PASID_IOTLB_GRANULARITY.pasid, domainId, pasid, NO_PAGE, 0, false);
    else writeIotlb(words, at, IOTLB_GRANULARITY.domain, domainId, NO_PAGE, 0, false, drainReads, drainWrites);
    this.#queue.push();
  }

  stageDeviceTlb({ requester, ats, twice }: DeviceTlbOwner, pasid: number): void {
    if (!ats || this.#queue.hasGivenUp(requester)) return;
    for (let times = twice ? 2 : 1; times > 0; times--) {
      writeDeviceTlbRange(this.#queue.words, this.#queue.at, ats, pasid, NO_PAGE, END_OF_PAGES);
      this.#queue.push();
    }
  }

  #send(): void {
    this.#queue.push();
    this.#queue.submit(false);
  }
}
