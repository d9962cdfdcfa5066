/**
 * Judge of the kind dma-prot: direction, coherence and attributes give the kernel's page-table permissions.
 *
 * Direction NONE is in the file and not in our types; a caller without types who passes it gets no permission, as there.
 * `skipCpuSync` is not asked: it changes nothing in the file, which the comparison of all lines shows.
 */
import type { Direction } from "../../src/dma/index.ts";
import { permissions } from "../../src/dma/permissions.ts";
import { CACHE, MMIO, NOEXEC, PRIVILEGED, READ, WRITE } from "../../src/layouts/pagetable/index.ts";
import { type Judge, Tally } from "./judge.ts";

const DIRECTIONS: Readonly<Record<string, string>> = {
  BIDI: "bidirectional",
  TO_DEVICE: "to-device",
  FROM_DEVICE: "from-device",
  NONE: "none",
};

const LETTERS: readonly (readonly [string, number])[] = [
  ["R", READ],
  ["W", WRITE],
  ["C", CACHE],
  ["N", NOEXEC],
  ["M", MMIO],
  ["P", PRIVILEGED],
];

const judgeProt: Judge = (_header, lines) => {
  const tally = new Tally();
  lines.forEach((line, i) => {
    const direction = DIRECTIONS[line["dir"] as string] as Direction;
    const attributes = { mmio: line["mmio"] === true, privileged: line["privileged"] === true };
    const prot = permissions(direction, attributes, line["coherent"] === true);
    const letters = LETTERS.map(([letter, bit]) => ((prot & bit) === 0 ? "" : letter)).join("");
    tally.judge(i + 2, letters === line["prot"] ? [] : [`prot: expected ${line["prot"]}, found ${letters}`]);
  });
  return tally.verdict();
};

export const judges: Readonly<Record<string, Judge>> = { "dma-prot": judgeProt };
