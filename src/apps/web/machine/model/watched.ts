/**
 * The machine that is shown: a {@link SimulatedHost} that says what happens on it, and remembers what buttons can act on.
 *
 * Idea: it is the library's own host in all it does; a program makes it by its own name and notices nothing. The newest one is shown.
 */
import { hex, PAGE_SIZE } from "../../../../base/index.ts";
import type { Dma, DmaMapping, IovaRange, OpenDeviceOptions } from "../../../../dma/index.ts";
import {
  SimulatedHost,
  type SimulatedHostOptions,
  type SimulatedOpenDevice,
} from "../../../../hosts/simulated/index.ts";
import type { DeviceAccess } from "../../../../platform/index.ts";
import { bothHear, Happenings } from "./happenings.ts";
import type { AccessPicture } from "./picture.ts";
import { WAYS } from "./ways.ts";

/** Accesses that are kept of one step. */
const MOST_ACCESSES = 64;

/** A reservation that was made and not given back. */
interface KnownRange {
  readonly id: number;
  readonly device: string;
  readonly range: IovaRange;
  /** What it was when it was made: a range that was given back has none any more. */
  readonly page: number;
  readonly pages: number;
}

/** A one-shot mapping. */
interface KnownMapping {
  readonly id: number;
  readonly device: string;
  readonly mapping: DmaMapping;
}

/** What is known of the machine that is shown. */
export class Watched {
  host: SimulatedHost | undefined;
  happenings: Happenings = new Happenings();
  accesses: AccessPicture[] = [];
  readonly opened: Map<string, SimulatedOpenDevice> = new Map();
  readonly ranges: KnownRange[] = [];
  readonly mappings: KnownMapping[] = [];
  #next = 1;
  #walks = 0;
  #turned = 0;
  #passed = 0;

  beginStep(): void {
    this.happenings.beginStep();
    this.accesses = [];
  }

  /** `host` is shown from now on. */
  show(host: SimulatedHost, happenings: Happenings): void {
    this.host = host;
    this.happenings = happenings;
    this.accesses = [];
    this.opened.clear();
    this.ranges.length = 0;
    this.mappings.length = 0;
    this.#walks = 0;
    this.#turned = 0;
    this.#passed = 0;
    const { fabric } = host.machine;
    let other: typeof fabric.onAccess;
    // Whoever else wants to hear of accesses (a DmaDebug) says so in the same place.
    Object.defineProperty(fabric, "onAccess", {
      get: () => (access: DeviceAccess) => {
        this.#accessed(host, access);
        other?.(access);
      },
      set: (hears: typeof other) => {
        other = hears;
      },
    });
  }

  open(open: SimulatedOpenDevice): void {
    const { name } = open.device;
    if (this.opened.get(name) === open) return;
    this.opened.set(name, open);
    this.#remember(name, open.dma);
  }

  /** Ranges and mappings that the program makes can be taken on by buttons. */
  #remember(device: string, dma: Dma): void {
    const { map, tryReserveIova } = dma;
    dma.tryReserveIova = (asked) => {
      const range = tryReserveIova.call(dma, asked);
      if (range) {
        const [page, pages] = [Math.floor(range.address / PAGE_SIZE), Math.ceil(range.capacity / PAGE_SIZE)];
        this.ranges.push({ id: this.#next++, device, range, page, pages });
      }
      return range;
    };
    dma.map = (...given) => {
      const mapping = map.apply(dma, given);
      this.mappings.push({ id: this.#next++, device, mapping });
      return mapping;
    };
  }

  /** Why an access did not go through, as far as it can be told at once. */
  #reason({ machine, tablesUnit }: SimulatedHost, requester: number, address: number): string {
    const node = machine.tree.node(requester);
    if (!node) return "pulled out";
    if (!node.busMaster) return "it may not start requests";
    const fault = tablesUnit?.faults.at(-1);
    const isIts = fault?.requester === requester && fault.page === Math.floor(address / PAGE_SIZE);
    return isIts ? fault.reason : "nothing answers there";
  }

  #accessed(host: SimulatedHost, { requester, address, length, access, wentThrough }: DeviceAccess): void {
    const { fabric, tree } = host.machine;
    const device = tree.node(requester)?.name ?? hex(requester);
    const walks = host.tablesUnit?.walks ?? 0;
    let way: AccessPicture["way"] = "physical";
    if (!wentThrough) way = "refused";
    else if (fabric.turnedAround > this.#turned) way = "switch";
    else if (fabric.passedOn > this.#passed) way = "bridge";
    else if (host.unit || host.virtio) way = walks > this.#walks || !host.tablesUnit ? "walk" : "iotlb";
    this.#walks = walks;
    this.#turned = fabric.turnedAround;
    this.#passed = fabric.passedOn;
    const reason = wentThrough ? undefined : this.#reason(host, requester, address);
    if (this.accesses.length < MOST_ACCESSES)
      this.accesses.push({ device, address, lengthBytes: length, access, way, reason });
    this.happenings.say(
      wentThrough ? "device" : "fault",
      `${access}s ${length} bytes at ${hex(address)}: ${WAYS[way]}${reason === undefined ? "" : ` (${reason})`}`,
      device,
    );
  }
}

/** The library's host, shown by `watched`. */
export function shownHost(watched: Watched): typeof SimulatedHost {
  return class extends SimulatedHost {
    readonly #observer: SimulatedHostOptions["observer"];

    constructor(options: SimulatedHostOptions = {}) {
      const heard = new Happenings();
      super({ ...options, observer: bothHear(options.observer, heard.observer("the machine")) });
      this.#observer = options.observer;
      watched.show(this, heard);
    }

    override openDevice(name: string, options: OpenDeviceOptions = {}): SimulatedOpenDevice {
      const own = options.observer ?? this.#observer;
      const open = super.openDevice(name, { ...options, observer: bothHear(own, watched.happenings.observer(name)) });
      watched.open(open);
      return open;
    }
  };
}
