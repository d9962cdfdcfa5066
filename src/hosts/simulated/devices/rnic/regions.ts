/**
 * Memory as the adapter reaches it: keys are checked, lists are read by DMA, and data moves through the IOMMU.
 *
 * Idea: an access first finds all its blocks and only then moves bytes, so that one that is refused has moved nothing. Entries that were
 * read are remembered until the driver says that they are others.
 * Specified by: the rules of key checks of Linux 7.2's software adapter (behaviour of rxe_mr, rxe_resp); layouts/rdma/page-list.ts.
 */
import type { DmaAddr } from "../../../../base/index.ts";
import {
  KEY,
  KLM_BYTES,
  LOCAL_DMA_KEY,
  MTT,
  MTT_BYTES,
  readKlm,
  readMtt,
  type WorkEntry,
} from "../../../../layouts/rdma/index.ts";
import type { QueuePairContext, RegionContext } from "../../../../platform/index.ts";
import type { DevicePort } from "../../device.ts";
import { RnicWindows } from "./windows.ts";

/** How an access went. */
export type Outcome =
  | "done"
  /** A block is not there, and may be asked for: see {@link RnicRegions.missing}. */
  | "absent"
  /** The key, or the block, does not allow it. */
  | "denied"
  /** The IOMMU, or the bus, did not let it through. */
  | "refused";

/** A block that was not there. */
export interface MissingBlock {
  readonly key: number;
  readonly address: number;
  readonly length: number;
  readonly write: boolean;
}

/** On whose behalf memory is accessed. */
export interface Accessor {
  readonly domain: number;
  /** A peer's access: by this queue pair. Without it, it is this side's own, for which windows are no keys. */
  readonly queuePair?: number;
}

interface Block {
  readonly address: number;
  readonly flags: number;
}

interface Known {
  readonly context: RegionContext;
  readonly blocks: Map<number, Block>;
}

/** Entries of one region that are remembered at most. */
const MOST_BLOCKS = 4096;
/** Bytes that are asked for at once: all that an access needs from the missing block on, up to this. */
const MOST_ASKED = 2 ** 18;

/** Regions by key, and accesses by them. */
export class RnicRegions {
  readonly windows: RnicWindows = new RnicWindows();
  readonly #known = new Map<number, Known>();
  readonly #port: () => DevicePort;
  readonly #entry = new Uint8Array(KLM_BYTES);
  readonly #view = new DataView(this.#entry.buffer);
  /** What the last access lacked that was "absent". */
  missing: MissingBlock | undefined;
  /** Entries read by DMA, and those that were remembered. */
  readonly counts: { listReads: number; remembered: number } = { listReads: 0, remembered: 0 };

  constructor(port: () => DevicePort) {
    this.#port = port;
  }

  put(context: RegionContext): void {
    this.#known.set(KEY.index(context.key), { context, blocks: new Map() });
  }

  remove(key: number): void {
    if (this.#known.get(KEY.index(key))?.context.key === key) this.#known.delete(KEY.index(key));
  }

  forget(key: number, first: number, end: number): void {
    const blocks = this.#known.get(KEY.index(key))?.blocks;
    if (!blocks) return;
    if (end - first > blocks.size) {
      for (const index of blocks.keys()) if (index >= first && index < end) blocks.delete(index);
    } else for (let index = first; index < end; index++) blocks.delete(index);
  }

  clear(): void {
    this.windows.clear();
    this.#known.clear();
  }

  /**
   * May this be done by the key? A range of no bytes needs no key.
   *
   * @param asked access bits that the region, or the window, must have
   */
  allows(key: number, { domain, queuePair }: Accessor, asked: number, address: number, length: number): boolean {
    if (length === 0) return true;
    if (queuePair === undefined) {
      if (key === LOCAL_DMA_KEY) return true;
    } else if (this.windows.has(key)) return this.windows.allows(key, queuePair, asked, address, length);
    const context = this.#find(key);
    if (context?.domain !== domain || (context.access & asked) !== asked) return false;
    return address >= context.virt && length <= context.length && address - context.virt <= context.length - length;
  }

  /** Fills `into` from where the region begins at `address`. {@link allows} has been asked. */
  read(key: number, address: number, into: Uint8Array): Outcome {
    const port = this.#port();
    const place = this.windows.placeOf(key, address);
    return this.#access(place.key, place.address, into, false, (at, piece) => port.read(at, piece));
  }

  write(key: number, address: number, from: Uint8Array): Outcome {
    const port = this.#port();
    const place = this.windows.placeOf(key, address);
    return this.#access(place.key, place.address, from, true, (at, piece) => port.write(at, piece));
  }

  /** Binds a window as the work request says. @returns false if it cannot be bound so; it is as before then */
  bind(work: WorkEntry, { number, domain }: QueuePairContext): boolean {
    const region = work.pieces[0] && this.#find(work.pieces[0].key);
    return this.windows.bind(work, number, domain, region);
  }

  #find(key: number): RegionContext | undefined {
    const known = this.#known.get(KEY.index(key));
    return known?.context.key === key ? known.context : undefined;
  }

  #access(
    key: number,
    address: number,
    bytes: Uint8Array,
    write: boolean,
    move: (address: DmaAddr, piece: Uint8Array) => boolean,
  ): Outcome {
    if (bytes.length === 0) return "done";
    if (key === LOCAL_DMA_KEY) return move(address as DmaAddr, bytes) ? "done" : "refused";
    const pieces: { at: number; bytes: Uint8Array }[] = [];
    for (let done = 0; done < bytes.length; ) {
      const found = this.#translate(key, address + done, bytes.length - done, write);
      if (typeof found === "string") return found;
      const length = Math.min(found.bytes, bytes.length - done);
      pieces.push({ at: found.address, bytes: bytes.subarray(done, done + length) });
      done += length;
    }
    for (const piece of pieces) if (!move(piece.at as DmaAddr, piece.bytes)) return "refused";
    return "done";
  }

  #translate(
    key: number,
    address: number,
    length: number,
    write: boolean,
  ): { address: number; bytes: number } | Exclude<Outcome, "done"> {
    const known = this.#known.get(KEY.index(key));
    if (known?.context.key !== key) return "denied";
    const { context } = known;
    const { virt, blockBytes, onDemand } = context;
    const origin = Math.floor(virt / blockBytes) * blockBytes;
    const index = Math.floor((address - origin) / blockBytes);
    const inside = address - origin - index * blockBytes;
    if (index < 0 || index >= context.entries) return "denied";
    if (context.listOf === "keys") {
      const part = this.#partOf(context, index);
      if (part === undefined) return "refused";
      const end = Math.min(length, blockBytes - inside);
      return part === 0 ? this.#absent(key, address, end, write) : this.#translate(part, address, end, write);
    }
    const block = this.#blockOf(known, index);
    if (!block) return "refused";
    const needed = write ? MTT.write : MTT.read;
    if ((block.flags & needed) === 0) {
      if (!onDemand) return "denied";
      return this.#absent(key, address, Math.min(length, MOST_ASKED), write);
    }
    return { address: block.address + inside, bytes: blockBytes - inside };
  }

  #absent(key: number, address: number, length: number, write: boolean): "absent" {
    this.missing = { key, address, length, write };
    return "absent";
  }

  /** The entry as it was read when it was first needed; undefined: it cannot be read. */
  #blockOf({ context, blocks }: Known, index: number): Block | undefined {
    const remembered = blocks.get(index);
    if (remembered) {
      this.counts.remembered++;
      return remembered;
    }
    if (!this.#readEntry(context.list + index * MTT_BYTES, MTT_BYTES)) return undefined;
    const block = readMtt(this.#view, 0);
    if (blocks.size >= MOST_BLOCKS) blocks.clear();
    // An entry that lacks a right may get it without notice: only what can no more be added is remembered.
    if (block.flags === (MTT.read | MTT.write) || (block.flags !== 0 && !context.onDemand)) blocks.set(index, block);
    return block;
  }

  /** The key of a part; 0: there is none; undefined: the entry cannot be read. */
  #partOf(context: RegionContext, index: number): number | undefined {
    if (!this.#readEntry(context.list + index * KLM_BYTES, KLM_BYTES)) return undefined;
    return readKlm(this.#view, 0).key;
  }

  #readEntry(address: number, length: number): boolean {
    this.counts.listReads++;
    return this.#port().read(address as DmaAddr, this.#entry.subarray(0, length));
  }
}
