/**
 * A whole simulated machine from one description and one seed: memory, a PCI tree, caches, privacy, devices, and time.
 *
 * Idea: hardware only. What the stack asks of a machine (memory as the CPU sees it, pages, caches, encryption) stands here
 * under the names that mapping uses, and each part is the simulated one or absent. Devices are plugged into the slots
 * of the tree and may be pulled out at any moment. Two machines of one description and seed behave alike, byte for byte.
 * Promises: address space costs nothing until touched; {@link leaks} says what is not back as it was at the start.
 * Not for: what an operating system owns (bounce pool, peers' routes, address spaces): that is {@link SimulatedHost}'s; nor
 * the IOMMU itself: any unit that translates requests can be given, at the start or later (`fabric.translator`).
 */
import { GiB, PAGE_SIZE, PhysAddr, PhysPage, pagesOf, Random } from "../../base/index.ts";
import type { PageAllocator, PhysicalMemory } from "../../platform/index.ts";
import { CpuCaches } from "./caches.ts";
import { VirtualClock } from "./clock.ts";
import { type DeviceModel, SimulatedPciDevice } from "./device.ts";
import { SimulatedEncryption } from "./encryption.ts";
import { badBar, outOfMemory } from "./errors.ts";
import { Extents } from "./extents.ts";
import { Fabric, type RequestTranslator } from "./fabric.ts";
import { type RegionTarget, SimulatedMemory } from "./memory.ts";
import { type BridgeDescription, type SimulatedHostBridge, type SimulatedPciNode, SimulatedPciTree } from "./pci.ts";
import { isRam, ramEnd, SimulatedRam } from "./ram.ts";

/** A machine to build: memory, PCI tree, caches, privacy. */
export interface MachineOptions {
  /** Any safe integer. 1 unless said. */
  readonly seed?: number;
  /** RAM: whole pages, from 1 MiB to 2^51. 4 GiB unless said. */
  readonly memoryBytes?: number;
  /** Where memory is, if not where {@link memoryBytes} of it lie. What `ram` gives out stays the same. */
  readonly isRam?: (page: PhysPage) => boolean;
  /** Unless said one root complex, with four slots. */
  readonly bridges?: readonly BridgeDescription[];
  /** Devices look into the CPU's caches. True unless said; false gives a machine that shows every missing sync. */
  readonly coherent?: boolean;
  /** Memory is private until it is shared, and devices outside the trust boundary meet this on private pages. */
  readonly confidential?: "refused" | "ciphertext";
  /** Pages are given out at places that chance picks, and not the lowest first. */
  readonly scattered?: boolean;
  /** The IOMMU of all root complexes; without one addresses are physical. */
  readonly translator?: RequestTranslator;
}

/** What can be counted of a machine. */
export type MachineState = Readonly<Record<string, number>>;

/** Windows for BARs begin here, or above the RAM. */
const LOWEST_WINDOW = 2 ** 40;
const WINDOW_BYTES = 2 ** 38;

interface Plugged {
  readonly device: SimulatedPciDevice;
  readonly takeAway: () => void;
}

/** The BARs of a device in its bridge's window. */
interface PlacedBars {
  readonly takeAway: () => void;
  readonly move: (index: number, busAddress: number) => void;
}

/**
 * A whole machine from one description and one seed, hardware only. Two machines of one description and seed behave
 * alike, byte for byte. {@link SimulatedHost} adds what drivers need.
 */
export class SimulatedMachine {
  /** Its time: it moves when somebody moves it. */
  readonly clock: VirtualClock = new VirtualClock();
  /** What all its chance is drawn from. */
  readonly random: Random;
  /** Memory as the CPU sees it: through its caches, if devices do not look into them. */
  readonly memory: PhysicalMemory;
  /** Memory as devices see it. */
  readonly dram: SimulatedMemory;
  /** Its RAM, by the page and as buffers. */
  readonly ram: SimulatedRam;
  /** The same as {@link ram}. */
  readonly pages: PageAllocator;
  /** End of the highest RAM, bytes. */
  readonly ramEnd: PhysAddr;
  /** The CPU's caches; absent where devices look into them. */
  readonly caches?: CpuCaches;
  /** Private and shared memory; absent where all is plain. */
  readonly encryption?: SimulatedEncryption;
  /** Host bridges, ports, slots and what is in them. */
  readonly tree: SimulatedPciTree;
  /** The way of a device's requests. */
  readonly fabric: Fabric;
  readonly #windows = new Map<SimulatedHostBridge, Extents>();
  readonly #plugged = new Map<SimulatedPciNode, Plugged>();
  readonly #watched = new Map<string, () => number>();
  #plugs = 0;
  #start: MachineState;

  /** @throws DmaError ERR_DMA_SIM_MEMORY_SIZE (EINVAL), and those of the bounce pool */
  constructor(options: MachineOptions = {}) {
    const { seed = 1, memoryBytes = 4 * GiB, bridges = [{ rootPorts: [{}, {}, {}, {}] }] } = options;
    this.random = Random.fromSeed(seed);
    const hasRam = options.isRam ?? ((page: PhysPage): boolean => isRam(page, memoryBytes));
    this.dram = new SimulatedMemory({ isRam: hasRam });
    const caches = options.coherent === false ? new CpuCaches({ memory: this.dram, isCached: hasRam }) : undefined;
    if (caches) this.caches = caches;
    this.memory = caches ?? this.dram;
    this.ram = new SimulatedRam({
      memory: this.dram,
      bytes: memoryBytes,
      ...(caches && { views: caches }),
      ...(options.scattered && { random: this.random.fork("pages") }),
    });
    this.pages = this.ram;
    this.ramEnd = this.ram.end;
    if (options.confidential)
      this.encryption = new SimulatedEncryption({
        isRam: hasRam,
        outside: options.confidential,
        key: this.random.fork("key").bits(),
        scrub: (first, pages) => {
          this.dram.scrub(first, pages);
          caches?.zeroed(first, pages);
        },
      });
    this.tree = new SimulatedPciTree(bridges);
    const base = Math.max(LOWEST_WINDOW, 2 ** Math.ceil(Math.log2(ramEnd(memoryBytes))));
    this.tree.hostBridges.forEach((bridge, i) => {
      const first = (base + i * WINDOW_BYTES) / PAGE_SIZE;
      this.#windows.set(bridge, new Extents([[first, first + WINDOW_BYTES / PAGE_SIZE]]));
    });
    this.fabric = new Fabric({
      memory: this.dram,
      isRam: hasRam,
      ...(options.translator && { translator: options.translator }),
      ...(this.encryption && { encryption: this.encryption }),
    });
    this.#start = this.snapshot();
  }

  /**
   * Plugs a device in, one model per function; slots are named as in {@link SimulatedPciTree.plug}.
   *
   * @throws DmaError ERR_DMA_SIM_NO_SLOT (ENODEV), ERR_DMA_SIM_SLOT_TAKEN (EBUSY), ERR_DMA_SIM_BAR (EINVAL),
   *   ERR_DMA_SIM_MEMORY (ENOMEM) when the bridge's windows are full; nothing is plugged in then
   */
  plug(slot: string, ...models: readonly [DeviceModel, ...DeviceModel[]]): SimulatedPciDevice[] {
    for (const model of models) checkBars(model);
    const nodes = this.tree.plug(slot, models.length);
    const placed: PlacedBars[] = [];
    try {
      nodes.forEach((node, i) => {
        placed.push(this.#placeBars(node, models[i]!));
      });
    } catch (error) {
      for (const { takeAway } of placed) takeAway();
      this.tree.unplug(nodes[0]!);
      throw error;
    }
    return nodes.map((node, i) => {
      const random = this.random.fork(`device ${this.#plugs++} ${slot}`);
      const { fabric, clock } = this;
      const { takeAway, move: moveBar } = placed[i]!;
      const model = models[i]!;
      const device = new SimulatedPciDevice({ node, model, fabric, memory: this.ram, clock, random, moveBar });
      this.#plugged.set(node, { device, takeAway });
      return device;
    });
  }

  /** Pulls a device out by surprise: all its functions, or, for a port, everything below. A second time does nothing. */
  unplug(node: SimulatedPciNode): void {
    const gone: SimulatedPciDevice[] = [];
    for (const each of this.tree.unplug(node)) {
      const plugged = this.#plugged.get(each);
      if (!plugged) continue;
      this.#plugged.delete(each);
      plugged.takeAway();
      gone.push(plugged.device);
    }
    for (const device of gone) device.announceRemoval();
  }

  /** Devices that are plugged in. */
  get devices(): readonly SimulatedPciDevice[] {
    return [...this.#plugged.values()].map(({ device }) => device);
  }

  /** From now on `count` is part of the state: frames of tables, attached devices, whatever must come back. */
  watch(name: string, count: () => number): void {
    this.#watched.set(name, count);
    this.#start = { ...this.#start, [name]: count() };
  }

  /** What is in use from now on counts as the start: for who sets a machine up before drivers come. */
  rebase(): void {
    this.#start = this.snapshot();
  }

  /** What is in use now. */
  snapshot(): MachineState {
    const state: Record<string, number> = {
      "pages of RAM": this.ram.pagesInUse,
      timers: this.clock.pending,
    };
    if (this.caches) state["maintenance without a barrier"] = this.caches.pending;
    if (this.encryption) {
      state["shared pages"] = this.encryption.sharedPages;
      state["private device pages"] = this.encryption.privateDevicePages;
      state["unusable pages"] = this.encryption.unusablePages;
    }
    for (const [name, count] of this.#watched) state[name] = count();
    return state;
  }

  /** What is not as it was at the start, or at `before`; empty if all is. */
  leaks(before: MachineState = this.#start): string[] {
    return Object.entries(this.snapshot())
      .filter(([name, count]) => count !== (before[name] ?? 0))
      .map(([name, count]) => `${name}: ${count}, at the start ${before[name] ?? 0}`);
  }

  /** Puts the BARs of a device into its bridge's window. */
  #placeBars(node: SimulatedPciNode, model: DeviceModel): PlacedBars {
    const window = this.#windows.get(node.hostBridge)!;
    const given: (() => void)[] = [];
    const regions = new Map<number, () => void>();
    const takeAway = (): void => {
      this.fabric.removeWindows(node);
      for (const remove of regions.values()) remove();
      for (const give of given) give();
    };
    for (const { index, length, target } of model.bars) {
      const pages = pagesOf(length);
      const page = window.take(pages, pages);
      if (page < 0) {
        takeAway();
        throw outOfMemory(length, window.free, window.largest);
      }
      given.push(() => window.give(page, pages));
      const phys = PhysPage.start(page as PhysPage);
      regions.set(index, this.dram.addRegion(phys, length, decodedBy(node, target)));
      const bar = { index, phys, length, busAddress: phys + node.hostBridge.busOffset };
      node.bars.push(bar);
      this.fabric.addWindow(node, bar);
    }
    const move = (index: number, busAddress: number): void => {
      const at = node.bars.findIndex((bar) => bar.index === index);
      const { length } = node.bars[at]!;
      const phys = PhysAddr(busAddress - node.hostBridge.busOffset);
      regions.get(index)?.();
      regions.delete(index);
      node.bars[at] = { index, phys, length, busAddress };
      // Where something else answers already, nobody can say who does: the device is heard nowhere then.
      if (this.dram.isFree(phys, length))
        regions.set(index, this.dram.addRegion(phys, length, decodedBy(node, model.bars[at]!.target)));
      this.fabric.removeWindows(node);
      for (const bar of node.bars) if (regions.has(bar.index)) this.fabric.addWindow(node, bar);
    };
    return { takeAway, move };
  }
}

/** The target, as long as the device listens. */
const decodedBy = (node: SimulatedPciNode, target: RegionTarget): RegionTarget => ({
  read(offset, into) {
    if (node.decodesMemory) target.read(offset, into);
    else into.fill(0xff);
  },
  write(offset, from) {
    if (node.decodesMemory) target.write(offset, from);
  },
});

function checkBars({ bars }: DeviceModel): void {
  const seen = new Set<number>();
  for (const { index, length } of bars) {
    const isSize = length >= 4096 && Number.isInteger(Math.log2(length));
    if (!isSize || !Number.isInteger(index) || index < 0 || index > 5 || seen.has(index)) throw badBar(index, length);
    seen.add(index);
  }
}
