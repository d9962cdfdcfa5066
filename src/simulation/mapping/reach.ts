/**
 * What each device may reach: the pages of its live mappings, and in lazy mode those of mappings that are over, until the
 * next flush. No access that a unit lets through may reach anything else.
 *
 * A device that the unit gave up is not judged, and neither is what no unit stands before (direct mode).
 */
import type { IovaPage } from "../../base/index.ts";
import type { DmaVec } from "../../dma/index.ts";
import type { Requester } from "../../platform/index.ts";
import { isPoison } from "../bytes.ts";
import { Broken } from "../scenario.ts";
import type { World, WorldDevice } from "./world.ts";

/** What is left of a mapping that is over: its addresses, until nobody may reach them. */
interface Ended {
  readonly device: WorldDevice;
  readonly vecs: readonly DmaVec[];
  readonly buffer: number | undefined;
  /** false: the unit may still know it. */
  flushed: boolean;
}

/** Mappings that are over, as many as steps can name. */
const REMEMBERED = 8;

export class Reach {
  readonly #world: World;
  /** Page of a device's address space -> live mappings of it, by device. */
  readonly #live = new Map<Requester, Map<IovaPage, number>>();
  /** The youngest first. */
  readonly #ended: Ended[] = [];

  /** From here on every access on `world` is judged. */
  constructor(world: World) {
    this.#world = world;
    world.watch = (requester, page, access) => this.#accessed(requester, page, access);
    world.onFlush = (device) => this.#flushed(device);
  }

  /** Something is mapped there from now on. */
  begin(device: WorldDevice, vecs: readonly DmaVec[]): void {
    this.#count(device, vecs, 1);
  }

  /** It is about to be torn down. `buffer`: whose bytes it was about. */
  end(device: WorldDevice, vecs: readonly DmaVec[], buffer?: number): void {
    this.#count(device, vecs, -1);
    this.#ended.unshift({ device, vecs, buffer, flushed: device.domain?.mode !== "lazy" });
  }

  /** Of many that are over, the oldest is left alone. */
  forgetOldest(): void {
    if (this.#ended.length > REMEMBERED) this.#ended.pop();
  }

  /** A device is gone, and another one takes its place on the bus. */
  forgetDevice(device: WorldDevice): void {
    for (let i = this.#ended.length - 1; i >= 0; i--) if (this.#ended[i]!.device === device) this.#ended.splice(i, 1);
  }

  /** True if a device may still come to the memory of a buffer through a mapping that is over. */
  awaitsFlush(buffer: number): boolean {
    return this.#ended.some((ended) => ended.buffer === buffer && !ended.flushed);
  }

  /** A device that goes on after its mapping is over must find nothing there, once everything was flushed. */
  staleAccess(nth: number, access: "read" | "write"): void {
    const ended = this.#ended[nth];
    if (!ended || ended.device.dead || ended.device.domain === undefined) return;
    for (const { address, length, bus } of ended.vecs) {
      if (bus) continue;
      const page = Math.floor(address / 4096) as IovaPage;
      if (this.#live.get(ended.device.pci.requester)?.get(page)) continue; // somebody else's by now
      const bytes = new Uint8Array(Math.min(length, 64));
      if (access === "write" && !ended.flushed) continue; // it may go through, and nobody knows where to
      const through =
        access === "read"
          ? this.#world.deviceRead(ended.device, address, bytes)
          : this.#world.deviceWrite(ended.device, address, bytes);
      if (through && isPoison(bytes, 0)) throw new Broken("poison", "a stale read reached freed memory");
    }
  }

  /** All that are over, once more. */
  staleReads(): void {
    for (let i = 0; i < this.#ended.length; i++) this.staleAccess(i, "read");
  }

  #accessed(requester: Requester, page: IovaPage, access: "read" | "write"): void {
    if (this.#live.get(requester)?.get(page)) return;
    const known = this.#ended.find(
      ({ device, vecs, flushed }) =>
        device.pci.requester === requester && !flushed && vecs.some((vec) => holds(vec, page)),
    );
    if (known) return;
    this.#world.noticeGivenUp();
    if (this.#world.devices.some(({ pci, dead }) => dead && pci.requester === requester)) return;
    throw new Broken(
      "teardown",
      `a ${access} of page 0x${page.toString(16)} went through, though nothing is mapped there and everything was flushed`,
    );
  }

  #flushed(index: number): void {
    for (const ended of this.#ended) if (this.#world.devices.indexOf(ended.device) === index) ended.flushed = true;
  }

  #count(device: WorldDevice, vecs: readonly DmaVec[], by: 1 | -1): void {
    const { requester } = device.pci;
    let pages = this.#live.get(requester);
    if (!pages) {
      pages = new Map();
      this.#live.set(requester, pages);
    }
    for (const { address, length, bus } of vecs) {
      if (bus) continue;
      const granule = device.dma.mergeBoundary + 1; // a trusted device reaches whole granules
      const first = (Math.floor(address / granule) * granule) / 4096;
      const end = (Math.ceil((address + length) / granule) * granule) / 4096;
      for (let page = first; page < end; page++) pages.set(page as IovaPage, (pages.get(page as IovaPage) ?? 0) + by);
    }
  }
}

const holds = ({ address, length }: DmaVec, page: number): boolean =>
  page >= Math.floor(address / 4096) && page <= Math.floor((address + length - 1) / 4096);
