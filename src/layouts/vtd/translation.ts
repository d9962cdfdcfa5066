/**
 * Translation: what a context or PASID entry makes of a device's requests.
 *
 * Idea: both modes end in one of four answers, so whoever follows tables need not know which mode it was.
 * A value that the specification reserves is an answer too: hardware blocks such requests.
 * Specified by: VT-d specification, 3.4 to 3.8, 9.3 and 9.6.
 */
import type { PhysPage } from "../../base/index.ts";
import { type ContextEntry, PASID_TRANSLATION_TYPE, type PasidEntry, TRANSLATION_TYPE } from "./roots.ts";

/** Where a stage's tables begin, and how many levels they have. */
export interface StageRoot {
  readonly table: PhysPage;
  readonly levels: 3 | 4 | 5;
}

export type VtdTranslation =
  | { readonly kind: "first-stage"; readonly first: StageRoot }
  | { readonly kind: "second-stage"; readonly second: StageRoot }
  /** The first stage's pointers and outputs are guest-physical: the second stage translates them. */
  | { readonly kind: "nested"; readonly first: StageRoot; readonly second: StageRoot }
  | { readonly kind: "pass-through" }
  | { readonly kind: "reserved"; readonly reason: string };

/** What a present context entry of legacy mode says. */
export function translationOfContext(entry: ContextEntry): VtdTranslation {
  if (entry.translationType === TRANSLATION_TYPE.passThrough) return { kind: "pass-through" };
  if (entry.translationType > TRANSLATION_TYPE.passThrough)
    return { kind: "reserved", reason: `translation type ${entry.translationType} is reserved` };
  const second = secondStage(entry);
  return typeof second === "string" ? { kind: "reserved", reason: second } : { kind: "second-stage", second };
}

/** What a present PASID entry says. */
export function translationOfPasid(entry: PasidEntry): VtdTranslation {
  const type = entry.translationType;
  const { firstStage, nested, passThrough } = PASID_TRANSLATION_TYPE;
  if (type === passThrough) return { kind: "pass-through" };
  if (type < firstStage || type > passThrough)
    return { kind: "reserved", reason: `translation type (PGTT) ${type} is reserved` };
  const first = type === PASID_TRANSLATION_TYPE.secondStage ? undefined : firstStageOf(entry);
  if (typeof first === "string") return { kind: "reserved", reason: first };
  const second = type === firstStage ? undefined : secondStage(entry);
  if (typeof second === "string") return { kind: "reserved", reason: second };
  if (type === nested) return { kind: "nested", first: first!, second: second! };
  return first ? { kind: "first-stage", first } : { kind: "second-stage", second: second! };
}

function secondStage(entry: { addressWidth: number; secondStageTable: PhysPage }): StageRoot | string {
  const levels = entry.addressWidth + 2;
  if (levels === 3 || levels === 4 || levels === 5) return { table: entry.secondStageTable, levels };
  return `address width ${entry.addressWidth} is reserved`;
}

function firstStageOf(entry: PasidEntry): StageRoot | string {
  const mode = entry.firstStagePagingMode;
  if (mode > 1) return `first-stage paging mode ${mode} is reserved`;
  return { table: entry.firstStageTable, levels: mode === 1 ? 5 : 4 };
}
