/** A device goes on after its buffer was unmapped: through a stale IOTLB in lazy mode; then refused, and the fault read. */

import { Dma, DmaDebug, PhysAddr, PhysPage, requesterId, requesterName } from "dmalink";
import { Arena, DmaDomain, VtdUnit, vtdSecondStage } from "dmalink/iommu";
import { DmaEngine, SimulatedMemory, SimulatedVtdUnit, VirtualClock } from "dmalink/sim";

// A machine with a VT-d unit, driven through its registers and its queue; a device behind it, under checked mode.
const [clock, memory, requester] = [new VirtualClock(), new SimulatedMemory(), requesterId("01:00.0")];
const tableMemory = new Arena({ basePage: PhysPage.of(PhysAddr(0x1_0000_0000)) });
const hardware = new SimulatedVtdUnit({ memory: tableMemory, clock });
const unit = new VtdUnit({ registers: hardware, memory: tableMemory, clock });
const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock, mode: "lazy", tableMemory });
unit.attach(requester, domain.tables);
const debug = new DmaDebug({ print: "none" });
const dma = new Dma({ name: "0000:01:00.0", domain, debug });
const device = new DmaEngine(requester, hardware, memory);
debug.knowAs(dma.device, requester);
device.onAccess = debug.accessed;

const packet = new TextEncoder().encode("a packet");
const buffer = dma.map(PhysAddr(0x2000_0000), 2048, "from-device");
device.write(buffer.address, packet);
buffer.unmap();

// Lazy mode: the entry is gone from the table, and still in the IOTLB until the queue is flushed.
console.log(`right after unmap the write is ${device.write(buffer.address, packet) ? "DONE" : "refused"}`);
for (const finding of debug.report()) console.log(String(finding));

clock.advance(10); // the flush queue's timer
console.log(`after the flush it is ${device.write(buffer.address, packet) ? "DONE" : "refused"}`);
unit.readFaults();
for (const fault of unit.faults.drain())
  if (fault.kind === "translation")
    console.log(
      `fault: ${requesterName(fault.requester)} ${fault.access}s at page 0x${fault.page.toString(16)}, ` +
        `reason ${fault.reason}: ${fault.meaning}`,
    );
if (
  debug
    .report()
    .map(({ code }) => code)
    .join() !== "access-after-unmap"
)
  throw new Error("one late access, one finding");
