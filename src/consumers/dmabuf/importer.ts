/**
 * Who shares a buffer: the side that does not own it.
 *
 * Idea: an importer is a device's mapper (`Dma`) and what it promises. Without `ops` it is *static*: once mapped, the storage stays.
 * With a callback it is *dynamic* (follows moves), and if it pins as well, *pinned revocable* (stays, but may lose all). With `ops`
 * and no callback it can only pin. Specified by: behaviour of Linux 7.2 dma-buf importers.
 */
import type { Dma } from "../../dma/index.ts";
import type { MappingType } from "./mapping-types.ts";

/** Why an importer is called. `restore`: the storage is usable again; this also comes when nothing is mapped. */
export interface StorageChange {
  /** What is about to happen, or has. */
  readonly why: "move" | "revoke" | "restore";
  /** First byte of what changes; mappings of other parts stay good for those who follow in place. */
  readonly offset: number;
  /** Bytes from there on. */
  readonly length: number;
}

/** What an importer with eyes promises. */
export interface ImporterOps {
  /** Copes with memory of other devices, which no CPU page stands for. */
  readonly peerToPeer: boolean;
  /**
   * The storage is about to go. Called with the lock held; from its return on no new access is begun, and what is under way is
   * stopped by fences. It must unmap in bounded time; in the call, or soon after. May come when nothing is mapped.
   */
  readonly invalidated?: (invalidation: StorageChange) => void;
  /**
   * Keeps its mapping while a part of the storage moves: the chunk is linked anew under the same address, and this is called when
   * it is there. Only with `invalidated`. The list of ranges may have changed where bus addresses come or go.
   */
  readonly movedInPlace?: (offset: number, length: number) => void;
}

/** A device that shares a buffer. */
export interface Importer {
  /** For messages: which importer does not let go. */
  readonly name: string;
  /** By which it maps. */
  readonly dma: Dma;
  /** What it promises besides; absent: once mapped, the storage stays. */
  readonly ops?: ImporterOps;
  /** How it can take a buffer, in any order. Absent: as a list of DMA addresses only. */
  readonly accepts?: readonly MappingType[];
}

/** What an importer can follow. */
export type ImporterClass = "static" | "pinned" | "dynamic";

/** By what it promises; a dynamic one that pins is pinned revocable. */
export function classOf({ ops }: Importer): ImporterClass {
  if (ops === undefined) return "static";
  return ops.invalidated === undefined ? "pinned" : "dynamic";
}
