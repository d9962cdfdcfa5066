/** Memory of a device that processes have pages in, and what its driver does when the CPU needs one. */
import type { PhysPage } from "../base/index.ts";
import type { Steps } from "./steps.ts";
import type { MemoryOwner, UserAddr } from "./user-address.ts";
import type { FaultOutcome, UserMemory } from "./user-memory.ts";

/** Memory of a device that processes can have pages in. */
export interface DeviceMemoryPool {
  /**
   * Whether the CPU can access it where it lies (`device-coherent`), or faults and has it brought back
   * (`device-private`).
   */
  readonly kind: "device-private" | "device-coherent";
  /** Whose it is: watchers that gave this owner are not told of moves to and from it. */
  readonly owner: MemoryOwner;
  /** A page, or 512 of them (order 9); undefined if there is none. For a destination. */
  allocate(order: 0 | 9): PhysPage | undefined;
  /** 512 pages in one aligned block, which go their own ways; undefined if there is none. For 512 destinations. */
  allocateApart(): PhysPage | undefined;
  /** As the device sees its own memory. */
  read(page: PhysPage, offset: number, into: Uint8Array): void;
  /** As `read`, the other way; [offset, + its length) lies in the page. */
  write(page: PhysPage, offset: number, from: Uint8Array): void;
  /** Brings pages back to the system, whoever has them. Those that somebody holds, or for which there is no memory, stay. */
  evictSteps(options?: EvictionOptions): Steps<void>;
}

/** Which pages are brought back, and how. */
export interface EvictionOptions {
  /** Asked with the first page of each block. All go unless said. */
  readonly only?: (page: PhysPage) => boolean;
  /** Copies `pages` pages of the device to pages of the system; false: they stay. As the CPU copies unless said. */
  readonly copy?: (from: PhysPage, to: PhysPage, pages: number) => boolean;
}

/** What a driver does when the CPU needs a page of its device. */
export interface DeviceMemoryDriver {
  /**
   * Brings the page at `address` back, or all 512 around it.
   *
   * @returns `done`, or why not: `out-of-memory` (the process tries again) or `no-page` (it gets a signal)
   */
  bringBack(memory: UserMemory, address: UserAddr, page: PhysPage, order: number): Steps<FaultOutcome>;
  /** Pages of the device that nobody has any more, from `page` on. */
  freed?(page: PhysPage, pages: number): void;
}
