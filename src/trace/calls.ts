/**
 * What came of the call that an event reports: done, failed, or nothing to do.
 *
 * Idea: the kernel traces calls that failed too. Some by an event of their own (`dma_map_sg_err`), some by the value they
 * returned: no memory (a null pointer), or the address that means "mapping failed", all ones. A failed call made no mapping;
 * giving back a null pointer is allowed and does nothing.
 * Specified by: dma.h of Linux 6.12 to 7.2; DMA_MAPPING_ERROR, all bits of the kernel's `dma_addr_t`.
 */
import { type KnownEvent, known } from "./catalogue.ts";
import type { EventBatch, EventType } from "./events.ts";

/** 0: done. {@link NOTHING_DONE}: a call that has no effect. Negative: failed, by the kernel's number of the error. */
export type Outcome = number;

/** The call failed: it neither began nor ended anything. */
export const NOTHING_DONE = 1;
/** No memory: what an allocation that returned nothing failed of. */
export const ENOMEM = -12;
/** The event does not say why: the call returned "mapping failed". */
export const EIO = -5;

/** Names of the errors that the DMA API returns. */
export const ERRNO_NAMES: Readonly<Record<number, string>> = {
  [-5]: "EIO",
  [-12]: "ENOMEM",
  [-22]: "EINVAL",
  [-121]: "EREMOTEIO",
};

const ALL_ONES = 0xffff_ffff;

/** Answers for one type of event what came of each. */
export type OutcomeOf = (batch: EventBatch, row: number) => Outcome;

const done: OutcomeOf = () => 0;

/**
 * The answerer for `type`. `longBytes` is 4 on a kernel of 32 bits (`Trace.longBytes`): there, 32 ones are a failure. Where
 * the width is not known, 32 ones are one only if they cannot be an address: the page offset is not the memory's.
 */
export function outcomeOf(
  type: EventType,
  longBytes: number | undefined,
  event: KnownEvent | undefined = known(type),
): OutcomeOf {
  if (!event) return done;
  const { dmaAddr, physAddr, virtAddr, error } = event.fields;
  const at = (batch: EventBatch, row: number, field: number): number => batch.start[row]! + field * 2;
  const isNull = (batch: EventBatch, row: number): boolean => {
    if (virtAddr === undefined) return false;
    const word = at(batch, row, virtAddr);
    return batch.words[word] === 0 && batch.words[word + 1] === 0;
  };
  switch (event.meaning) {
    case "dma-failed":
      return error === undefined ? () => ENOMEM : (batch, row) => batch.words[at(batch, row, error)]! | 0;
    case "dma-alloc":
      return (batch, row) =>
        isNull(batch, row) ? ENOMEM : isMappingError(batch, at(batch, row, dmaAddr!), -1, longBytes) ? EIO : 0;
    case "dma-free":
      return (batch, row) => (isNull(batch, row) ? NOTHING_DONE : 0);
    case "dma-map":
      return (batch, row) => {
        const offset = physAddr === undefined ? -1 : batch.words[at(batch, row, physAddr)]! & 0xfff;
        return isMappingError(batch, at(batch, row, dmaAddr!), offset, longBytes) ? EIO : 0;
      };
    default:
      return done;
  }
}

/** Whether the address at `word` is the one that means failure; `offset` is that of the memory in its page, -1 unknown. */
function isMappingError(batch: EventBatch, word: number, offset: number, longBytes: number | undefined): boolean {
  if (batch.words[word] !== ALL_ONES) return false;
  const high = batch.words[word + 1];
  if (high === ALL_ONES) return true;
  return high === 0 && (longBytes === 4 || (offset >= 0 && offset !== 0xfff));
}
