/**
 * One importer's hold on a buffer: pins, and one mapping at a time.
 *
 * Idea: pin, unpin, map and unmap happen under the reservation lock, so that they never cross a move or a revocation. A static
 * importer is pinned by its mapping, where the exporter can pin at all.
 * Promises: a failed map leaves neither pin nor entries; ending an attachment ends its mapping and pins first.
 * Specified by: behaviour of Linux 7.2 dma_buf_attachment calls.
 */
import type { Direction } from "../../base/index.ts";
import { finish, type Steps } from "../../platform/index.ts";
import { badVectors, detached, mappedAlready, notMapped, notPinned, otherDirection, revoked } from "./errors.ts";
import type { Exporter } from "./exporter.ts";
import { classOf, type Importer, type ImporterClass } from "./importer.ts";
import { InPlaceMapping } from "./in-place-mapping.ts";
import { mapStorage } from "./map-storage.ts";
import type { BufferMapping } from "./mapping.ts";
import { type MappingType, PhysList } from "./mapping-types.ts";
import type { Reservation } from "./reservation.ts";
import { mapScatterTable } from "./scatter-table.ts";
import { checkVectors } from "./storage.ts";

/** What an attachment asks of its buffer. */
export interface AttachedBuffer {
  readonly name: string;
  readonly exporter: Exporter;
  readonly reservation: Reservation;
  readonly isRevoked: boolean;
  readonly generation: number;
  /** Maps that were made of it. */
  mapped(mapping: BufferMapping): void;
  /** One came, or one went. */
  pinsChanged(by: 1 | -1): void;
  /** The attachment is over. */
  left(attachment: Attachment): void;
}

/** Made by `DmaBuf.attach`. */
export class Attachment {
  /** Who holds it. */
  readonly importer: Importer;
  /** Whether it maps and stays, pins, or follows moves. */
  readonly class: ImporterClass;
  /** What both sides agreed on. */
  readonly type: MappingType;
  readonly #buffer: AttachedBuffer;
  #mapping: BufferMapping | undefined;
  #isPinnedByMap = false;
  /** Its mapping was ended by a move: the importer's own unmap, when it comes, has nothing to do. */
  #isEndedByMove = false;
  /** It had pinned when all was revoked: what it had is gone for good. */
  #isLost = false;
  #pins = 0;
  #isOver = false;

  /** Made by `DmaBuf.attach`, when buffer and importer have agreed on `type`. */
  constructor(buffer: AttachedBuffer, importer: Importer, type: MappingType) {
    this.#buffer = buffer;
    this.importer = importer;
    this.type = type;
    this.class = classOf(importer);
  }

  /** What is mapped now. */
  get mapping(): BufferMapping | undefined {
    return this.#mapping;
  }

  /** Pins of its own that have not ended. */
  get pins(): number {
    return this.#pins;
  }

  /**
   * The storage stays where it is until {@link unpin}. Locked. An exporter without pins never moves what is mapped.
   *
   * @throws DmaError ERR_DMA_BUF_UNLOCKED, ERR_DMA_BUF_DETACHED (EINVAL); what the exporter says
   */
  pin(): void {
    this.#check("pin");
    this.#buffer.exporter.pin?.(this.importer);
    this.#pins++;
    this.#buffer.pinsChanged(1);
  }

  /** Locked. @throws DmaError ERR_DMA_BUF_NOT_PINNED, ERR_DMA_BUF_UNLOCKED (EINVAL) */
  unpin(): void {
    this.#check("unpin");
    if (this.#pins === 0) throw notPinned(this.importer.name);
    this.#unpin();
  }

  /**
   * Makes the storage reachable for the importer's device, both ways or one. Locked; a dynamic importer waits for the `kernel`
   * fences before its device looks.
   *
   * @throws DmaError ERR_DMA_BUF_REVOKED (ENODEV), ERR_DMA_BUF_MAPPED (EEXIST), ERR_DMA_BUF_UNLOCKED, ERR_DMA_BUF_DETACHED,
   *   ERR_DMA_BUF_VECTORS, ERR_DMA_BUF_UNREACHABLE (EINVAL); what the exporter says; as `IovaRange.link`, ERR_DMA_BUF_MAP (ENOMEM)
   */
  map(direction: Direction): BufferMapping {
    this.#check("map");
    const { exporter, name, isRevoked } = this.#buffer;
    if (this.#mapping) throw mappedAlready(this.importer.name);
    if (isRevoked || this.#isLost) throw revoked(name, "map");
    const pins = this.class === "static" && exporter.pin !== undefined;
    if (pins) this.#pinForMap();
    try {
      this.#mapping = this.#map(direction);
    } catch (error) {
      if (pins) this.#unpinAfterMap();
      throw error;
    }
    this.#isEndedByMove = false;
    this.#buffer.mapped(this.#mapping);
    return this.#mapping;
  }

  /**
   * Takes the storage from the device. Locked.
   *
   * @param direction what it was mapped for; checked where it is given
   * @throws DmaError ERR_DMA_BUF_NOT_MAPPED, ERR_DMA_BUF_DIRECTION, ERR_DMA_BUF_UNLOCKED (EINVAL); nothing is changed then
   */
  unmap(direction?: Direction): void {
    this.#buffer.reservation.needHeld("unmap");
    const mapping = this.#mapping;
    if (!mapping) {
      if (!this.#isEndedByMove) throw notMapped(this.importer.name);
      this.#isEndedByMove = false;
      return;
    }
    const checked = direction !== undefined && !this.importer.dma.device.linuxCompatible;
    if (checked && direction !== mapping.direction) throw otherDirection(mapping.direction, direction);
    this.#unmap();
  }

  /** It is mapped and would not hear of a move: the storage has to stay. */
  get holdsStill(): boolean {
    return this.#mapping !== undefined && this.class !== "dynamic";
  }

  /** For the buffer: [offset, + length) is about to move. A mapping that does not follow in place ends, if the importer has left it. */
  moved(offset: number, length: number): void {
    if (!(this.#mapping instanceof InPlaceMapping)) {
      this.lose();
      return;
    }
    try {
      this.#mapping.take(offset, length);
    } catch {
      this.lose(); // no memory for the table that a part of a large leaf needs: then all of it goes
    }
  }

  /** For the buffer: the mapping cannot stay. The importer may still unmap it, which does nothing then. */
  lose(): void {
    if (!this.#mapping) return;
    this.#mapping.release(true);
    this.#mapping = undefined;
    this.#isEndedByMove = true;
  }

  /** For the buffer: the storage is taken away. Who had pinned it will not get it back. */
  revoked(): void {
    this.#isLost ||= this.#pins > 0;
  }

  /**
   * Ends mapping, pins and attachment. Unlocked. A second time does nothing.
   *
   * @throws DmaError ERR_DMA_BUF_DEADLOCK (EBUSY) if the lock is held: {@link detachSteps} waits for it
   */
  detach(): void {
    if (this.#isOver) return;
    this.#buffer.reservation.needFree("detach");
    finish(this.detachSteps());
  }

  /** The same, when other work may hold the lock. */
  *detachSteps(): Steps<void> {
    const { reservation } = this.#buffer;
    yield* reservation.acquire();
    try {
      if (this.#isOver) return;
      if (this.#mapping) this.#unmap();
      while (this.#pins > 0) this.#unpin();
      this.#isOver = true;
    } finally {
      reservation.release();
    }
    this.#buffer.left(this);
  }

  /** As `detach`, for `using`. */
  [Symbol.dispose](): void {
    this.detach();
  }

  #check(what: string): void {
    this.#buffer.reservation.needHeld(what);
    if (this.#isOver) throw detached(this.importer.name);
  }

  #map(direction: Direction): BufferMapping {
    const { exporter } = this.#buffer;
    const vecs = exporter.vectors();
    if (!this.importer.dma.device.linuxCompatible && checkVectors(vecs) !== exporter.lengthBytes)
      throw badVectors(`they are not the ${exporter.lengthBytes} bytes of the buffer`);
    if (exporter.form === "scatter-table") return mapScatterTable(this.importer, vecs, direction);
    const { importer } = this;
    if (this.type.kind === "phys-list") return new PhysList(vecs, this.#buffer.generation, direction);
    const live = importer.ops?.movedInPlace && InPlaceMapping.tryMap(importer, vecs, exporter.lengthBytes, direction);
    return live ?? mapStorage(importer, vecs, exporter.lengthBytes, direction);
  }

  #unmap(): void {
    this.#mapping?.release(this.#buffer.exporter.teardown === "at-once");
    this.#mapping = undefined;
    if (this.#isPinnedByMap) this.#unpinAfterMap();
  }

  #pinForMap(): void {
    this.#buffer.exporter.pin?.(this.importer);
    this.#isPinnedByMap = true;
    this.#buffer.pinsChanged(1);
  }

  #unpinAfterMap(): void {
    this.#isPinnedByMap = false;
    this.#buffer.exporter.unpin?.(this.importer);
    this.#buffer.pinsChanged(-1);
  }

  #unpin(): void {
    this.#pins--;
    this.#buffer.exporter.unpin?.(this.importer);
    this.#buffer.pinsChanged(-1);
  }
}
