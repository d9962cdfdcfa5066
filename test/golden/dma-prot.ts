/**
 * Judge of the kind dma-prot: direction, coherence and attributes give the kernel's page-table permissions.
 *
 * Direction NONE is in the file and not in our types; a caller without types who passes it gets no permission, as there.
 * `skipCpuSync` is not asked: it changes nothing in the file, which the comparison of all lines shows.
 */
import { permissions } from "../../src/dma/path/permissions.ts";
import { Differences, type Judge, judgeLines } from "./judge.ts";
import { directionOf, permissionLetters } from "./words.ts";

const judgeProt: Judge = (_header, lines) =>
  judgeLines(lines, false, (line) => {
    const attributes = { mmio: line["mmio"] === true, privileged: line["privileged"] === true };
    const prot = permissions(directionOf(line), attributes, line["coherent"] === true);
    const differences = new Differences();
    differences.same("prot", line["prot"], permissionLetters(prot));
    return differences.take();
  });

export const judges: Readonly<Record<string, Judge>> = { "dma-prot": judgeProt };
