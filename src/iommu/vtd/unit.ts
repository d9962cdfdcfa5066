/**
 * A VT-d unit, driven: devices are attached to tables by structures that it reads, and it is told what to forget.
 *
 * Idea: everything that is told goes through one invalidation queue; what is told of a domain follows from its cache tags.
 * A device has one attachment per PASID; PASID 0 is that of requests without one.
 * Promises: attaching changes nothing when it fails. Detaching and invalidating cannot fail: what goes wrong is a fault
 * event, and {@link VtdUnit.broken} says when the unit is not to be trusted any more. Invalidating allocates nothing.
 * The order of steps when something goes: the entry becomes not present, then context or PASID cache, IOTLB and device
 * TLB forget, each after the one before has finished, and only then is the entry cleared and its memory given back.
 * Not for: page tables, and when to invalidate (iommu/paging-domain.ts).
 * Specified by: VT-d specification, 6.5.3 and 9; behaviour of Linux 7.2 (drivers/iommu/intel/iommu.c, pasid.c).
 */
import type { IovaPage, Observer } from "../../base/index.ts";
import { END_OF_PAGES, type VtdCacheTag } from "../../layouts/invalidation/index.ts";
import { encodeRootTableAddress, GLOBAL, TABLE_MODE } from "../../layouts/vtd/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import type {
  AttachOptions,
  Clock,
  NestedTables,
  Requester,
  TranslationTables,
  TranslationUnit,
  VtdRegisters,
} from "../../platform/index.ts";
import { FaultEvents } from "../fault-events.ts";
import { type PasidGroup, refusePasid } from "../pasids.ts";
import { AttachmentInvalidation, type DeviceTlbOwner } from "./attachment-invalidation.ts";
import { CacheTags } from "./cache-tags.ts";
import { readCapabilities, type VtdCapabilities } from "./capabilities.ts";
import { badTranslationUnit, outOfRange, unitBroken, unitLacks } from "./errors.ts";
import type { VtdFault } from "./fault-events.ts";
import { FaultLog } from "./fault-log.ts";
import { GlobalCommands } from "./global-commands.ts";
import { type InvalidationCounts, InvalidationQueue, POLL_LIMIT } from "./invalidation-queue.ts";
import { PageRequestQueue } from "./page-requests.ts";
import { type PasidDirectory, RootTables } from "./root-tables.ts";
import { nestedSetup, passThroughSetup, type TranslationSetup, tablesSetup } from "./translation-setup.ts";

/** A unit to drive, and the memory that it reads. */
export interface VtdUnitOptions {
  /** The register file of the unit, real or simulated. */
  readonly registers: VtdRegisters;
  /** Where the unit's structures go, and where the tables of every attached domain must be: the unit reads no other. */
  readonly memory: Arena;
  /** Time of what the unit is waited for. */
  readonly clock: Clock;
  /** Scalable mode: first-stage tables, PASIDs. Unless said, if the unit has it. */
  readonly scalable?: boolean;
  /** Told of each range that a cache is told to forget, and of the descriptors as they are submitted. */
  readonly observer?: Observer;
  /** Turns of the polling loop before a unit that does not answer counts as broken. */
  readonly pollLimit?: number;
  /** Has a device that does not answer left the bus? Then it is not waited for any more. */
  readonly isGone?: (requester: Requester) => boolean;
}

interface Attachment {
  readonly pasid: number;
  readonly target: TranslationSetup;
  /** Domain ids, and the cache tags that they have because of it. */
  readonly tags: readonly (readonly [number, VtdCacheTag])[];
}

interface Device extends DeviceTlbOwner {
  readonly pasidBits: number;
  readonly pageRequests: boolean;
  readonly directory: PasidDirectory | undefined;
  readonly attachments: Map<number, Attachment>;
}

/** Bus, device and function have 16 bits. */
const REQUESTERS = 0x10000;
/** Groups are judged above, where they are known. */
const ALONE: PasidGroup = { devices: 1, pasidIsolated: true, owned: true, recovering: false };

/**
 * A VT-d unit, driven by its registers, its structures in memory and its invalidation queue. Attaching changes nothing
 * when it fails; detaching and invalidating cannot fail. VT-d specification, 6.5 and 9.
 */
export class VtdUnit implements TranslationUnit {
  /** What it can do. */
  readonly capabilities: VtdCapabilities;
  /** It runs in scalable mode: devices have PASID tables. */
  readonly scalable: boolean;
  /** What devices and the unit did wrong. */
  readonly faults: FaultEvents<VtdFault> = new FaultEvents();
  readonly #registers: VtdRegisters;
  readonly #memory: Arena;
  readonly #observer: Observer | undefined;
  readonly #queue: InvalidationQueue;
  readonly #invalidation: AttachmentInvalidation;
  readonly #commands: GlobalCommands;
  readonly #roots: RootTables;
  readonly #devices = new Map<Requester, Device>();
  readonly #domains = new Map<number, CacheTags>();
  readonly #log: FaultLog;
  #pageRequests: PageRequestQueue | undefined;

  /** Takes the unit into use. @throws DmaError ERR_DMA_VTD_CAPABILITY (EOPNOTSUPP), _MEMORY (ENOMEM), _BROKEN (EIO) */
  constructor(options: VtdUnitOptions) {
    const { registers, memory, clock } = options;
    const { capability, extendedCapability } = registers;
    this.scalable = options.scalable ?? readCapabilities(capability, extendedCapability, false).scalableMode;
    this.capabilities = readCapabilities(capability, extendedCapability, this.scalable);
    if (!this.capabilities.queuedInvalidation) throw unitLacks("an invalidation queue", "the unit has registers only");
    if (this.scalable && !this.capabilities.scalableMode)
      throw unitLacks("scalable mode", "scalable mode was asked for, and the unit has legacy mode only");
    this.#registers = registers;
    this.#memory = memory;
    this.#observer = options.observer;
    const pollLimit = options.pollLimit ?? POLL_LIMIT;
    this.#log = new FaultLog(registers, this.capabilities.faultRecords, this.faults, clock);
    this.#roots = new RootTables(memory, this.scalable);
    try {
      this.#queue = new InvalidationQueue({
        registers,
        memory,
        clock,
        slotWords: this.capabilities.invalidation.slotWords,
        faults: this.faults,
        observer: this.#observer,
        pollLimit,
        isGone: options.isGone ?? (() => false),
      });
    } catch (error) {
      this.#roots.destroy();
      throw error;
    }
    this.#invalidation = new AttachmentInvalidation(this.#queue, this.capabilities.invalidation);
    this.#commands = new GlobalCommands(registers, pollLimit, () =>
      this.#queue.break("its global status does not follow a command"),
    );
    this.#start();
    if (this.broken === undefined) return;
    this.#queue.destroy();
    this.#roots.destroy();
    throw unitBroken(this.broken);
  }

  /** Bits of the PASIDs that it translates by; 0 in legacy mode. */
  get pasidBits(): number {
    return this.capabilities.pasidBits;
  }

  /** Why the unit counts as broken; undefined while it works. The caches of a broken unit may hold stale translations. */
  get broken(): string | undefined {
    return this.#queue.broken;
  }

  /** What was sent to the unit. */
  get counts(): InvalidationCounts {
    return this.#queue.counts;
  }

  /** Requests for pages; undefined until a device that may make them is attached. */
  get pageRequests(): PageRequestQueue | undefined {
    return this.#pageRequests;
  }

  /** Reads the unit's fault records into {@link faults}: how many. For its fault interrupt, or at any time. */
  readFaults(): number {
    return this.#log.read();
  }

  /**
   * From now on requests of `requester`, with the PASID of the options, are translated by `tables`. Requests without PASID
   * may be attached anew while they are attached.
   *
   * @throws DmaError ERR_DMA_VTD_TABLES, _RANGE, _ATS (EINVAL), _CAPABILITY (EOPNOTSUPP), _MEMORY (ENOMEM); ERR_DMA_PASID
   *   (EINVAL, EOPNOTSUPP), ERR_DMA_PASID_BUSY (EBUSY): nothing has changed then. ERR_DMA_VTD_BROKEN (EIO): nor then, but if
   *   the unit breaks during the call the PASID is attached to nothing
   */
  attach(requester: Requester, tables: TranslationTables, options: AttachOptions = {}): void {
    this.#attach(requester, tablesSetup(tables, this.#memory, this.capabilities, this.scalable), options);
  }

  /** From now on requests of `requester` reach physical memory as they are. @throws as {@link attach} */
  attachPassThrough(requester: Requester, domainId: number, options: AttachOptions = {}): void {
    this.#attach(requester, passThroughSetup(domainId, this.capabilities, this.scalable), options);
  }

  /**
   * From now on requests of `requester` are translated by a guest's first stage, whose pointers and results `parent`
   * translates. What is unmapped in the parent is forgotten here too. @throws as {@link attach}
   */
  attachNested(
    requester: Requester,
    domainId: number,
    nested: NestedTables,
    parent: TranslationTables,
    options: AttachOptions = {},
  ): void {
    const target = nestedSetup(domainId, nested, parent, this.#memory, this.capabilities, this.scalable);
    this.#attach(requester, target, options);
  }

  /** From now on requests of `requester` are refused, with any PASID. Nothing to do if it is not attached. */
  detach(requester: Requester): void {
    const device = this.#devices.get(requester);
    if (!device) return;
    for (const attachment of [...device.attachments.values()].reverse()) this.#takeDown(device, attachment);
    this.#forgetDevice(device);
  }

  /** From now on requests of `requester` with this PASID are refused. */
  detachPasid(requester: Requester, pasid: number): void {
    const device = this.#devices.get(requester);
    const attachment = device?.attachments.get(pasid);
    if (!device || !attachment) return;
    this.#takeDown(device, attachment);
    if (device.attachments.size === 0) this.#forgetDevice(device);
  }

  invalidateRange(domainId: number, start: IovaPage, end: IovaPage, leavesOnly: boolean): void {
    this.#domains.get(domainId)?.forget(start, end, leavesOnly);
  }

  invalidateDomain(domainId: number): void {
    this.#domains.get(domainId)?.forget(0 as IovaPage, END_OF_PAGES, false);
  }

  syncMap(domainId: number, start: IovaPage, end: IovaPage): boolean {
    if (this.capabilities.cachingMode) {
      const tags = this.#domains.get(domainId);
      if (tags?.remembersAbsence) return tags.forgetAbsent(start, end);
    }
    this.#flushWriteBuffer();
    return false;
  }

  /** Detaches everything, stops translating, and gives the unit's memory back. */
  destroy(): void {
    for (const requester of [...this.#devices.keys()]) this.detach(requester);
    this.#commands.switch(GLOBAL.translation, false);
    this.#commands.switch(GLOBAL.queuedInvalidation, false);
    this.#pageRequests?.destroy();
    this.#queue.destroy();
    this.#roots.destroy();
  }

  #start(): void {
    this.#commands.switch(GLOBAL.queuedInvalidation, true);
    const mode = this.scalable ? TABLE_MODE.scalable : TABLE_MODE.legacy;
    this.#commands.setRootTable(encodeRootTableAddress({ mode, rootTable: this.#roots.root }));
    this.#invalidation.everything(this.scalable);
    this.#commands.switch(GLOBAL.translation, true);
  }

  #attach(requester: Requester, target: TranslationSetup, options: AttachOptions): void {
    const pasid = options.pasid ?? 0;
    const known = this.#devices.get(requester);
    const before = known?.attachments.get(pasid);
    this.#check(requester, target, pasid, before !== undefined, known?.pasidBits, options);
    const device = known ?? this.#newDevice(requester, options);
    try {
      if (device.directory) this.#roots.preparePasid(device.directory, pasid);
      this.#roots.prepareContext(requester);
    } catch (error) {
      if (!known && device.directory) this.#roots.freeDirectory(device.directory);
      throw error;
    }
    if (before) this.#takeDown(device, before);
    if (!known) this.#queue.expect(requester);
    const attachment = { pasid, target, tags: this.#tagsOf(device, pasid, target) };
    for (const [id, tag] of attachment.tags) this.#tags(id).add(tag);
    this.#setUp(device, attachment, known === undefined);
    device.attachments.set(pasid, attachment);
    this.#devices.set(requester, device);
    if (this.broken === undefined) return;
    this.detachPasid(requester, pasid); // it broke just now, so it may not have seen the new entries
    throw unitBroken(this.broken);
  }

  #check(
    requester: Requester,
    target: TranslationSetup,
    pasid: number,
    isAttached: boolean,
    knownBits: number | undefined,
    { ats, trusted, pasidBits }: AttachOptions,
  ): void {
    const { domainIds, cachingMode } = this.capabilities;
    const firstId = cachingMode ? 1 : 0; // 0 is what such a unit remembers absent entries by
    const { domainId } = target;
    if (this.broken !== undefined) throw unitBroken(this.broken);
    if (!(Number.isInteger(requester) && requester >= 0 && requester < REQUESTERS))
      throw outOfRange("requester", requester, 0, REQUESTERS);
    if (!(Number.isInteger(domainId) && domainId >= firstId && domainId < domainIds))
      throw outOfRange("domain id", domainId, firstId, domainIds);
    if (ats && trusted !== false && ats.stu !== 0) throw badTranslationUnit(requester, ats.stu);
    if (pasid === 0) return;
    const bits = Math.min(this.capabilities.pasidBits, knownBits ?? pasidBits ?? 20);
    const supported = this.capabilities.pasidBits > 0;
    const refused = refusePasid({ requester, pasid, supported, limit: 2 ** bits, inUse: isAttached, group: ALONE });
    if (refused) throw refused;
  }

  #newDevice(requester: Requester, options: AttachOptions): Device {
    const pasidBits = Math.min(this.capabilities.pasidBits, options.pasidBits ?? 20);
    const { ats } = options;
    const hasAts = ats !== undefined && options.trusted !== false && this.capabilities.deviceTlb;
    const physical = this.capabilities.needsPhysicalFunction ? (ats?.physicalFunction ?? requester) : 0;
    const pageRequests = hasAts && options.pageRequests === true && this.capabilities.pageRequests && this.scalable;
    if (pageRequests) this.#preparePageRequests();
    const directory = this.scalable ? this.#roots.createDirectory(pasidBits) : undefined;
    return {
      requester,
      ats: hasAts ? { sourceId: requester, pfSourceId: physical, queueDepth: ats.queueDepth || 32 } : undefined,
      twice: hasAts && ats.twice === true,
      pasidBits,
      pageRequests,
      directory,
      attachments: new Map(),
    };
  }

  #preparePageRequests(): void {
    this.#pageRequests ??= new PageRequestQueue({
      registers: this.#registers,
      memory: this.#memory,
      queue: this.#queue,
      isKnown: (requester) => this.#devices.get(requester)?.pageRequests === true,
      halfPages: this.capabilities.fiveLevelFirstStage ? 2 ** 44 : 2 ** 35,
    });
  }

  /** Which domain's changes concern which caches. Those of a parent concern what is nested in it. */
  #tagsOf({ ats, twice }: Device, pasid: number, { domainId, parentId, iotlb }: TranslationSetup): Attachment["tags"] {
    if (iotlb === undefined) return [];
    const deviceTlb = (whole: boolean): VtdCacheTag[] =>
      ats ? [{ cache: "device-tlb", device: ats, pasid, whole, twice }] : [];
    const tags: [number, VtdCacheTag][] = [];
    for (const tag of [{ cache: "iotlb", stage: iotlb, domainId, pasid } as const, ...deviceTlb(false)])
      tags.push([domainId, tag]);
    if (parentId === undefined) return tags;
    for (const tag of [{ cache: "iotlb", stage: "second", domainId, pasid } as const, ...deviceTlb(true)])
      tags.push([parentId, tag]);
    return tags;
  }

  #tags(domainId: number): CacheTags {
    let tags = this.#domains.get(domainId);
    if (!tags) {
      tags = new CacheTags(this.#queue, this.capabilities.invalidation, this.#observer);
      this.#domains.set(domainId, tags);
    }
    return tags;
  }

  /** Makes the entries of an attachment, the outermost last, and tells a unit that remembers their absence. */
  #setUp(device: Device, { pasid, target }: Attachment, isNew: boolean): void {
    const { requester, directory } = device;
    if (directory) this.#roots.writePasid(directory, pasid, target.pasid());
    else this.#roots.writeContext(requester, target.context(device.ats !== undefined));
    if (directory && isNew)
      this.#roots.writeScalableContext(requester, {
        present: true,
        faultProcessingDisable: false,
        deviceTlbEnable: device.ats !== undefined,
        pasidEnable: device.pasidBits > 0,
        pageRequestEnable: device.pageRequests,
        pasidDirectorySize: directory.size,
        pasidDirectory: directory.page,
        requestPasid: 0,
        requestPrivileged: false,
      });
    if (!this.capabilities.cachingMode) {
      this.#flushWriteBuffer();
      return;
    }
    if (!directory || isNew) this.#invalidation.context(requester, 0);
    if (directory) this.#invalidation.pasid(target, pasid);
    this.#invalidation.iotlb(target, pasid);
  }

  /**
   * Takes the entry of an attachment away: it becomes absent first, then the caches forget it, so that no stale copy is
   * used.
   */
  #takeDown(device: Device, { pasid, target, tags }: Attachment): void {
    const { requester, directory } = device;
    if (directory) {
      this.#roots.hidePasid(directory, pasid);
      this.#invalidation.pasid(target, pasid);
    } else {
      this.#roots.hideContext(requester);
      this.#invalidation.context(requester, target.domainId);
    }
    this.#invalidation.iotlb(target, pasid);
    this.#invalidation.deviceTlb(device, pasid);
    if (directory) this.#roots.clearPasid(directory, pasid);
    else this.#roots.clearContext(requester);
    if (device.pageRequests)
      this.#pageRequests?.drain(requester, pasid === 0 ? undefined : pasid, () => {
        this.#invalidation.stageFence();
        this.#invalidation.stageIotlb(target, pasid);
        this.#invalidation.stageDeviceTlb(device, pasid);
      });
    for (const [id, tag] of tags) {
      const domain = this.#tags(id);
      domain.remove(tag);
      if (domain.size === 0) this.#domains.delete(id);
    }
    device.attachments.delete(pasid);
  }

  /** Nothing of the device is attached any more. */
  #forgetDevice({ requester, directory }: Device): void {
    this.#devices.delete(requester);
    if (!directory) return;
    this.#roots.hideContext(requester);
    this.#invalidation.context(requester, 0);
    this.#roots.clearContext(requester);
    this.#roots.freeDirectory(directory);
  }

  #flushWriteBuffer(): void {
    if (this.capabilities.writeBuffer) this.#commands.flushWriteBuffer();
  }
}
