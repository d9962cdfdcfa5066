/** Reads the kernel's log that lies beside a trace. */
import { type KernelLog, readKernelLog } from "../../../analysis/index.ts";
import { DmaError } from "../../../base/index.ts";
import { inputChunks, KernelLogTrace } from "../../../trace/index.ts";
import { openInput } from "../files/input.ts";

/** Messages per batch. */
const BATCH = 4096;

/**
 * The log at `path`, whatever its form.
 *
 * @throws DmaError ERR_DMA_INPUT: no such file, or nothing in it is the kernel's
 */
export async function readLog(path: string, bestEffort: boolean): Promise<KernelLog> {
  const source = await openInput(path, { bestEffort });
  try {
    const lines = new KernelLogTrace(inputChunks(source.input), BATCH);
    const log = await readKernelLog(lines);
    // Any text is lines: something in it has to be the kernel's.
    if (lines.sureLines === 0 && log.understood === 0)
      throw new DmaError(
        "ERR_DMA_INPUT",
        "EINVAL",
        `--kernel-log ${path}: no line of it is the kernel's; what dmesg or journalctl -k print is needed`,
        { path },
      );
    return log;
  } finally {
    await source.close();
  }
}
