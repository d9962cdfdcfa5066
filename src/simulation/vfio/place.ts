/**
 * One host of a run: a network card with two functions that a guest may have, the guest's process, and the way its memory reaches them.
 *
 * The first function is the guest's for good; the second comes and goes. By iommufd it may lie behind the guest's own IOMMU: then it
 * reaches only what is copied to a space of its own.
 */
import { MiB, PAGE_SIZE, PhysAddr } from "../../base/index.ts";
import {
  type BoundDevice,
  ChargedPages,
  type DomainTable,
  type Ioas,
  Iommufd,
  UnitDevice,
  UnitIommu,
} from "../../consumers/iommufd/index.ts";
import { DeviceMigration, DmaLogging, NicCommands, NicDriver, Type1Container } from "../../consumers/vfio/index.ts";
import { NetworkCard, type NicFunction, SimulatedHost, type SimulatedPciDevice } from "../../hosts/simulated/index.ts";
import { Frames, newUser, SimulatedFile, SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import type { PagingDomain } from "../../iommu/index.ts";
import { NIC_FUNCTION_REGISTER } from "../../layouts/nic/index.ts";
import { layoutNamed } from "../../layouts/pagetable/index.ts";
import { newPageEntry, UserAddr } from "../../platform/index.ts";
import type { RunOptions } from "../scenario.ts";
import type { VfioConfig, VfioPlan } from "./plan.ts";

/** Where the guest's memory lies in its process. */
const START = 2 ** 32;
/** Addresses of the guest's own IOMMU, for the second device. */
const COPIES = 2 ** 33;
const PAGE = BigInt(PAGE_SIZE);
const RW = { read: true, write: true, mmio: false };

/** A function of the card, as the guest may have it. */
interface PlaceFunction {
  readonly model: NicFunction;
  readonly pci: SimulatedPciDevice;
  readonly driver: NicDriver;
  readonly migration: DeviceMigration;
  readonly logging: DmaLogging;
  readonly device: UnitDevice;
}

/** One host, and the guest on it. */
export class Place {
  readonly host: SimulatedHost;
  readonly frames: Frames;
  readonly functions: readonly PlaceFunction[];
  process: SimulatedProcess;
  readonly #config: VfioConfig;
  readonly #file: SimulatedFile | undefined;
  readonly #iommufd: Iommufd;
  readonly #ram: Ioas;
  readonly #copies: Ioas;
  readonly #container: Type1Container | undefined;
  readonly #commands: NicCommands;
  readonly #firstGroup: { readonly devices: readonly UnitDevice[] };
  readonly #secondGroup: { readonly devices: readonly UnitDevice[] };
  readonly #before: Readonly<Record<string, number>>;
  #first: BoundDevice | undefined;
  #second: BoundDevice | undefined;
  #hasSecond = false;

  constructor({ config, seed }: VfioPlan, options: RunOptions) {
    this.#config = config;
    this.host = new SimulatedHost({
      seed,
      memoryBytes: 256 * MiB,
      scattered: true,
      iommu: { dirty: true },
      ...(options.observer && { observer: options.observer }),
    });
    const { machine } = this.host;
    const card = new NetworkCard({ functions: 2 });
    const [physical, ...functions] = this.host.plug("0.0", card, ...card.functions);
    const { dma } = this.host.openDevice(physical!.name);
    this.#before = machine.snapshot();
    this.#commands = new NicCommands(physical!, dma);
    const unit = options.parts?.unit?.(this.host.unit!) ?? this.host.unit!;
    this.functions = functions.map((pci, number) => {
      pci.setBusMaster(true);
      const { memory, pages, clock } = machine;
      const driver = new NicDriver({ commands: this.#commands, number, dma, memory, pages, clock });
      const layout = layoutNamed(config.tables[number]!);
      const iommu = new UnitIommu({
        unit,
        layout,
        canTrackDirty: layout.dirty !== undefined,
        firstDomain: 100 * (number + 1),
      });
      return {
        model: card.functions[number]!,
        pci,
        driver,
        migration: new DeviceMigration(driver),
        logging: new DmaLogging(driver),
        device: new UnitDevice({ name: pci.name, iommu, requester: pci.requester }),
      };
    });
    this.#firstGroup = { devices: [this.functions[0]!.device] };
    this.#secondGroup = { devices: [this.functions[1]!.device] };
    this.frames = new Frames({ pages: machine.ram, memory: machine.memory });
    const { frames } = this;
    if (config.isFile) this.#file = new SimulatedFile({ frames, name: "guest", length: this.#bytes });
    this.process = this.#newProcess();
    const once = config.way === "iommufd, charged once" ? { chargedPages: new ChargedPages() } : {};
    this.#iommufd = new Iommufd(once);
    this.#iommufd.acquire();
    this.#ram = this.#iommufd.createIoas();
    this.#copies = this.#iommufd.createIoas();
    if (config.way === "container") {
      this.#container = new Type1Container({ v2: true });
      this.#container.attach(this.#firstGroup);
    } else {
      this.#first = this.#iommufd.bind(this.functions[0]!.device);
      this.#iommufd.attach(this.#first, this.#ram.id);
    }
    options.parts?.guest?.({ iommufd: this.#iommufd, container: this.#container, frames });
  }

  /** The guest's driver tells the first function to receive, into all of its memory. */
  startReceiving(): void {
    const bar = this.functions[0]!.pci.bar(0)!;
    bar.write32(NIC_FUNCTION_REGISTER.RING_PAGES, this.#config.blocks * this.#config.blockPages);
    bar.write32(NIC_FUNCTION_REGISTER.CONTROL, 1);
  }

  get #bytes(): number {
    return this.#config.blocks * this.#config.blockPages * PAGE_SIZE;
  }

  get #blockBytes(): bigint {
    return BigInt(this.#config.blockPages) * PAGE;
  }

  #newProcess(): SimulatedProcess {
    const { blocks, blockPages, sparePages } = this.#config;
    const memlockBytes = (blocks * blockPages + sparePages) * PAGE_SIZE;
    const process = new SimulatedProcess(this.frames, { user: newUser("guest"), memlockBytes });
    const address = UserAddr(START);
    if (this.#file) process.memory.map({ address, length: this.#bytes, file: this.#file, shared: true });
    else process.memory.map({ address, length: this.#bytes });
    return process;
  }

  /** Pages that the guest's process, or its user, is charged for. */
  get chargedPages(): number {
    return this.#container ? this.process.memory.locked.pages : this.process.user.locked.pages;
  }

  /** The guest has its second device. */
  get hasSecond(): boolean {
    return this.#hasSecond;
  }

  /** The second device lies behind the guest's own IOMMU. */
  get hasGuestIommu(): boolean {
    return this.#container === undefined;
  }

  plug(block: number): void {
    const iova = BigInt(block) * this.#blockBytes;
    this.#map(iova, BigInt(START) + iova, this.#blockBytes);
  }

  #map(iova: bigint, address: bigint, length: bigint): void {
    const { process } = this;
    if (this.#container) this.#container.map(process, address, iova, length, RW);
    else if (this.#file)
      this.#iommufd.mapFile(this.#ram, process, this.#file, address - BigInt(START), { iova, length });
    else this.#iommufd.map(this.#ram, process, address, { iova, length });
  }

  /** Takes the block from the devices and throws its contents away, unless a file keeps them. Bytes unmapped. */
  unplug(block: number): number {
    const iova = BigInt(block) * this.#blockBytes;
    const bytes = this.unmap(iova, this.#blockBytes);
    if (!this.#file) this.process.memory.advise(UserAddr(START + Number(iova)), Number(this.#blockBytes), "dontneed");
    return bytes;
  }

  unmap(iova: bigint, length: bigint): number {
    return Number(this.#container ? this.#container.unmap(iova, length) : this.#ram.unmap(iova, length));
  }

  /** Contents of unplugged blocks are lost. */
  get forgets(): boolean {
    return this.#file === undefined;
  }

  /** Maps more than may be locked; beyond all blocks. @throws DmaError */
  mapTooMuch(): void {
    const { blocks, blockPages, sparePages } = this.#config;
    const pages = blocks * blockPages + sparePages + 1;
    const address = this.process.memory.map({ length: pages * PAGE_SIZE });
    try {
      const length = BigInt(pages) * PAGE;
      const iova = 2n ** 30n;
      if (this.#container) this.#container.map(this.process, BigInt(address), iova, length, RW);
      else this.#iommufd.map(this.#ram, this.process, BigInt(address), { iova, length });
    } finally {
      this.process.memory.unmap(address, pages * PAGE_SIZE);
    }
  }

  addSecond(): void {
    const { device } = this.functions[1]!;
    if (this.#container) this.#container.attach(this.#secondGroup);
    else {
      this.#second = this.#iommufd.bind(device);
      this.#iommufd.attach(this.#second, this.#copies.id);
    }
    this.#hasSecond = true;
  }

  /** Detached first, or pulled out. */
  removeSecond(isPulled: boolean): void {
    if (this.#container) this.#container.detach(this.#secondGroup);
    else {
      if (!isPulled) this.#iommufd.detach(this.#second!);
      this.#iommufd.unbind(this.#second!);
      this.#second = undefined;
    }
    this.#hasSecond = false;
  }

  /** The guest's own IOMMU: its page elsewhere, for the second device. */
  copy(slot: number, page: number): void {
    const iova = BigInt(COPIES) + BigInt(slot) * PAGE;
    this.#iommufd.copy(this.#ram, BigInt(page) * PAGE, this.#copies, { iova, length: PAGE });
  }

  dropCopy(slot: number): void {
    this.#copies.unmap(BigInt(COPIES) + BigInt(slot) * PAGE, PAGE);
  }

  /** A successor takes over: it has the file, and pays from now on. */
  handOver(): void {
    const next = this.#newProcess();
    if (this.#container) {
      const { mappings } = this.#container;
      if (mappings.length > 0) {
        const all = [...mappings].map(({ first, size }) => ({ first, size }));
        this.#container.invalidateVaddr(0n, 2n ** 64n - 1n, true);
        for (const { first, size } of all) this.#container.setVaddr(next, BigInt(START) + first, first, size, false);
      }
    } else this.#iommufd.changeProcess(next);
    this.process.exit();
    this.process = next;
  }

  /** The page that a device reaches at a page of the guest; -1: none. */
  reach(device: 0 | 1, page: number, access: "read" | "write"): number {
    return this.host.tablesUnit!.translate(this.functions[device]!.pci.requester, page as never, access);
  }

  /** The address, in pages, that the second device has a copy at. */
  copyPage(slot: number): number {
    return COPIES / PAGE_SIZE + slot;
  }

  /** The page of the machine that the process has there, which it brings if need be. */
  pageOf(page: number): number {
    this.process.memory.touch(UserAddr(START + page * PAGE_SIZE), true);
    this.process.memory.entryAt(UserAddr(START + page * PAGE_SIZE), ENTRY);
    return ENTRY.page;
  }

  read(page: number, into: Uint8Array): void {
    this.process.memory.read(UserAddr(START + page * PAGE_SIZE), into);
  }

  write(page: number, from: Uint8Array): void {
    this.process.memory.write(UserAddr(START + page * PAGE_SIZE), from);
  }

  /** What a device moves at a page of the machine. */
  dma(machinePage: number, bytes: Uint8Array, access: "read" | "write"): void {
    this.host.machine.memory[access](PhysAddr(machinePage * PAGE_SIZE), bytes);
  }

  /** The domain that the first device translates by, if it notes writes. */
  get dirtyDomain(): PagingDomain | undefined {
    const table = this.#container ? this.#container.tables[0] : this.#ram.tables[0];
    const domain = (table as DomainTable | undefined)?.domain;
    return domain?.table.layout.dirty ? domain : undefined;
  }

  /** Everything goes; what is left then. */
  end(): string[] {
    if (this.#hasSecond) this.removeSecond(false);
    this.#container?.detach(this.#firstGroup);
    if (this.#first) this.#iommufd.unbind(this.#first);
    this.#iommufd.release();
    for (const { driver, migration } of this.functions) {
      migration.reset();
      driver.detach();
    }
    this.#commands.close();
    const charged = this.chargedPages;
    const pinned = this.process.memory.pinned.pages;
    this.process.exit();
    this.#file?.release();
    return [
      ...(charged > 0 ? [`${charged} charged pages`] : []),
      ...(pinned > 0 ? [`${pinned} pinned pages`] : []),
      ...(this.frames.inUse > 0 ? [`${this.frames.inUse} pages of processes`] : []),
      ...this.host.machine.leaks(this.#before),
    ];
  }
}

const ENTRY = newPageEntry();
