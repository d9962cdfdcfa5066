/**
 * The VT-d units of a machine as one: each device is behind one of them, and a domain may be behind several.
 *
 * Promises: what is told of a domain goes to every unit that has devices of it, each in a submission of its own.
 * Specified by: VT-d specification, 8.3 (which devices a unit has); behaviour of Linux 7.2.
 */
import type { IovaPage } from "../../base/index.ts";
import type {
  AttachOptions,
  NestedTables,
  Requester,
  TranslationTables,
  TranslationUnit,
} from "../../platform/index.ts";
import type { VtdUnit } from "./unit.ts";

/**
 * Several VT-d units as one: each device is behind one of them, and an invalidation of a domain goes to every unit that has
 * devices of it.
 */
export class VtdUnits implements TranslationUnit {
  /** All of them, as they were given. */
  readonly units: readonly VtdUnit[];
  readonly #unitOf: (requester: Requester) => VtdUnit;

  /** `unitOf` answers one of `units`. */
  constructor(units: readonly VtdUnit[], unitOf: (requester: Requester) => VtdUnit) {
    this.units = units;
    this.#unitOf = unitOf;
  }

  /** Bits that the PASIDs of every unit have. */
  get pasidBits(): number {
    return Math.min(...this.units.map(({ pasidBits }) => pasidBits));
  }

  /** @throws as {@link VtdUnit.attach} */
  attach(requester: Requester, tables: TranslationTables, options?: AttachOptions): void {
    this.#unitOf(requester).attach(requester, tables, options);
  }

  /** @throws as {@link VtdUnit.attach} */
  attachPassThrough(requester: Requester, domainId: number, options?: AttachOptions): void {
    this.#unitOf(requester).attachPassThrough(requester, domainId, options);
  }

  /** @throws as {@link VtdUnit.attach} */
  attachNested(
    requester: Requester,
    domainId: number,
    nested: NestedTables,
    parent: TranslationTables,
    options?: AttachOptions,
  ): void {
    this.#unitOf(requester).attachNested(requester, domainId, nested, parent, options);
  }

  detach(requester: Requester): void {
    this.#unitOf(requester).detach(requester);
  }

  detachPasid(requester: Requester, pasid: number): void {
    this.#unitOf(requester).detachPasid(requester, pasid);
  }

  invalidateRange(domainId: number, start: IovaPage, end: IovaPage, leavesOnly: boolean): void {
    for (const unit of this.units) unit.invalidateRange(domainId, start, end, leavesOnly);
  }

  invalidateDomain(domainId: number): void {
    for (const unit of this.units) unit.invalidateDomain(domainId);
  }

  syncMap(domainId: number, start: IovaPage, end: IovaPage): boolean {
    let told = false;
    for (const unit of this.units) told = unit.syncMap(domainId, start, end) || told;
    return told;
  }
}
