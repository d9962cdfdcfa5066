/** What checked mode remembers of each mapping while it lives, and for a while after. */
import type { Direction } from "../base/index.ts";
import type { AllocationKind, DmaDevice } from "../dma/index.ts";
import type { CallSite } from "./call-site.ts";

/** By which calls a mapping was made: `phy` is one-shot, `noncoherent` pages whose ownership moves with syncs. */
export type MappingKind = "phy" | AllocationKind;

/** A live mapping: one entry of the facility. A scatterlist has one for each output segment. */
export interface LiveMapping {
  readonly device: DmaDevice;
  readonly kind: MappingKind;
  readonly phys: number;
  readonly address: number;
  readonly length: number;
  readonly direction: Direction;
  /** Bits, as Linux numbers them. */
  readonly attributes: number;
  /** Of a scatterlist: input entries, and output segments. */
  readonly entries: number;
  readonly segments: number;
  /** `none`: there is no error to check. */
  error: "none" | "unchecked" | "checked";
  readonly site: CallSite | undefined;
  /** Calls that had been checked when it was made. */
  readonly call: number;
  /** Records are numbered as they are made. */
  readonly order: number;
  readonly timeMs: number;
}

/** A piece that is linked in a two-step range. Bytes; `offset` counts from the range's address. */
export interface LinkedPiece {
  readonly offset: number;
  readonly length: number;
  readonly phys: number;
  readonly direction: Direction;
  readonly attributes: number;
  /** The device may look. */
  synced: boolean;
  readonly site: CallSite | undefined;
}

/** A two-step range, from its reservation on. */
export interface LiveRange {
  readonly device: DmaDevice;
  readonly address: number;
  /** Bytes of address space, whatever of them may be linked. */
  readonly capacity: number;
  /** By offset. They never overlap. */
  pieces: LinkedPiece[];
  readonly site: CallSite | undefined;
  /** Calls that had been checked when it was made. */
  readonly call: number;
  /** Records are numbered as they are made. */
  readonly order: number;
  readonly timeMs: number;
}

/** An address that was mapped once: who mapped it, and who took it away. */
export interface PastMapping {
  readonly kind: MappingKind | "two-step";
  readonly address: number;
  readonly length: number;
  readonly mappedAt: CallSite | undefined;
  readonly unmappedAt: CallSite | undefined;
  /** As for what is live. */
  readonly order: number;
}

/** Addresses of a peer's memory on the bus, as a mapped list gave them to its driver. */
export interface BusGrant {
  readonly address: number;
  readonly length: number;
  readonly site: CallSite | undefined;
}

/** What an unmap or a sync says it is about. */
export interface Asked {
  readonly kind: MappingKind;
  readonly address: number;
  readonly length: number;
  readonly direction: Direction;
  readonly attributes: number;
  /** Input entries of the list, as the caller says; 0: not said. */
  readonly entries: number;
  readonly phys?: number;
}
