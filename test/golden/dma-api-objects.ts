/** What a script on the running kernel holds: mappings, lists, memory and ranges, by the numbers that its file gives them. */
import type { Direction } from "../../src/base/index.ts";
import type { CoherentMemory, DmaAttributes, IovaRange, MappedList } from "../../src/dma/index.ts";
import type { Line } from "./judge.ts";
import { number } from "./words.ts";

export interface Mapping {
  readonly address: number;
  readonly size: number;
  readonly direction: Direction;
  readonly attributes: DmaAttributes | undefined;
}

/** At most one of these, with its device; nothing if the call that was to make it failed. */
export interface Held {
  dev?: number;
  mapping?: Mapping;
  list?: MappedList;
  memory?: { readonly handle: CoherentMemory; readonly direction: Direction };
  range?: IovaRange;
}

export class Objects {
  readonly #byId = new Map<number, Held>();

  /** What a line is about: a new one if its operation makes one, nothing if it names none. */
  of(line: Line): Held {
    if (line["id"] === undefined) return {};
    const id = number(line["id"]);
    const starts = /^(map|alloc|tryAlloc|p2pAlloc)/.test(line["op"] as string) && line["op"] !== "mappingError";
    const held = starts ? {} : (this.#byId.get(id) ?? {});
    this.#byId.set(id, held);
    return held;
  }
}

/** The DMA address `offset` bytes into it. */
export function addressOf({ mapping, list, memory, range }: Held, offset: number): number {
  if (list) {
    let left = offset;
    for (const { address, length } of list.segments) {
      if (left < length) return address + left;
      left -= length;
    }
  }
  return (mapping?.address ?? memory?.handle.address ?? range?.address ?? 0) + offset;
}

/** The list as a caller names it who forgets entries. */
export function shorter(list: MappedList, line: Line): MappedList {
  if (line["nents"] === undefined) return list;
  const entries = number(line["nents"]);
  return { ...list, list: list.list.slice(0, entries), segments: list.segments.slice(0, entries) };
}
