/**
 * The translator of a simulated VT-d unit: from a request to what covers its page, by what it remembers or by its own walk.
 *
 * Idea: root and context table, PASID directory and table, pages; what was found on each step is remembered apart, and
 * forgotten apart. A unit in caching mode may remember what was not found, too.
 * Promises: answers a leaf or the reason of a fault; never throws.
 * Specified by: VT-d specification, 3, 6.2 and 6.5.2.
 */
import type { IovaPage, PhysPage } from "../../../../base/index.ts";
import { READ, WRITE } from "../../../../layouts/pagetable/index.ts";
import type { TableMemory } from "../../../../platform/index.ts";
import {
  type Binding,
  type LegacyContext,
  readLegacyContext,
  readPasid,
  readScalableContext,
  type ScalableContext,
} from "./entries.ts";
import { REASON } from "./fault-reasons.ts";
import type { Cached } from "./translation-cache.ts";
import { Translations } from "./translations.ts";
import { PageWalker } from "./walk.ts";

/** Values of field G, in the descriptors that have it. */
const GLOBALLY = { context: 1, pasidCache: 3, iotlb: 1 };
const BY_DOMAIN = { context: 2, pasidCache: 0, iotlb: 2 };
const ALL_OF_PASID = 2;

export class Translator {
  /** Tables that stayed cached after an invalidation although memory does not lead to them any more. */
  staleTables = 0;
  readonly #memory: TableMemory;
  readonly #cachesAbsent: boolean;
  readonly #walker: PageWalker;
  readonly #known = new Translations();
  #root = 0 as PhysPage;
  #mode = 0;
  /** Of the last request. */
  #binding: Binding | undefined;
  #boundPasid = 0;

  constructor(memory: TableMemory, cachesAbsent: boolean) {
    this.#memory = memory;
    this.#cachesAbsent = cachesAbsent;
    this.#walker = new PageWalker(memory, () => this.isLegacy);
  }

  /** The root table address register takes effect. */
  setRoot(address: bigint): void {
    this.#root = Number(address >> 12n) as PhysPage;
    this.#mode = Number((address >> 10n) & 3n);
  }

  get isLegacy(): boolean {
    return this.#mode === 0;
  }

  /** Translations remembered. */
  get cached(): number {
    return this.#known.size;
  }

  /** Does the entry that the last request was bound by say that faults are not recorded? */
  get isSilent(): boolean {
    return this.#binding?.silent === true;
  }

  /** Why what the last request found does not permit it. */
  denial(access: "read" | "write"): number {
    return this.#walker.denied(this.#binding!, access);
  }

  /** What covers `page`: from the IOTLB, or by a walk. Or the reason why nothing does. */
  find(requester: number, page: IovaPage, access: "read" | "write", pasid: number): Cached | number {
    const binding = this.#bind(requester, pasid);
    if (typeof binding === "number") return binding;
    const { first, second } = binding;
    if (!first && !second) return { page: page as number as PhysPage, prot: READ | WRITE, lg: 0 };
    const space = this.#known.space(binding, this.#boundPasid);
    const known = space.leaves.get(page);
    if (known) return known;
    const found = this.#walker.walk(binding, page, access, space.tables);
    if (typeof found !== "number") space.leaves.set(page, found);
    else if (this.#cachesAbsent && !first) space.leaves.set(page, ABSENT);
    return found;
  }

  /** What the requests of a device and PASID are translated by; remembered. */
  #bind(requester: number, pasid: number): Binding | number {
    const context = this.context(requester);
    if (typeof context === "number") return context;
    if ("binding" in context) {
      this.#binding = context.binding;
      this.#boundPasid = 0;
      return pasid >= 0 ? REASON.pasidInLegacyMode : context.binding;
    }
    if (pasid >= 0 && !context.pasidEnabled) return REASON.pasidDisabled;
    this.#boundPasid = pasid < 0 ? context.requestPasid : pasid;
    const key = requester * 2 ** 20 + this.#boundPasid;
    let found = this.#known.pasids.get(key);
    if (found === undefined) {
      found = readPasid(this.#memory, context, this.#boundPasid);
      if (typeof found !== "number" || this.#cachesAbsent) this.#known.pasids.set(key, found);
    }
    if (typeof found !== "number") this.#binding = found;
    return found;
  }

  /** A device's context entry, or why it has none; remembered. */
  context(requester: number): LegacyContext | ScalableContext | number {
    this.#binding = undefined;
    const known = this.#known.contexts.get(requester);
    if (known !== undefined) return known;
    const read = this.isLegacy ? readLegacyContext : readScalableContext;
    const found = read(this.#memory, this.#root, requester);
    if (typeof found !== "number" || this.#cachesAbsent) this.#known.contexts.set(requester, found);
    return found;
  }

  forgetContext(granularity: number, domainId: number, requester: number, functionMask: number): void {
    const { contexts } = this.#known;
    for (const [id, entry] of contexts) {
      const isDevice = id >> functionMask === requester >> functionMask;
      const isDomain = typeof entry === "number" ? domainId === 0 : isOfDomain(entry, domainId);
      if (granularity === GLOBALLY.context || (isDomain && (granularity === BY_DOMAIN.context || isDevice)))
        contexts.delete(id);
    }
  }

  forgetPasids(granularity: number, domainId: number, pasid: number): void {
    const { pasids } = this.#known;
    for (const [key, entry] of pasids) {
      const isDomain = typeof entry === "number" || entry.domainId === domainId;
      const isPasid = key % 2 ** 20 === pasid;
      if (granularity === GLOBALLY.pasidCache || (isDomain && (granularity === BY_DOMAIN.pasidCache || isPasid)))
        pasids.delete(key);
    }
  }

  forgetIotlb(granularity: number, domainId: number, page: number, order: number, leafOnly: boolean): void {
    if (granularity === GLOBALLY.iotlb) this.#known.forgetAll();
    else if (granularity === BY_DOMAIN.iotlb) this.#known.forgetDomain(domainId);
    else {
      const [start, end] = blockOf(page, order);
      this.staleTables += this.#known.forgetSecondStage(this.#walker, domainId, start, end, leafOnly);
    }
  }

  forgetPasidIotlb(
    granularity: number,
    domainId: number,
    pasid: number,
    page: number,
    order: number,
    leafOnly: boolean,
  ): void {
    if (granularity === ALL_OF_PASID) this.#known.forgetPasid(domainId, pasid);
    else {
      const [start, end] = blockOf(page, order);
      this.staleTables += this.#known.forgetFirstStage(this.#walker, domainId, pasid, start, end, leafOnly);
    }
  }
}

const ABSENT: Cached = { page: 0 as PhysPage, prot: 0, lg: 0 };

/** The unit ignores the address bits below the order. */
function blockOf(page: number, order: number): [start: number, end: number] {
  const size = 2 ** order;
  const start = Math.floor(page / size) * size;
  return [start, start + size];
}

/** Context entries of scalable mode belong to no domain. */
const isOfDomain = (entry: LegacyContext | ScalableContext, domainId: number): boolean =>
  !("binding" in entry) || entry.binding.domainId === domainId;
