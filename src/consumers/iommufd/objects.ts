/**
 * Objects of one iommufd by number: ids, who uses whom, and the end of all.
 *
 * Idea: one space of ids for every kind, the lowest free one from 1. An object counts who needs it; it can be destroyed
 * when nobody does. A tombstone keeps an id taken whose object is gone.
 */
import { noObject, objectBusy } from "./errors.ts";

/** What an id can name. */
export type ObjectKind =
  | "ioas"
  | "hwpt"
  | "nested"
  | "device"
  | "access"
  | "fault-queue"
  | "viommu"
  | "vdevice"
  | "event-queue"
  | "hw-queue"
  /** A kind of the embedding program: tests have one. */
  | "other";

/** One object: what it is, and who needs it. */
export interface IommufdObject {
  /** What requests know it as. */
  readonly kind: ObjectKind;
  /** Its number, from 1; 0 before it has one. */
  id: number;
  /** Others that need it. */
  users: number;
  /** Gives back all that it holds. Called once, when nobody needs it. Never fails. */
  end(): void;
}

/** Objects by id. */
export class ObjectTable {
  readonly #objects = new Map<number, IommufdObject | "tombstone">();
  /** Those that have an id and cannot be found yet. */
  readonly #hidden = new Set<IommufdObject>();
  /** No id below is free. */
  #lowest = 1;

  /** Ids that are taken, tombstones included. */
  get size(): number {
    return this.#objects.size;
  }

  /** All, by id. */
  *[Symbol.iterator](): Generator<IommufdObject> {
    for (const id of [...this.#objects.keys()].sort((a, b) => a - b)) {
      const object = this.#objects.get(id);
      if (typeof object === "object") yield object;
    }
  }

  /** Takes it in. Its id. */
  add<Kind extends IommufdObject>(object: Kind): Kind {
    while (this.#objects.has(this.#lowest)) this.#lowest++;
    object.id = this.#lowest;
    this.#objects.set(object.id, object);
    return object;
  }

  /** Takes it in, and nobody finds it before {@link publish}. */
  reserve<Kind extends IommufdObject>(object: Kind): Kind {
    this.#hidden.add(object);
    return this.add(object);
  }

  /** It can be found from now on. */
  publish(object: IommufdObject): void {
    this.#hidden.delete(object);
  }

  /** The object of this id; undefined: none. */
  get(id: number): IommufdObject | undefined {
    const object = this.#objects.get(id);
    return typeof object === "object" && !this.#hidden.has(object) ? object : undefined;
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT) */
  of(kind: ObjectKind, id: number): IommufdObject {
    const object = this.get(id);
    if (object?.kind !== kind) throw noObject(id, kind);
    return object;
  }

  /** @throws DmaError ERR_DMA_IOMMUFD_OBJECT (ENOENT), ERR_DMA_IOMMUFD_BUSY (EBUSY) */
  destroy(id: number): void {
    const object = this.get(id);
    if (!object) throw noObject(id, "object");
    if (object.users > 0) throw objectBusy(id, object.users);
    this.remove(object);
  }

  /** Ends it, whoever may think of it. `bury`: its id is never given again. */
  remove(object: IommufdObject, bury = false): void {
    if (this.get(object.id) !== object) return;
    if (bury) this.#objects.set(object.id, "tombstone");
    else this.#free(object.id);
    object.end();
  }

  /** Ends it if nobody needs it. */
  removeUnused(object: IommufdObject): void {
    if (object.users === 0) this.remove(object);
  }

  /** Ends all, users before what they use. */
  clear(): void {
    let ended = true;
    while (ended) {
      ended = false;
      for (const object of [...this])
        if (object.users === 0) {
          this.remove(object);
          ended = true;
        }
    }
    this.#objects.clear();
    this.#lowest = 1;
  }

  #free(id: number): void {
    this.#objects.delete(id);
    this.#lowest = Math.min(this.#lowest, id);
  }
}
