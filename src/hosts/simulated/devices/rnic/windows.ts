/**
 * Memory windows: a key for a peer to a part of a region, given and taken back by requests in a queue, without the driver.
 *
 * Idea: a window is bound to part of a region with rights of its own, by the queue pair that alone may be spoken to with its key. Each binding has a
 * new variant of the key, so that a peer who kept an old one misses.
 * Promises: a window never allows more than its region's, nor another range; what is refused changes nothing.
 * Specified by: InfiniBand Architecture Specification, volume 1, 10.6.7 (type 2); the checks of Linux 7.2's software adapter (rxe_mw).
 */
import { ACCESS, isWritableAccess, KEY, type WorkEntry } from "../../../../layouts/rdma/index.ts";
import type { RegionContext } from "../../../../platform/index.ts";

interface Binding {
  readonly queuePair: number;
  readonly regionKey: number;
  /** Where it begins in the region, as users of the region count. */
  readonly address: number;
  readonly length: number;
  readonly access: number;
}

interface Window {
  key: number;
  readonly domain: number;
  binding: Binding | undefined;
}

/** Windows by key, bound or not. */
export class RnicWindows {
  readonly #known = new Map<number, Window>();

  put(key: number, domain: number): void {
    this.#known.set(KEY.index(key), { key, domain, binding: undefined });
  }

  /** Whatever variant of its key is given. */
  remove(key: number): void {
    this.#known.delete(KEY.index(key));
  }

  clear(): void {
    this.#known.clear();
  }

  /** Windows that are bound to a region. */
  on(regionKey: number): number {
    return [...this.#known.values()].filter(({ binding }) => binding?.regionKey === regionKey).length;
  }

  /** The index is a window's, with this variant or another. */
  has(key: number): boolean {
    return this.#known.has(KEY.index(key));
  }

  allows(key: number, queuePair: number, asked: number, address: number, length: number): boolean {
    const binding = this.#bindingOf(key);
    if (binding?.queuePair !== queuePair || (binding.access & asked) !== asked) return false;
    const start = (binding.access & ACCESS.zeroBased) !== 0 ? 0 : binding.address;
    return address >= start && length <= binding.length && address - start <= binding.length - length;
  }

  /** What an address under a key is in its region; of other keys the same. */
  placeOf(key: number, address: number): { readonly key: number; readonly address: number } {
    const binding = this.#bindingOf(key);
    if (!binding) return { key, address };
    const shift = (binding.access & ACCESS.zeroBased) !== 0 ? binding.address : 0;
    return { key: binding.regionKey, address: address + shift };
  }

  /** @param region what the piece of the request names */
  bind(work: WorkEntry, queuePair: number, domain: number, region: RegionContext | undefined): boolean {
    const window = this.#known.get(KEY.index(work.remoteKey));
    const next = Number(work.compare);
    if (!window || window.key !== work.remoteKey || window.binding || window.domain !== domain) return false;
    if (KEY.index(next) !== KEY.index(window.key)) return false;
    const piece = work.pieces[0];
    if (!region || !piece || piece.length === 0 || region.domain !== domain) return false;
    const access = work.immediate ?? 0;
    if ((region.access & ACCESS.windowBind) === 0 || (region.access & ACCESS.zeroBased) !== 0) return false;
    if (isWritableAccess(access) && (region.access & ACCESS.localWrite) === 0) return false;
    const { address, length } = piece;
    if (address < region.virt || address + length > region.virt + region.length) return false;
    window.key = next;
    window.binding = { queuePair, regionKey: region.key, address, length, access };
    return true;
  }

  /** Takes a binding back. False: the key names no window that this queue pair has bound. */
  invalidate(key: number, queuePair: number): boolean {
    const binding = this.#bindingOf(key);
    if (binding?.queuePair !== queuePair) return false;
    this.#known.get(KEY.index(key))!.binding = undefined;
    return true;
  }

  #bindingOf(key: number): Binding | undefined {
    const window = this.#known.get(KEY.index(key));
    return window?.key === key ? window.binding : undefined;
  }
}
