/** Which mappings a command is asked about, from its words to the analysis, and what is said when there are none such. */
import { isSelective, type Selection } from "../../../analysis/index.ts";
import { DmaError } from "../../../base/index.ts";

/** The values of the options that select. */
export interface SelectionWords {
  readonly device: readonly string[];
  readonly task: readonly string[];
  readonly cpu: readonly number[];
}

/** What is asked for; `undefined`: all. */
export function selectionOf({ device, task, cpu }: SelectionWords): { readonly selection?: Selection } {
  const selection = { devices: device, tasks: task, cpus: cpu };
  return isSelective(selection) ? { selection } : {};
}

/**
 * A device that no event names would make every trace look clean; so would a task or a CPU that nothing is of.
 *
 * @throws DmaError ERR_DMA_INPUT (ENODEV, ENOENT): what there is
 */
export function refuseUnknown(
  { selection = {} }: { readonly selection?: Selection },
  devices: Iterable<string>,
  mappings: number,
): void {
  const found = new Set(devices);
  for (const device of selection.devices ?? [])
    if (!found.has(device))
      throw new DmaError(
        "ERR_DMA_INPUT",
        "ENODEV",
        `--device ${device}: no event names it; ${found.size === 0 ? "none names any" : `there are ${[...found].sort().join(", ")}`}`,
        { device },
      );
  const { tasks = [], cpus = [] } = selection;
  if (mappings > 0 || tasks.length + cpus.length === 0) return;
  const asked = [
    ...(tasks.length > 0 ? [`--task ${tasks.join(",")}`] : []),
    ...(cpus.length > 0 ? [`--cpu ${cpus.join(",")}`] : []),
  ];
  throw new DmaError(
    "ERR_DMA_INPUT",
    "ENOENT",
    `${asked.join(" ")}: no mapping began there; who began which: dmalink query TRACE "select task, pid, cpu, count(*) from mappings group by all"`,
    { tasks, cpus },
  );
}
