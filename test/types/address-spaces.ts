/**
 * Programs that must not compile: every line marked so is an error, and the type check fails when one is no more.
 *
 * Addresses have the kind of who understands them, so mixing two address spaces, or bytes with pages, is caught by the
 * compiler and not by a device.
 */
import { type Dma, type DmaAddr, type Iova, type IovaPage, PhysAddr, PhysPage } from "dmalink";
import type { DmaDomain } from "dmalink/iommu";

declare const dma: Dma;
declare const domain: DmaDomain;
declare const iova: Iova;
declare const page: IovaPage;
declare const address: DmaAddr;

/** A physical address goes in, a DMA address comes out: neither takes the other's place. */
export function inputIsNotOutput(): void {
  const mapping = dma.map(PhysAddr(0x1000), 4096, "to-device");
  // @ts-expect-error: what mapping gave cannot be mapped again
  dma.map(mapping.address, 4096, "to-device");
  // @ts-expect-error: unmapping takes what mapping gave, not what it was given
  dma.unmapPhys(PhysAddr(0x1000), 4096, "to-device");
  // @ts-expect-error: a plain number has no address space
  dma.map(0x1000, 4096, "to-device");
}

/** Bytes are not pages. */
export function bytesAreNotPages(): void {
  // @ts-expect-error: a domain maps pages, not bytes
  domain.map(iova, PhysPage.of(PhysAddr(0x1000)), 1, 0);
  // @ts-expect-error: an IOVA page is not a page of memory
  domain.map(page, page, 1, 0);
  // @ts-expect-error: a page of memory is not its address
  dma.map(PhysPage.of(PhysAddr(0x1000)), 4096, "to-device");
  // @ts-expect-error: a device's address is not one of memory
  PhysPage.of(address);
}

/** Input lists are not output lists. */
export function vectorsAreNotSegments(): void {
  const mapping = dma.mapVecs([{ phys: PhysAddr(0x1000), length: 4096 }], "to-device");
  // @ts-expect-error: outputs cannot be mapped
  dma.mapVecs(mapping.vecs, "to-device");
}
