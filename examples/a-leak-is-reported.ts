/** A driver forgets one of its mappings: checked mode says which, and the line that made it. */

import { Dma, DmaDebug, type DmaMapping, PhysAddr } from "dmalink";
import { DmaDomain, vtdSecondStage } from "dmalink/iommu";
import { SimulatedUnit, VirtualClock } from "dmalink/sim";

const debug = new DmaDebug({ print: "none" });
const unit = new SimulatedUnit();
const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock: new VirtualClock(), mode: "strict" });
const dma = new Dma({ name: "0000:01:00.0", domain, debug });

// A driver with a ring of buffers, and one for itself, which its way out forgets.
const ring: DmaMapping[] = [];
function open(): void {
  for (let i = 0; i < 4; i++) ring.push(dma.map(PhysAddr(0x2000_0000 + i * 4096), 2048, "from-device"));
  dma.map(PhysAddr(0x3000_0000), 512, "to-device");
}
function close(): void {
  for (const buffer of ring.splice(0)) buffer.unmap();
  debug.driverUnbound(dma.device);
}

open();
console.log(`while it runs, ${debug.live().length} mappings are live`);
close();
for (const finding of debug.report()) console.log(String(finding));
for (const { address, length, direction, site } of debug.live())
  console.log(`still live: ${length} bytes at 0x${address.toString(16)}, ${direction}, mapped at ${site}`);
console.log("as the kernel would list it:", debug.dump()[0]);

const codes = debug.report().map(({ code }) => code);
if (codes.join() !== "unbound-with-live") throw new Error("the leak should be the one finding");
if (!debug.live()[0]?.site?.includes("a-leak-is-reported.ts:16")) throw new Error("and its line should be known");
