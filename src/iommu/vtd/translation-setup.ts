/**
 * Targets: what the requests of a device are translated by, as its context or PASID entry says it.
 *
 * Idea: tables of a domain (first or second stage), a guest's first stage within them (nested), or nothing at all
 * (pass-through); each checked against the unit before anything is written.
 * Specified by: VT-d specification, 9.3 and 9.6; behaviour of Linux 7.2 (drivers/iommu/intel/pasid.c).
 */
import type { PhysPage } from "../../base/index.ts";
import {
  ABSENT_PASID_ENTRY,
  type ContextEntry,
  PASID_TRANSLATION_TYPE,
  type PasidEntry,
  TRANSLATION_TYPE,
} from "../../layouts/vtd/index.ts";
import type { NestedTables, TableMemory, TranslationTables } from "../../platform/index.ts";
import type { VtdCapabilities } from "./capabilities.ts";
import { badTables, unitLacks } from "./errors.ts";

export interface TranslationSetup {
  readonly domainId: number;
  /** The domain whose tables hold the guest's memory, if this is nested in it. */
  readonly parentId: number | undefined;
  /** Which kind of IOTLB entries its translations become; undefined if it has none. */
  readonly iotlb: "first" | "second" | undefined;
  /** When it goes: the IOTLB forgets all of the PASID, or all of the domain. */
  readonly forgets: "pasid" | "domain";
  /** Legacy mode. */
  context(deviceTlb: boolean): ContextEntry;
  /** Scalable mode. */
  pasid(): PasidEntry;
}

const modeName = (scalable: boolean): string => (scalable ? "scalable" : "legacy");

/** The stage that tables of this format are for. */
function stageOf(tables: TranslationTables, memory: TableMemory, unit: VtdCapabilities, scalable: boolean) {
  const { name } = tables.layout;
  const levels = tables.topLevel() + 1;
  const bad = (why: string) => badTables(name, levels, modeName(scalable), why);
  if (tables.memory !== memory) throw bad("they lie in another table memory than the unit's own");
  if (name === "vtd-second-stage") {
    if (!unit.secondStage) throw bad("the unit has no second stage");
    if (!unit.secondStageLevels.includes(levels))
      throw bad(`the unit walks ${unit.secondStageLevels.join(" or ")} levels of the second stage`);
    return "second";
  }
  if (name !== "x86-64") throw bad("VT-d walks x86-64 and VT-d second-stage tables");
  if (!scalable) throw bad("first-stage tables need scalable mode");
  if (!unit.firstStage) throw bad("the unit has no first stage");
  checkFirstStage(levels, unit);
  return "first";
}

function checkFirstStage(levels: number, unit: VtdCapabilities): void {
  if (levels === 4 || (levels === 5 && unit.fiveLevelFirstStage)) return;
  throw badTables("x86-64", levels, "scalable", `the unit walks 4${unit.fiveLevelFirstStage ? " or 5" : ""} levels`);
}

/** AW: of the tables, or the widest that the unit has where there are none. */
const addressWidth = (unit: VtdCapabilities, levels?: number): number =>
  (levels ?? unit.secondStageLevels.at(-1) ?? 4) - 2;

const contextEntry = (type: number, table: PhysPage, width: number, domainId: number): ContextEntry => ({
  present: true,
  faultProcessingDisable: false,
  translationType: type,
  secondStageTable: table,
  addressWidth: width,
  domainId,
});

const pasidEntry = (unit: VtdCapabilities, fields: Partial<PasidEntry>): PasidEntry => ({
  ...ABSENT_PASID_ENTRY,
  present: true,
  walkSnoop: unit.walkSnoop,
  ...fields,
});

/** A domain's own tables. @throws DmaError ERR_DMA_VTD_TABLES (EINVAL) */
export function tablesSetup(
  tables: TranslationTables,
  memory: TableMemory,
  unit: VtdCapabilities,
  scalable: boolean,
): TranslationSetup {
  const stage = stageOf(tables, memory, unit, scalable);
  const { domainId } = tables;
  const levels = tables.topLevel() + 1;
  const width = addressWidth(unit, stage === "second" ? levels : undefined);
  const { secondStage, secondStageWithDeviceTlb } = TRANSLATION_TYPE;
  return {
    domainId,
    parentId: undefined,
    iotlb: stage,
    forgets: stage === "first" ? "pasid" : "domain",
    context: (deviceTlb) =>
      contextEntry(deviceTlb ? secondStageWithDeviceTlb : secondStage, tables.root(), width, domainId),
    pasid: () =>
      stage === "first"
        ? pasidEntry(unit, {
            translationType: PASID_TRANSLATION_TYPE.firstStage,
            addressWidth: width,
            firstStagePagingMode: levels - 4,
            firstStageTable: tables.root(),
            domainId,
          })
        : pasidEntry(unit, {
            translationType: PASID_TRANSLATION_TYPE.secondStage,
            addressWidth: width,
            secondStageTable: tables.root(),
            domainId,
          }),
  };
}

/** No tables: addresses are physical. @throws DmaError ERR_DMA_VTD_CAPABILITY (EOPNOTSUPP) */
export function passThroughSetup(domainId: number, unit: VtdCapabilities, scalable: boolean): TranslationSetup {
  if (!unit.passThrough) throw unitLacks("pass-through", "requests shall reach memory as they are");
  const width = addressWidth(unit);
  return {
    domainId,
    parentId: undefined,
    iotlb: undefined,
    forgets: scalable ? "pasid" : "domain",
    context: () => contextEntry(TRANSLATION_TYPE.passThrough, 0 as PhysPage, width, domainId),
    pasid: () =>
      pasidEntry(unit, { translationType: PASID_TRANSLATION_TYPE.passThrough, addressWidth: width, domainId }),
  };
}

/** A guest's first stage in a parent's second. @throws DmaError ERR_DMA_VTD_TABLES (EINVAL), _CAPABILITY (EOPNOTSUPP) */
export function nestedSetup(
  domainId: number,
  first: NestedTables,
  parent: TranslationTables,
  memory: TableMemory,
  unit: VtdCapabilities,
  scalable: boolean,
): TranslationSetup {
  if (!scalable || !unit.nested) throw unitLacks("nested translation", "a guest's tables shall be nested in another's");
  const stage = stageOf(parent, memory, unit, scalable);
  const levels = parent.topLevel() + 1;
  if (stage === "first") throw badTables(parent.layout.name, levels, "scalable", "a parent has second-stage tables");
  checkFirstStage(first.levels, unit);
  return {
    domainId,
    parentId: parent.domainId,
    iotlb: "first",
    forgets: "domain",
    context: () => contextEntry(TRANSLATION_TYPE.secondStage, parent.root(), levels - 2, domainId),
    pasid: () =>
      pasidEntry(unit, {
        translationType: PASID_TRANSLATION_TYPE.nested,
        addressWidth: levels - 2,
        secondStageTable: parent.root(),
        firstStagePagingMode: first.levels - 4,
        firstStageTable: first.table,
        domainId,
      }),
  };
}
