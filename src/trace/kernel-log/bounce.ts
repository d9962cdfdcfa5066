/**
 * The bounce pool's lines, and the direct mapping's: memory that a device cannot reach and that could not be bounced either.
 *
 * Specified by: the sentences of Linux 3.x to 7.2 (swiotlb, dma-direct).
 */
import { type FactSink, type MessageReader, shown } from "./facts.ts";
import { decimal, deviceName, hexBits, ownerBefore } from "./names.ts";

const FULL =
  /swiotlb buffer is full(?: \(sz: (\d{1,15}) bytes\))?(?:, total (\d{1,15}) \(slots\), used (\d{1,15}) \(slots\))?/;
const OUT_OF_SPACE = /Out of SW-IOMMU space for (\d{1,15}) bytes(?: at device (\S{1,64}))?/;
const OVERFLOW =
  /(?:DMA addr |overflow )0x([0-9a-f]{1,16})\+(\d{1,15}) (?:overflow \(mask |of DMA mask )([0-9a-f]{1,16})/;

export class BounceReader<At> implements MessageReader<At> {
  readonly #emit: FactSink<At>;
  /** Device of the last full pool: kernels of an age print a second line of the same. */
  #last: string | undefined;

  constructor(emit: FactSink<At>) {
    this.#emit = emit;
  }

  read(message: string, at: At): boolean {
    const full = FULL.exec(message);
    if (full) {
      const { driver, device } = ownerBefore(message, full.index);
      this.#last = device;
      const [, size, total, used] = full;
      const [totalSlots, usedSlots] = [decimal(total), decimal(used)];
      this.#emit({
        kind: "bounce-full",
        driver,
        device,
        size: decimal(size) ?? 0,
        totalSlots,
        usedSlots,
        text: shown(message),
        at,
      });
      return true;
    }
    const out = OUT_OF_SPACE.exec(message);
    if (out) {
      const owner = ownerBefore(message, message.indexOf("DMA: Out of"));
      const device = out[2] === undefined ? owner.device : deviceName(out[2]);
      if (device !== undefined && device === this.#last) this.#last = undefined;
      else {
        const size = decimal(out[1])!;
        const slots = { totalSlots: undefined, usedSlots: undefined };
        this.#emit({ kind: "bounce-full", driver: owner.driver, device, size, ...slots, text: shown(message), at });
      }
      return true;
    }
    const overflow = OVERFLOW.exec(message);
    if (!overflow) return false;
    const { driver, device } = ownerBefore(message, overflow.index);
    const [, address, size, mask] = overflow;
    this.#emit({
      kind: "mask-overflow",
      driver,
      device,
      address: hexBits(address!)!,
      size: decimal(size)!,
      mask: hexBits(mask!)!,
      text: shown(message),
      at,
    });
    return true;
  }

  settle(): void {}
}
