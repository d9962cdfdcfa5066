/**
 * GPUs that leave each other's pages where they are: they reach them over an interconnect.
 *
 * Idea: one owner of device memory for all of the group; each page is still of one GPU, and where it is for another follows from their places
 * on the interconnect. A GPU alone is a group of one.
 */
import { linkedPage, localPage } from "../../layouts/gpu/index.ts";
import type { GpuAdapter, MemoryOwner } from "../../platform/index.ts";
import type { DevicePlace } from "./backing.ts";

/** Memory of one GPU of a group. */
interface GroupMemory {
  readonly adapter: GpuAdapter;
  /** Page number of its first page. */
  readonly firstPage: number;
  holds(page: number): boolean;
  /** Compared by identity. */
  allocationOf(page: number): object | undefined;
}

/** The owner of memory of one or several GPUs. */
export class GpuGroup implements MemoryOwner {
  readonly name: string;
  readonly #memories = new Set<GroupMemory>();

  constructor(name: string) {
    this.name = name;
  }

  /** Its pages are found by the whole group from now on. */
  add(memory: GroupMemory): void {
    this.#memories.add(memory);
  }

  /** Its pages are gone. */
  remove(memory: GroupMemory): void {
    this.#memories.delete(memory);
  }

  /** Whose memory `page` is in. */
  memoryOf(page: number): GroupMemory | undefined {
    for (const memory of this.#memories) if (memory.holds(page)) return memory;
    return undefined;
  }

  /** Where `page` is for the GPU of `adapter`: its own, or over the interconnect, or out of reach. undefined: it is no page of the group. */
  placeFor(adapter: GpuAdapter, page: number): DevicePlace | undefined {
    const memory = this.memoryOf(page);
    if (!memory) return undefined;
    const index = page - memory.firstPage;
    const allocation = memory.allocationOf(page);
    const { link } = memory.adapter;
    if (memory.adapter === adapter) return { target: localPage(index), provider: memory, allocation };
    const isReached = link !== undefined && adapter.link !== undefined && adapter.reaches(link);
    return { target: isReached ? linkedPage(link, index) : undefined, provider: memory, allocation };
  }
}
