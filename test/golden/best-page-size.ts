/** Judge of the best-page-size files: which size of blocks an RDMA region gets, and how many entries its list then has. */
import { bestPageSize, pageListEntries } from "../../src/consumers/rdma/index.ts";
import { Differences, type Judge, judgeLines, type Line } from "./judge.ts";

/** Ranges of a line, as runs. */
const runsOf = (line: Line): { address: number; length: number }[] =>
  (line["ranges"] as [string, string][]).map(([address, length]) => ({
    address: Number(address),
    length: Number(length),
  }));

export const judges: Readonly<Record<string, Judge>> = {
  "best-page-size": (_header, lines) => {
    const differences = new Differences();
    return judgeLines(lines, false, (line) => {
      const virt = BigInt(line["virt"] as string);
      const length = Number(line["len"]);
      const firstOffset = Number(line["firstOffset"]);
      const best = bestPageSize({ runs: runsOf(line), firstOffset, virt, length, sizes: Number(line["sizes"]) });
      differences.same("best", line["best"], `0x${best.toString(16)}`);
      if (line["entries"] !== undefined) {
        const entries = best === 0 ? undefined : pageListEntries(virt, length, best);
        differences.same("entries", line["entries"], entries);
      }
      return differences.take();
    });
  },
};
