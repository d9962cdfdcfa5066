/** What tracking of a guest's memory refuses. One function per error. */
import { DmaError } from "../../../../base/index.ts";

/** Memory that is none. */
export const badLayout = (blocks: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_RAM_LAYOUT",
    "EINVAL",
    "a guest's memory is one block or more, of whole pages, ascending and disjoint",
    { blocks },
  );
