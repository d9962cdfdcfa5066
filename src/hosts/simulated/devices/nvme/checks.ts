/**
 * What a simulated NVMe controller can be asked to be: the numbers of its options, checked before it is one.
 *
 * Not for: what a driver does with it; that is answered with a status.
 * Specified by: NVM Express base specification 2.0, 3.1.4 (controller properties): how many bits each has.
 */
import { badNvmeOption } from "../../errors.ts";
import type { NvmeModelOptions } from "./options.ts";

/** Blocks and metadata are counted by two and by one byte of shift and length in the format's description. */
const LEAST_BLOCK_SHIFT = 9;
const MOST_BLOCK_BYTES = 2 ** 31;
const MOST_METADATA_BYTES = 0xffff;

type Range = readonly [least: number, most: number];

const COUNTS: Readonly<Partial<Record<keyof NvmeModelOptions, Range>>> = {
  vectors: [0, 2048],
  ioQueues: [1, 65_535],
  maxQueueEntries: [2, 65_536],
  maxTransferShift: [0, 255],
  sgls: [0, 2 ** 32 - 1],
  doorbellStride: [0, 15],
  minPageShift: [0, 15],
  cmbBytes: [0, 2 ** 31],
};

/** @throws DmaError ERR_DMA_SIM_NVME (EINVAL) */
export function checkNvmeOptions(options: NvmeModelOptions): void {
  for (const [name, range] of Object.entries(COUNTS)) {
    const value = options[name as keyof NvmeModelOptions];
    if (value !== undefined) checkCount(name, value, range);
  }
  for (const name of ["readyMs", "serviceMs"] as const) {
    const value = options[name];
    if (value !== undefined && !(Number.isFinite(value) && value >= 0))
      throw badNvmeOption(name, value, "a number of milliseconds from 0 on");
  }
  if (!Array.isArray(options.namespaces))
    throw badNvmeOption("namespaces", options.namespaces, "an array such as [{ blocks: 1024 }]");
  options.namespaces.forEach(({ blocks, blockBytes = 512, metadataBytes = 0 }, i) => {
    checkCount(`namespaces[${i}].blocks`, blocks, [1, Number.MAX_SAFE_INTEGER]);
    const isSize = blockBytes >= 2 ** LEAST_BLOCK_SHIFT && blockBytes <= MOST_BLOCK_BYTES;
    if (!(isSize && Number.isInteger(Math.log2(blockBytes))))
      throw badNvmeOption(`namespaces[${i}].blockBytes`, blockBytes, "a power of two from 512 to 2^31");
    checkCount(`namespaces[${i}].metadataBytes`, metadataBytes, [0, MOST_METADATA_BYTES]);
  });
}

function checkCount(name: string, value: unknown, [least, most]: Range): void {
  if (!(Number.isInteger(value) && (value as number) >= least && (value as number) <= most))
    throw badNvmeOption(
      name,
      value,
      `a whole number from ${least} to ${most === Number.MAX_SAFE_INTEGER ? "2^53 - 1" : most}`,
    );
}
