/**
 * Shared buffers (dma-buf) as memory of regions.
 *
 * Idea: what a region asks of a buffer is little (`SharedBuffer`); here it is asked of a {@link DmaBuf}, under its lock. News that come with the
 * lock held are dealt with there and then; a fault that meets a move finds the lock taken and comes again.
 */
import type { DmaBuf, StorageChange } from "../dmabuf/index.ts";
import { bufferMoving } from "./errors.ts";
import type { BufferAttachment, BufferImporter, SharedBuffer } from "./shared-buffer.ts";

/** A dma-buf, for `RdmaDevice.registerBuffer`. */
export function sharedBufferOf(buffer: DmaBuf): SharedBuffer {
  return {
    get lengthBytes() {
      return buffer.lengthBytes;
    },
    attach: (importer) => attach(buffer, importer),
  };
}

function attach(buffer: DmaBuf, { dma, allowPeers, invalidate }: BufferImporter): BufferAttachment {
  const { reservation } = buffer;
  /** The lock is held by who calls us. */
  let isCalled = false;
  const locked = <T>(work: () => T): T => (isCalled ? work() : reservation.locked(work));
  const invalidated = ({ why }: StorageChange): void => {
    if (why === "restore") return; // the next fault maps it again
    isCalled = true;
    try {
      invalidate?.();
    } finally {
      isCalled = false;
    }
  };
  const attachment = buffer.attach({
    name: dma.device.name,
    dma,
    ops: { peerToPeer: allowPeers, ...(invalidate && { invalidated }) },
  });
  return {
    pin: () => locked(() => attachment.pin()),
    unpin: () => locked(() => attachment.unpin()),
    map: () => locked(() => attachment.map("bidirectional").ranges),
    unmap: () => locked(() => attachment.unmap()),
    wait: () => {
      if (reservation.pending("kernel").length > 0) throw bufferMoving();
    },
    detach: () => attachment.detach(),
  };
}
