/**
 * Registers of an IOMMU beside a snapshot of its tables: where the tables begin.
 *
 * Idea: a few lines of JSON that whoever takes a snapshot writes: `{ "registers": { "rtaddr": "0xdea400" } }`, of an SMMUv3
 * `strtabBase` and `strtabBaseCfg`. Not for: finding the file; that is the caller's.
 */
import { readSmmuTables, type SmmuRegisters } from "./smmu-tables.ts";
import type { Snapshot } from "./snapshot.ts";
import { readUnitTables, type UnitTables } from "./tables.ts";

/** Registers of the unit whose tables a snapshot holds: those of VT-d, or those of an SMMU. */
export interface UnitRegisters {
  readonly root: bigint;
  /** The unit is an SMMUv3: then `root` is 0. */
  readonly smmu?: SmmuRegisters;
  readonly isRegister?: boolean;
  readonly capability?: bigint;
  readonly status?: bigint;
}

/** What a parsed JSON says; `undefined`: it has neither a VT-d root nor an SMMU's stream table. */
export function registersOf(json: unknown): UnitRegisters | undefined {
  const registers = (json as { registers?: Record<string, unknown> } | null)?.registers;
  const value = (name: string): bigint | undefined => {
    const given = registers?.[name];
    return typeof given === "string" && /^0x[0-9a-f]{1,16}$/i.test(given) ? BigInt(given) : undefined;
  };
  const [strtabBase, strtabBaseCfg] = [value("strtabBase"), value("strtabBaseCfg")];
  if (strtabBase !== undefined && strtabBaseCfg !== undefined) return { root: 0n, smmu: { strtabBase, strtabBaseCfg } };
  const root = value("rtaddr");
  if (root === undefined) return undefined;
  const [capability, status] = [value("cap"), value("gsts")];
  return {
    root,
    isRegister: true,
    ...(capability !== undefined && { capability }),
    ...(status !== undefined && { status }),
  };
}

/** What the unit with these registers translates by; `device`: that one alone. */
export function unitTables(
  snapshot: Snapshot,
  { smmu, ...registers }: UnitRegisters,
  device?: { readonly segment: number; readonly bus: number; readonly function: number },
): UnitTables {
  if (smmu) return readSmmuTables(snapshot, smmu, device);
  return readUnitTables(snapshot, {
    ...registers,
    ...(device && { device: { bus: device.bus, function: device.function }, segment: device.segment }),
  });
}
