/**
 * The machine of the dmabuf files: devices by letter, their places in the PCI tree, BARs as peer memory, and address spaces that may
 * have a history.
 *
 * Several files were recorded in one boot, so a device may come with addresses that an earlier file left behind. No line says which. What
 * the file shows of it is taken from the file: whether a mask was set before, whether 32-bit addresses are still tried first; and
 * where the first address is not one that a fresh space gives, this device's addresses are fed in, each checked (aligned, below the
 * limit, nobody else's). A device without a history has to give every address by itself.
 */
import {
  type DmaEvent,
  type IovaPage,
  type Observer,
  PAGE_SIZE,
  PhysAddr,
  type PhysPage,
} from "../../src/base/index.ts";
import { ATTRIBUTE_BITS, type Dma } from "../../src/dma/index.ts";
import type { P2pProvider } from "../../src/p2p/index.ts";
import type { PciBar } from "../../src/platform/index.ts";
import { type Header, known, type Line, NotJudged } from "./judge.ts";
import { KernelMachine } from "./kernel-machine.ts";
import { RecordedNode } from "./p2p-machine.ts";

type Event = readonly (string | number | boolean | null)[];

/** RAM of that machine ends here; its pool of bounce slots lies below. */
const RAM_END = 2 ** 29;
const POOL = { start: "0x10000000", slots: 4096, areas: 1 };
const DOMAINS: Readonly<Record<string, { readonly name: string; readonly type: string }>> = {
  strict: { name: "dma", type: "DMA" },
  cm: { name: "dma", type: "DMA" },
  fl: { name: "dma", type: "DMA" },
  virtio: { name: "dma", type: "DMA" },
  lazy: { name: "dmaFq", type: "DMA-FQ" },
  pt: { name: "identity", type: "identity" },
  none: { name: "none", type: "identity" },
  force: { name: "none", type: "identity" },
};

/** The last page that tables of four levels translate. */
const LAST_PAGE = 2 ** 36 - 1;

/** What stands below what on that machine; what is on bus 0 and not named stands there by itself. */
const PLACES: Readonly<Record<string, readonly [kind: RecordedNode["kind"], parent?: string]>> = {
  "00:02.0": ["root-port"],
  "01:00.0": ["upstream-port", "00:02.0"],
  "02:00.0": ["downstream-port", "01:00.0"],
  "02:01.0": ["downstream-port", "01:00.0"],
  "03:00.0": ["endpoint", "02:00.0"],
  "04:00.0": ["endpoint", "02:01.0"],
  "00:03.0": ["root-port"],
  "05:00.0": ["endpoint", "00:03.0"],
};

/** What a file's lines ask of its machine. */
export class DmabufMachine {
  readonly kernel: KernelMachine;
  readonly isLazy: boolean;
  /** What the kernel calls the devices' domains. */
  readonly domainName: string;
  /** Devices whose addresses are fed in. */
  readonly fed: Set<string> = new Set();
  /** Devices that an earlier file of the same boot had used. */
  readonly #used = new Set<string>();
  readonly #indexes = new Map<string, number>();
  readonly #nodes = new Map<string, RecordedNode>();
  readonly #bars: { readonly name: string; readonly provider: P2pProvider }[] = [];
  readonly #differences: (difference: string) => void;
  /** Addresses that the line at hand says were given out. */
  #recorded: Event[] = [];
  #hasHistory: boolean;

  constructor(header: Header, lines: readonly Line[], differences: (difference: string) => void) {
    this.#differences = differences;
    const parts = String(header["name"]).split("-");
    const mode = parts[1] ?? "";
    const { name, type } = known("the mode", DOMAINS, mode);
    this.domainName = name;
    this.isLazy = mode === "lazy";
    const isAmd = parts.includes("amd");
    this.kernel = new KernelMachine(
      { ...header, mode, machine: "1 processor, 2 GiB", memoryEnd: RAM_END, ...(mode === "force" && { pool: POOL }) },
      [],
    );
    const bridge = {
      segment: 0,
      vendorId: 0x8086,
      deviceId: 0x29c0,
      cpu: { vendor: "AMD", family: isAmd ? 0x17 : 0xf },
    };
    const nodeAt = (place: string): RecordedNode => {
      const found = this.#nodes.get(place);
      if (found) return found;
      if (!(place in PLACES) && !place.startsWith("00:")) throw new NotJudged(`a device at ${place}`);
      const [kind, parent] = PLACES[place] ?? ["root-endpoint"];
      const node = new RecordedNode(place, kind, parent === undefined ? undefined : nodeAt(parent), bridge);
      this.#nodes.set(place, node);
      return node;
    };
    const nodes = this.kernel.tree.devices as RecordedNode[];
    for (const [letter, address] of Object.entries(header["devices"] as Record<string, string>)) {
      const place = address.replace(/^0000:/, "");
      const node = nodeAt(place);
      let index = nodes.indexOf(node);
      if (index < 0) {
        index = nodes.length;
        nodes.push(node);
        this.kernel.addDevice(index, address, false);
        this.kernel.enter(index, type, index + 1);
        this.kernel.device(index).dma.device.skipSync = false; // no mask was set yet
        this.#watchAddresses(letter, index);
      }
      this.#indexes.set(letter, index);
    }
    for (const [bar, [start, length]] of Object.entries(header["bars"] as Record<string, [string, string]>))
      this.#addBar(bar, Number(start), Number(length));
    this.#hasHistory = lines.some((line) => line["op"] === "query" && line["skipSync"] === 1);
    const { events } = this.kernel;
    events.dmaCalled = (event): void => this.#note(event as DmaEvent);
    (events as Observer).twoStepCalled = ({ name, address, offset = 0, length = 0 }): void => {
      if (name === "dma_iova_sync") events.events.push(["ownSync", address + offset, length]);
    };
    this.kernel.events.take();
  }

  dma(letter: string): Dma {
    return this.kernel.device(this.index(letter)).dma;
  }

  index(letter: string): number {
    const index = this.#indexes.get(letter);
    if (index === undefined) throw new NotJudged(`no device is called ${JSON.stringify(letter)}`);
    return index;
  }

  node(letter: string): RecordedNode {
    return this.kernel.tree.devices[this.index(letter)]!;
  }

  provider(letter: string, bar: number): P2pProvider | undefined {
    return this.#bars.find(({ provider }) => provider.owner === this.node(letter) && provider.bar.index === bar)
      ?.provider;
  }

  /** BARs of a device that a file tells of. */
  barsOf(letter: string): readonly P2pProvider[] {
    return this.#bars.map(({ provider }) => provider).filter(({ owner }) => owner === this.node(letter));
  }

  /** The device's addresses are translated. */
  isTranslated(letter: string): boolean {
    return this.kernel.device(this.index(letter)).domain !== undefined;
  }

  /** The page that an address of the device leads to, as files write it. */
  translate(letter: string, address: number): string {
    const page = this.kernel.device(this.index(letter)).domain!.lookup(Math.floor(address / PAGE_SIZE) as IovaPage);
    return page < 0 ? "-" : this.label(page * PAGE_SIZE);
  }

  /** Where an address is: in a BAR, or in RAM. */
  label(phys: number): string {
    const found = this.#bars.find(({ provider: { bar } }) => phys >= bar.phys && phys < bar.phys + bar.length);
    return found ? `${found.name}+0x${(phys - found.provider.bar.phys).toString(16)}` : "ram";
  }

  hasHistory(letter: string): boolean {
    return this.#used.has(letter);
  }

  /** Before a line: what it says was given out. */
  begin(line: Line): void {
    this.#recorded = ((line["events"] ?? []) as Event[]).filter(([name]) => name === "iovaAlloc");
  }

  /** What happened since, as files write it. */
  told(): Event[] {
    const told: Event[] = [];
    for (const event of this.kernel.events.take()) {
      const [name, first, second, third] = event;
      const last = told.at(-1);
      const at = this.isLazy ? null : hexOf(Number(first));
      switch (name) {
        case "iovaAlloc":
          told.push([name, first!, second!, third === "0x0" ? third : this.isLazy ? null : third!]);
          break;
        case "iovaFree":
          for (const live of this.#live) live.delete(Number(first));
          told.push([name, hexOf(Number(first) * PAGE_SIZE), second!]);
          break;
        case "map": {
          const label = this.label(Number(second));
          const bytes = Number(third);
          const ends = Number(first) + bytes;
          if (last?.[0] === "map" && label === "ram" && last[2] === "ram" && this.#mapEnd === Number(first))
            told[told.length - 1] = ["map", last[1]!, "ram", Number(last[3]) + bytes];
          else told.push([name, at, label, bytes]);
          this.#mapEnd = ends;
          break;
        }
        case "unmap":
          told.push([name, at, Number(second), Number(third)]);
          break;
        case "ownSync":
          told.push(["syncMap", at, Number(second)]);
          break;
        case "inv":
        case "invMap":
          told.push([name, at, Number(second) - Number(first) + 1]);
          break;
        case "slot":
          if (event[4] !== null) this.#slots.set(String(event[4]), Number(second));
          if (last?.[0] === "slot") told[told.length - 1] = ["slot", "ram", Number(last[2]) + Number(second)];
          else told.push([name, this.label(Number(first)), Number(second)]);
          break;
        case "slotFree": {
          const bytes = this.#slots.get(String(first)) ?? 0;
          if (last?.[0] === "slotFree") told[told.length - 1] = ["slotFree", Number(last[1]) + bytes];
          else told.push([name, bytes]);
          break;
        }
        case "dma":
          told.push(event.slice(1));
          break;
        default:
      }
    }
    return told;
  }

  /** Of each device: pages by the first of a range that was fed in and not given back. */
  readonly #live: Map<number, number>[] = [];
  /** Where the last mapping ended: neighbours in RAM are told as one. */
  #mapEnd = 0;
  /** Bytes of the bounce slots in use, by their place in the pool. */
  readonly #slots = new Map<string, number>();

  #addBar(name: string, start: number, length: number): void {
    if (length % PAGE_SIZE !== 0) return; // too small to be shared
    const [letter, index] = name.split(".") as [string, string];
    const bar: PciBar = { index: Number(index), phys: PhysAddr(start), length, busAddress: start };
    this.#bars.push({ name, provider: this.kernel.peers.add(this.node(letter), bar, true) });
  }

  /** Calls of the DMA API that the recording listened to. */
  #note({ name, address, length, attributes, phys }: DmaEvent): void {
    const { events } = this.kernel.events;
    if (name === "dma_map_phys" || name === "dma_unmap_phys") {
      const call = name === "dma_map_phys" ? "dmaMapPhys" : "dmaUnmapPhys";
      const place = address === undefined ? "ram" : this.label(phys ?? address); // a failed one gives no place
      const mmio = (attributes & ATTRIBUTE_BITS.mmio) !== 0;
      events.push(mmio ? ["dma", call, place, length!, "mmio"] : ["dma", call, place, length!]);
    } else if (name.startsWith("dma_") && name.includes("_sg")) events.push(["dma", name]);
  }

  #watchAddresses(letter: string, index: number): void {
    const { domain } = this.kernel.device(index);
    if (domain === undefined) return;
    const give = domain.reserve.bind(domain);
    const live = new Map<number, number>();
    this.#live.push(live);
    let isFirst = true;
    domain.reserve = (pages, limitPage, device): IovaPage => {
      const recorded = this.#recorded;
      if (isFirst && recorded[0] && Number(recorded[0][2]) > 0xfffff && limitPage > 0xfffff) {
        device.prefer32 = false;
        this.#used.add(letter);
      }
      const { events } = this.kernel.events;
      if (!this.fed.has(letter)) {
        const before = events.length;
        const had32 = device.prefer32;
        const page = give(pages, limitPage, device);
        const given = events.slice(before).filter(([name]) => name === "iovaAlloc");
        const agrees =
          this.isLazy || given.every(([, , , at], i) => recorded[i] === undefined || at === recorded[i]?.[3]);
        if (agrees || !(isFirst || this.#hasHistory)) {
          isFirst = false;
          return page;
        }
        events.length = before;
        device.prefer32 = had32;
        this.fed.add(letter);
        this.#used.add(letter);
        this.#hasHistory = true;
      }
      isFirst = false;
      return this.#feed(pages, limitPage, device, live) as IovaPage;
    };
  }

  /** The addresses that the line says, each looked at. */
  #feed(pages: number, limitPage: number, device: { prefer32: boolean }, live: Map<number, number>): number {
    for (;;) {
      const tries32 = device.prefer32 && limitPage > 0xfffff;
      const limit = tries32 ? 0xfffff : Math.min(limitPage, LAST_PAGE);
      const page = Number(this.#recorded.shift()?.[3] ?? 0);
      this.kernel.events.iovaAllocated(pages, limit, page);
      if (page !== 0) {
        const order = 2 ** Math.ceil(Math.log2(pages));
        if (page % order !== 0) this.#differences(`fed address ${hexOf(page)} is not aligned to ${order} pages`);
        if (page + pages - 1 > limit) this.#differences(`fed address ${hexOf(page)} is above the limit`);
        for (const [start, length] of live)
          if (start < page + pages && page < start + length)
            this.#differences(`fed address ${hexOf(page)} lies in what was given out at ${hexOf(start)}`);
        live.set(page, pages);
        return page;
      }
      if (!tries32) return 0;
      device.prefer32 = false;
    }
  }
}

const hexOf = (value: number): string => `0x${value.toString(16)}`;

/** Where pages of RAM come from: where they are does not matter here. Blocks are aligned to their size. */
export class PlainPages {
  #next = 4096;
  readonly #free: number[] = [];

  allocatePages(pages: number): PhysPage | undefined {
    if (pages === 1 && this.#free.length > 0) return this.#free.pop()! as PhysPage;
    const align = 2 ** Math.ceil(Math.log2(pages));
    const first = Math.ceil(this.#next / align) * align;
    this.#next = first + pages + 1; // no two blocks touch
    return first as PhysPage;
  }

  freePages(page: PhysPage, pages: number): void {
    if (pages === 1) this.#free.push(page);
    else if (page + pages + 1 === this.#next) this.#next = page;
  }
}
