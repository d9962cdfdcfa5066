/** What a simulated GPU refuses when it is made: one function per error. */
import { DmaError } from "../../../../base/index.ts";
import { GPU_LINKS } from "../../../../layouts/gpu/index.ts";

export const linkTaken = (link: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_GPU_LINK",
    Number.isInteger(link) && link >= 0 && link < GPU_LINKS ? "EBUSY" : "EINVAL",
    `place ${link} of the interconnect cannot be taken: give a free one, 0 to ${GPU_LINKS - 1}`,
    { link },
  );

export const badMemory = (bytes: number): DmaError =>
  new DmaError(
    "ERR_DMA_SIM_GPU_MEMORY",
    "EINVAL",
    `a GPU cannot have ${bytes} bytes of memory: give a power of two from 2 MiB to 1 GiB`,
    { bytes },
  );
