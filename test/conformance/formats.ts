/**
 * Every page-table format under every configuration that matters: one row each, for the suites that all must pass.
 *
 * What a format cannot do stands in its row with the reason, and the suites name it instead of skipping it.
 */
import { ERRNO } from "../../src/base/index.ts";
import { amdV1, armLpae, riscv, type TableLayout, vtdSecondStage, x86_64 } from "../../src/layouts/pagetable/index.ts";

export interface Format {
  readonly name: string;
  layout(): TableLayout;
  /** A map over something live answers this. */
  readonly occupied: number;
  /** A length or address that is not whole pages answers this. */
  readonly misaligned: number;
  /** Why there is no dirty state to read. */
  readonly noDirty?: string;
  /** Why an unmap that meets a hole does not simply stop there. */
  readonly noStopAtHole?: string;
}

const GENERIC = { occupied: -ERRNO.EADDRINUSE, misaligned: -ERRNO.ENXIO } as const;
const LEGACY = {
  occupied: -ERRNO.EEXIST,
  misaligned: -ERRNO.EINVAL,
  noStopAtHole: "it works in rounds of one size: a table under a whole block goes with its holes",
} as const;
const BORN_DIRTY = "a writable leaf is dirty from birth";
const STAGE_2 = "dirty state is tracked in stage 1 alone";

const arm = (options: Omit<Parameters<typeof armLpae>[0], "outputBits"> & { outputBits?: number }): TableLayout =>
  armLpae({ outputBits: 48, ...options })!;
const [PAGES_4K, PAGES_16K, PAGES_64K] = [0x4020_1000n, 0x200_4000n, 0x2001_0000n];

export const formats: readonly Format[] = [
  { name: "x86-64, 4 levels", layout: () => x86_64(), ...GENERIC, noDirty: BORN_DIRTY },
  { name: "x86-64, 5 levels", layout: () => x86_64({ levels: 5 }), ...GENERIC, noDirty: BORN_DIRTY },
  {
    name: "x86-64, encrypted",
    layout: () => x86_64({ encryptionBit: 47, outputBits: 47 }),
    ...GENERIC,
    noDirty: BORN_DIRTY,
  },
  { name: "x86-64, 4 KiB alone", layout: () => x86_64({ leafSizes: [0] }), ...GENERIC, noDirty: BORN_DIRTY },
  { name: "VT-d second stage, 3 levels", layout: () => vtdSecondStage({ levels: 3 }), ...GENERIC },
  { name: "VT-d second stage, 4 levels", layout: () => vtdSecondStage(), ...GENERIC },
  {
    name: "VT-d second stage, 5 levels, snooping",
    layout: () => vtdSecondStage({ levels: 5, forceSnoop: true }),
    ...GENERIC,
  },
  { name: "AMD v1", layout: () => amdV1(), ...GENERIC },
  { name: "AMD v1, 4 KiB, 64 KiB, 2 MiB", layout: () => amdV1({ leafSizes: [0, 4, 9] }), ...GENERIC },
  { name: "AMD v1, encrypted", layout: () => amdV1({ encryptionBit: 47, outputBits: 47 }), ...GENERIC },
  { name: "RISC-V Sv39", layout: () => riscv({ mode: "Sv39" }), ...GENERIC, noDirty: BORN_DIRTY },
  { name: "RISC-V Sv48, Svnapot", layout: () => riscv({ svnapot: true }), ...GENERIC, noDirty: BORN_DIRTY },
  {
    name: "RISC-V Sv57, Svnapot, Svpbmt",
    layout: () => riscv({ mode: "Sv57", svnapot: true, svpbmt: true }),
    ...GENERIC,
    noDirty: BORN_DIRTY,
  },
  {
    name: "Arm stage 1, 4 KiB",
    layout: () => arm({ stage: 1, pageSizes: PAGES_4K, inputBits: 48, hardwareDirty: true }),
    ...LEGACY,
  },
  {
    name: "Arm stage 1, 16 KiB",
    layout: () => arm({ stage: 1, pageSizes: PAGES_16K, inputBits: 47, hardwareDirty: true }),
    ...LEGACY,
  },
  {
    name: "Arm stage 1, 64 KiB",
    layout: () => arm({ stage: 1, pageSizes: PAGES_64K, inputBits: 48, outputBits: 52, hardwareDirty: true }),
    ...LEGACY,
  },
  {
    name: "Arm stage 2, 4 KiB, concatenated top",
    layout: () => arm({ stage: 2, pageSizes: PAGES_4K, inputBits: 40, outputBits: 40 }),
    ...LEGACY,
    noDirty: STAGE_2,
  },
  {
    name: "Arm stage 2, 64 KiB",
    layout: () => arm({ stage: 2, pageSizes: PAGES_64K, inputBits: 48 }),
    ...LEGACY,
    noDirty: STAGE_2,
  },
];
