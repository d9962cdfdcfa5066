/**
 * A shared buffer (dma-buf) in an address space of iommufd: the owner of the IOMMU takes its physical range, and loses it when it is told.
 *
 * Idea: iommufd gives addresses itself, so it asks for the buffer's physical vectors and not for addresses of a device. It attaches as an
 * importer that can lose everything: when the owner revokes or moves the memory, the areas leave all tables, flushed, in the callback; only then
 * does the exporter see it unmapped. An area that lost its memory stays empty until it is unmapped.
 * Promises: after the exporter's revoke has ended no device reaches the range by any table.
 * Specified by: behaviour of Linux 7.2 (iommufd with a dma-buf: exactly one range of a device's memory, everything else EOPNOTSUPP).
 */
import { PhysPage } from "../../base/index.ts";
import { Dma } from "../../dma/index.ts";
import type { Attachment, DmaBuf } from "../dmabuf/index.ts";
import type { RangeBuffer } from "./hardware.ts";

/** One import: attached while somebody maps it. */
export class ImportedBuffer implements RangeBuffer {
  readonly kind = "dma-buf";
  readonly #buffer: DmaBuf;
  readonly #watchers = new Set<() => void>();
  #attachment: Attachment | undefined;
  #holders = 0;

  constructor(buffer: DmaBuf) {
    this.#buffer = buffer;
  }

  get length(): number {
    return this.#buffer.lengthBytes;
  }

  /** It is one range of a device's memory. */
  get givesRanges(): boolean {
    const { exporter } = this.#buffer;
    if (exporter.form !== "vectors") return false;
    const vecs = exporter.vectors();
    return vecs.length === 1 && vecs[0]!.provider !== undefined;
  }

  get range(): { readonly page: PhysPage } | undefined {
    if (this.#buffer.isRevoked) return undefined;
    return { page: PhysPage.of(this.#buffer.exporter.vectors()[0]!.phys) };
  }

  /** The first holder attaches. @throws DmaError as {@link DmaBuf.attach} */
  acquire(): void {
    this.#attachment ??= this.#buffer.attach({
      name: "iommufd",
      dma: new Dma({ name: "iommufd" }),
      ops: { peerToPeer: true, invalidated: () => this.#lose() },
      accepts: [{ kind: "phys-list" }],
    });
    this.#holders++;
  }

  release(): void {
    this.#holders--;
    if (this.#holders > 0) return;
    this.#attachment?.detach();
    this.#attachment = undefined;
  }

  watch(moved: () => void): () => void {
    this.#watchers.add(moved);
    const attachment = this.#attachment;
    if (attachment && !attachment.mapping && !this.#buffer.isRevoked)
      this.#buffer.reservation.locked(() => attachment.map("bidirectional"));
    return () => {
      this.#watchers.delete(moved);
    };
  }

  /** Called with the buffer's lock held: tables first, then the exporter hears that nothing is mapped. */
  #lose(): void {
    for (const moved of [...this.#watchers]) moved();
    if (this.#attachment?.mapping) this.#attachment.unmap();
  }
}
