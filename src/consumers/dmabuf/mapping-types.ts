/**
 * In which form an importer is given a buffer: agreed when it attaches.
 *
 * Idea: the exporter says what it offers, best first; the importer what it takes. The first offer that is taken holds. Most get a list of
 * DMA addresses. Who owns an IOMMU itself (a manager of virtual machines) may get the physical vectors, and puts them into its own tables;
 * two drivers that know each other may use a link of their own. Not in Linux 7.2: there, one such link is private between two drivers.
 */
import type { Direction } from "../../base/index.ts";
import type { DmaVec } from "../../dma/index.ts";
import { noCommonType, staleGeneration } from "./errors.ts";
import { type BufferMapping, noBytes } from "./mapping.ts";
import type { StorageVec } from "./storage.ts";

/** `dma-list`: addresses for one device. `phys-list`: where it is. `private-link`: what only the two know, by name. */
export type MappingType =
  | {
      /** Addresses for one device. */
      readonly kind: "dma-list";
    }
  | {
      /** Where it is, in physical memory. */
      readonly kind: "phys-list";
    }
  | {
      /** What only the two know. */
      readonly kind: "private-link";
      /** Which link: both sides name the same. */
      readonly id: string;
    };

/** What vectors can be given as, unless an exporter says otherwise; and what an importer takes that says nothing. */
const OFFERED: readonly MappingType[] = [{ kind: "dma-list" }, { kind: "phys-list" }];
const ACCEPTED: readonly MappingType[] = [{ kind: "dma-list" }];

/** The first of `offered` that is accepted. @throws DmaError ERR_DMA_BUF_TYPE (EOPNOTSUPP) */
export function matchTypes(
  offered: readonly MappingType[] = OFFERED,
  accepted: readonly MappingType[] = ACCEPTED,
): MappingType {
  const names = new Set(accepted.map(nameOf));
  const found = offered.find((type) => names.has(nameOf(type)));
  if (!found) throw noCommonType(offered.map(nameOf), accepted.map(nameOf));
  return found;
}

const nameOf = (type: MappingType): string => (type.kind === "private-link" ? `private-link:${type.id}` : type.kind);

/** The physical vectors of a buffer, for who owns an IOMMU: good until it is unmapped, or the storage moves. */
export class PhysList implements BufferMapping {
  readonly direction: Direction;
  /** There are none: the addresses are the importer's own to give. */
  readonly ranges: readonly DmaVec[] = [];
  readonly bytesBy: BufferMapping["bytesBy"] = noBytes();
  readonly tableEntries = 0;
  /** The storage as it was. */
  readonly generation: number;
  #vecs: readonly StorageVec[] | undefined;

  /** Made by `Attachment.map`; `generation` is the buffer's at that moment. */
  constructor(vecs: readonly StorageVec[], generation: number, direction: Direction) {
    this.#vecs = vecs;
    this.generation = generation;
    this.direction = direction;
  }

  /** Where it is. @throws DmaError ERR_DMA_BUF_STALE (EBUSY) once it is void */
  get vecs(): readonly StorageVec[] {
    if (!this.#vecs) throw staleGeneration(this.generation, this.generation + 1);
    return this.#vecs;
  }

  /** It may not be used any more. */
  get isVoid(): boolean {
    return this.#vecs === undefined;
  }

  syncForCpu(): void {}

  syncForDevice(): void {}

  release(): void {
    this.#vecs = undefined;
  }
}
