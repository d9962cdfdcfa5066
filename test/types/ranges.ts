/** Programs that must not compile: what a range and a mapping refuse before anything runs. */
import { type Dma, PhysAddr } from "dmalink";

declare const dma: Dma;

/** There may be no IOMMU, or no room: whoever reserves must look. */
export function aReservationMayFail(): void {
  // @ts-expect-error: it may be undefined
  dma.tryReserveIova({ length: 4096 }).link(0, PhysAddr(0x1000), 4096, "to-device");
}

/** Directions are three words. */
export function directionsAreWords(): void {
  // @ts-expect-error: as Linux numbers it
  dma.map(PhysAddr(0x1000), 4096, 1);
  // @ts-expect-error: as Linux names it
  dma.map(PhysAddr(0x1000), 4096, "DMA_TO_DEVICE");
}

/** An attribute that does not exist is not silently ignored. */
export function attributesAreNamed(): void {
  // @ts-expect-error: it is called mmio
  dma.map(PhysAddr(0x1000), 4096, "to-device", { MMIO: true });
}

/** A range links memory, not what is mapped already; and handles are made by `Dma` alone. */
export function handlesAreGiven(): void {
  const mapping = dma.map(PhysAddr(0x1000), 4096, "to-device");
  const range = dma.tryReserveIova({ length: 4096 })!;
  // @ts-expect-error: an address of the device is no memory
  range.link(0, mapping.address, 4096, "to-device");
  // @ts-expect-error: only what was reserved can be destroyed
  range.destroy(mapping);
}
