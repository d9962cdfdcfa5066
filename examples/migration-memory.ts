/** What a gigabyte of migration buffer costs in each form, counted from real mappings, for memory that lies in pieces of any size. */

import { Dma, GiB, type PhysPage } from "dmalink";
import { DmaDomain, vtdSecondStage } from "dmalink/iommu";
import { SimulatedMemory, SimulatedUnit, VirtualClock } from "dmalink/sim";
import { bookkeepingBytes, DataBuffer, RANGE_STATE_BYTES } from "dmalink/vfio";

const FORMS = [
  { name: "scatter table", form: "scatterlist", keepsAddresses: false },
  { name: "page list (7.2)", form: "page-list", keepsAddresses: true },
  { name: "page list only", form: "page-list", keepsAddresses: false },
  { name: "runs", form: "runs", keepsAddresses: false },
] as const;

/** Memory that comes in pieces of `blockPages`, aligned, with as much between each two. */
function pieces(blockPages: number): { allocatePages: () => PhysPage; freePages: () => void } {
  let page = 2 ** 20;
  return {
    allocatePages() {
      page += 2 * blockPages;
      return page as PhysPage;
    },
    freePages() {},
  };
}

const unit = new SimulatedUnit();
const clock = new VirtualClock();
const memory = new SimulatedMemory();
const keys = { isPresent: true, createKey: () => 1, destroyKey: () => {} };
const row = (cells: readonly (string | number)[]): string => cells.map((cell) => String(cell).padStart(16)).join("");
console.log(row(["1 GiB in pieces of", "pieces", ...FORMS.map(({ name }) => name), "leaves by page", "leaves by run"]));
for (const blockPages of [GiB / 4096, 512, 16, 1]) {
  const shape = { pages: GiB / 4096, runs: GiB / 4096 / blockPages };
  const leaves: number[] = [];
  const costs = FORMS.map(({ form, keepsAddresses }) => {
    const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock, mode: "strict" });
    const dma = new Dma({ domain });
    const pages = pieces(blockPages);
    const buffer = new DataBuffer({ dma, memory, pages, keys, form, keepsAddresses, blockPages }, GiB, "from-device");
    buffer.register();
    const bytes = buffer.metadataBytes - (form === "scatterlist" ? 0 : RANGE_STATE_BYTES);
    leaves.push(dma.counters.leavesWritten);
    if (dma.counters.mapSyncs !== 1) throw new Error(`${form}: ${dma.counters.mapSyncs} syncs`);
    buffer.free();
    if (bytes !== bookkeepingBytes(form, shape, { keepsAddresses })) throw new Error(`${form}: ${bytes}`);
    if (dma.counters.leavesCleared !== dma.counters.leavesWritten)
      throw new Error(`${form}: something is still mapped`);
    return bytes;
  });
  const [table, kept, , runs] = costs as [number, number, number, number];
  const worse = [
    ...(kept > table ? [`the page list is ${Math.round(kept / table)} times the scatter table`] : []),
    ...(runs > costs[2]! ? ["runs are twice the page list alone"] : []),
  ];
  console.log(`${row([`${blockPages * 4} KiB`, shape.runs, ...costs, leaves[1]!, leaves[3]!])}  ${worse.join("; ")}`);
}
