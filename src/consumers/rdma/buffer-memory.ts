/**
 * A part of another driver's buffer as memory of a region: in its place until it is revoked, or moving as its owner likes.
 *
 * Idea: three lives. *Dynamic*: mapped when the device first needs it, unmapped when the buffer moves, mapped again later. *Pinned*: mapped
 * at registration, never moves. *Pinned and revocable*: the same, but the owner may take it back once, for good.
 * Promises: what the device is told ends before the mapping does. Revoking happens at most once, also when the region goes normally. Nothing
 * of a part that cannot be had is left.
 * Specified by: behaviour of Linux 7.2 ib_umem_dmabuf; judged by test/golden (umem). Linux takes bounce slots that nobody syncs for a
 * mapping: only with `linuxCompatible`.
 */
import { type DmaAddr, PAGE_SIZE } from "../../base/index.ts";
import type { Dma, DmaVec } from "../../dma/index.ts";
import { badRegion, bufferRevoked, copiesNeeded } from "./errors.ts";
import type { BufferAttachment, SharedBuffer } from "./shared-buffer.ts";

/** How long a mapping of a buffer lives. */
export type BufferLife = "dynamic" | "pinned" | "pinned-revocable";

/** Which part of which buffer, and for whom. */
export interface BufferMemoryOptions {
  /** Which buffer. */
  readonly buffer: SharedBuffer;
  /** By which it is mapped. */
  readonly dma: Dma;
  /** How long the mapping lives. */
  readonly life: BufferLife;
  /** First byte of the part in the buffer. */
  readonly offset: number;
  /** Bytes of the part. */
  readonly length: number;
  /** The device uses it no more when this returns: it moves (and may be mapped again), or it is gone for good. */
  readonly forget: (why: "moved" | "revoked") => void;
}

/** A part of a buffer, mapped for one device. */
export class BufferMemory implements Disposable {
  /** How long its mapping lives. */
  readonly life: BufferLife;
  /** First byte of the part in the buffer. */
  readonly offset: number;
  /** Bytes of the part. */
  readonly length: number;
  readonly #dma: Dma;
  readonly #forget: (why: "moved" | "revoked") => void;
  readonly #attachment: BufferAttachment;
  /** As the owner gave it; what the region has of it is {@link segments}. */
  #whole: readonly DmaVec[] | undefined;
  #part: readonly DmaVec[] | undefined;
  #pinned = false;
  #revoked = false;
  #released = false;

  /** @throws DmaError ERR_DMA_RDMA_RANGE (EINVAL), ERR_DMA_RDMA_BOUNCE (EOPNOTSUPP), and those of the owner; nothing is left then */
  constructor({ buffer, dma, life, offset, length, forget }: BufferMemoryOptions) {
    const end = offset + length;
    if (!(offset >= 0 && length >= 0) || end >= 2 ** 64 || buffer.lengthBytes < end)
      throw badRegion(offset, length, `the buffer has ${buffer.lengthBytes} bytes`);
    if (length === 0) throw badRegion(offset, length, "a region has 1 byte at least");
    this.life = life;
    this.offset = offset;
    this.length = length;
    this.#dma = dma;
    this.#forget = forget;
    this.#attachment = buffer.attach({
      dma,
      allowPeers: true,
      ...(life !== "pinned" && { invalidate: () => this.#invalidated() }),
    });
    if (life === "dynamic") return;
    try {
      this.#attachment.pin();
      this.#pinned = true;
      this.map();
    } catch (error) {
      this.#takeAway();
      this.#attachment.detach();
      throw error;
    }
  }

  /** Where the part lies for the device; undefined while it is not mapped. */
  get segments(): readonly DmaVec[] | undefined {
    return this.#part;
  }

  /** Bytes of the first page before the part. */
  get firstOffset(): number {
    return this.offset % PAGE_SIZE;
  }

  /** It was taken from the device for good. */
  get isRevoked(): boolean {
    return this.#revoked;
  }

  /**
   * Maps the part, if it is not mapped; waits until it is where it shall be.
   *
   * @throws DmaError ERR_DMA_RDMA_REVOKED (EINVAL), ERR_DMA_RDMA_BOUNCE (EOPNOTSUPP), and those of the owner
   */
  map(): readonly DmaVec[] {
    if (this.#revoked) throw bufferRevoked();
    if (!this.#part) {
      const { device } = this.#dma;
      const { bounces } = device;
      const whole = this.#attachment.map();
      this.#whole = whole;
      if (device.bounces > bounces && !device.linuxCompatible) {
        this.unmap();
        throw copiesNeeded(device.name, "the buffer's owner had it mapped through bounce slots");
      }
      this.#part = trimmed(whole, this.offset, this.length);
    }
    this.#attachment.wait();
    return this.#part;
  }

  /** The device must not use it any more. Nothing happens if it is not mapped. */
  unmap(): void {
    const whole = this.#whole;
    this.#whole = undefined;
    this.#part = undefined;
    if (whole) this.#attachment.unmap(whole);
  }

  /** Takes it from the device for good: later accesses fail, and the region waits to be deregistered. A second time does nothing. */
  revoke(): void {
    if (this.#revoked) return;
    this.#revoked = true;
    if (this.life === "pinned-revocable" || this.#part) this.#forget("revoked");
    this.#takeAway();
  }

  /** Gives everything back; a life that may be revoked ends by being revoked. A second time does nothing. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (this.life === "pinned-revocable") this.revoke();
    else this.#takeAway();
    this.#attachment.detach();
  }

  /** As `release`, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }

  #invalidated(): void {
    if (this.life === "pinned-revocable") {
      this.revoke();
      return;
    }
    this.#forget("moved");
    this.unmap();
  }

  #takeAway(): void {
    this.unmap();
    if (!this.#pinned) return;
    this.#pinned = false;
    this.#attachment.unpin();
  }
}

/** What of an owner's segments lies in the pages of [offset, offset + length). */
function trimmed(segments: readonly DmaVec[], offset: number, length: number): readonly DmaVec[] {
  const start = Math.floor(offset / PAGE_SIZE) * PAGE_SIZE;
  const end = Math.ceil((offset + length) / PAGE_SIZE) * PAGE_SIZE;
  const part: DmaVec[] = [];
  let at = 0;
  for (const segment of segments) {
    const from = Math.max(start, at);
    const to = Math.min(end, at + segment.length);
    if (from < to) part.push({ ...segment, address: (segment.address + from - at) as DmaAddr, length: to - from });
    at += segment.length;
  }
  return part;
}
