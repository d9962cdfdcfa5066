/** What is live when a trace ends, for programs. */
import type { LiveAtEnd } from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import { directionWord } from "../recording.ts";
import { clockNs } from "./clock.ts";

/** The list as data. Addresses are hex strings, times nanoseconds on the trace's clock, lengths bytes. */
export const liveJson = (live: readonly LiveAtEnd[], timeBase: bigint): readonly object[] =>
  live.map(
    ({ device, kind, iova, length, phys, direction, isDirect, startNs, ageNs, typicalNs, task, pid, site, code }) => ({
      device: device ?? null,
      kind,
      iova: hex(iova),
      length,
      phys: phys === undefined ? null : hex(phys),
      direction: directionWord(direction) ?? null,
      direct: isDirect,
      timeNs: clockNs(startNs, timeBase),
      ageNs: Math.round(ageNs),
      typicalNs: typicalNs ?? null,
      task: startNs === undefined ? null : `${task}-${pid}`,
      ...(site !== undefined && { caller: site }),
      ...(code && { code }),
    }),
  );
