/**
 * The catalogue of page-table formats: what there is to choose from, each under the one name that it has everywhere.
 *
 * Idea: whoever offers formats (replay, simulation, the command line, the suites) reads this list, so that a format is added by
 * its own file and a line here. Each entry makes the configuration that Linux uses on most machines; the functions beside
 * it make any other.
 */
import { amdV1 } from "./amd-v1.ts";
import { armLpae } from "./arm-lpae.ts";
import type { TableLayout } from "./layout.ts";
import { riscv } from "./riscv.ts";
import { vtdSecondStage } from "./vtd-second-stage.ts";
import { x86_64 } from "./x86-64.ts";

/** What a format is called: by its layout, and by users who type it. */
export type FormatName = "vtd-second-stage" | "x86-64" | "amd-v1" | "riscv-sv48" | "arm-stage1-4k" | "arm-stage1-64k";

/** One format to choose. */
export interface TableFormat {
  /** The name it has everywhere: in options, reports and golden files. */
  readonly name: FormatName;
  /** For people, in a few words. */
  readonly summary: string;
  /** The specification, and its section. */
  readonly source: string;
  /** The layout of the format, with the widths that it is usually built with. */
  make(): TableLayout;
}

const arm = (pageSizes: bigint): TableLayout =>
  armLpae({ stage: 1, pageSizes, inputBits: 48, outputBits: 48 }) as TableLayout;

type Entry = readonly [summary: string, source: string, make: () => TableLayout];

const FORMATS: Readonly<Record<FormatName, Entry>> = {
  "vtd-second-stage": ["Intel VT-d, second stage", "VT-d specification, 9.8", () => vtdSecondStage()],
  "x86-64": [
    "x86-64, and Intel VT-d's first stage",
    "Intel SDM volume 3, 4.5; VT-d specification, 9.7",
    () => x86_64(),
  ],
  "amd-v1": ["AMD IOMMU, version 1", "AMD I/O virtualisation specification, 2.2.3", () => amdV1()],
  "riscv-sv48": ["RISC-V Sv48, Svnapot", "RISC-V privileged specification, 10.5", () => riscv({ svnapot: true })],
  "arm-stage1-4k": ["Arm LPAE, stage 1, pages of 4 KiB", "Arm ARM, D8", () => arm(0x4020_1000n)],
  "arm-stage1-64k": ["Arm LPAE, stage 1, pages of 64 KiB", "Arm ARM, D8", () => arm(0x2001_0000n)],
};

/** Every format, the usual one first. */
export const TABLE_FORMATS: readonly TableFormat[] = Object.entries(FORMATS).map(([name, [summary, source, make]]) => ({
  name: name as FormatName,
  summary,
  source,
  make,
}));

/** Names of {@link TABLE_FORMATS}. */
export const FORMAT_NAMES: readonly FormatName[] = TABLE_FORMATS.map(({ name }) => name);

/** The layout of a format, made anew. */
export const layoutNamed = (name: FormatName): TableLayout => FORMATS[name][2]();
