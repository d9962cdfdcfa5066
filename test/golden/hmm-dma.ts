/**
 * Judge of the hmm-dma files: the DMA map of one watched range of one process, on a PCI device, in each mode of the running kernel.
 *
 * The process is the simulated one, the DMA API is dmalink's as Linux is (`linuxCompatible`, unchecked). Compared are words, addresses,
 * what the IOMMU's tables say of each page, notifier calls, and every event below. The recording begins each random history
 * with fresh memory, which no line says: see {@link HmmDmaJudge.run}.
 */
import { DmaError, type DmaEvent, type IovaPage, PAGE_SIZE, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import { HMM, HmmDmaMap, rangeFault } from "../../src/consumers/hmm/index.ts";
import { ATTRIBUTE_BITS, attributesOf, type Dma, type DmaMapping } from "../../src/dma/index.ts";
import { type Access, Frames, SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import { finish, type IntervalNotifier, type PciBar, UserAddr } from "../../src/platform/index.ts";
import { Differences, type Header, type Judge, judgeLines, known, type Line, type Verdict } from "./judge.ts";
import { KernelMachine } from "./kernel-machine.ts";
import { RecordedNode } from "./p2p-machine.ts";
import { errnoOf, INVALIDATION_WORDS, number } from "./words.ts";

/** Where the arena of the process lies, and how long it can be, pages. */
const ARENA = 2 ** 30 / PAGE_SIZE;
const MOST = 4096;
/** RAM of that machine ends here; its pool of bounce slots lies below. */
const RAM_END = 2 ** 29;
const POOL = { start: "0x10000000", slots: 4096, areas: 1 };

/** Pages of RAM, lowest first: where they are does not matter here. */
class PlainPages {
  #next = 256;
  readonly #free: number[] = [];

  allocatePages(pages: number): PhysPage | undefined {
    if (pages === 1 && this.#free.length > 0) return this.#free.pop()! as PhysPage;
    const first = this.#next;
    this.#next += pages;
    return first as PhysPage;
  }

  freePages(page: PhysPage, pages: number): void {
    for (let i = 0; i < pages; i++) this.#free.push(page + i);
  }
}

type Event = readonly (string | number | boolean | null)[];

class HmmDmaJudge {
  readonly #machine: KernelMachine;
  readonly #lines: readonly Line[];
  readonly #differences = new Differences();
  readonly #frames: Frames;
  readonly #process: SimulatedProcess;
  readonly #domainName: string;
  readonly #isLazy: boolean;
  #notifier: IntervalNotifier | undefined;
  #map: HmmDmaMap | undefined;
  #unmapsOnInvalidate = false;
  /** The next reservation gets fresh memory. */
  #isFresh = false;
  #isRandom = false;
  #invalidations: unknown[] = [];
  #own: DmaMapping | undefined;
  #ownPage: PhysPage;
  #ownLength = 0;
  /** That of the line: pages of zeros are many. */
  #index = 0;
  /** Where addresses are counted from, when there is no map. */
  #base = 0;
  #words: string[] = [];
  #iommu: string[] = [];
  #peer: PhysAddr | undefined;

  constructor(header: Header, lines: readonly Line[]) {
    const name = header["name"] as string;
    const mode = name.replace(/^p2p-/, "").split("-")[0]!;
    const amd = name.includes("-amd");
    const machine = `1 processor, 2 GiB${amd ? ", AMD family 0x17" : ""}`;
    this.#machine = new KernelMachine(
      { ...header, mode, machine, memoryEnd: RAM_END, ...(mode === "force" && { pool: POOL }) },
      [],
    );
    this.#lines = lines;
    if (name.startsWith("p2p-")) this.#buildTree(name.endsWith("switch"), amd);
    this.#isLazy = mode === "lazy";
    this.#domainName = { lazy: "dmaFq", pt: "identity", none: "none", force: "none" }[mode] ?? "dma";
    const { memory } = this.#machine;
    this.#frames = new Frames({ pages: new PlainPages(), memory });
    this.#process = new SimulatedProcess(this.#frames);
    this.#machine.addDevice(0, header["device"] as string, false);
    this.#machine.enter(0, { dmaFq: "DMA-FQ", dma: "DMA" }[this.#domainName] ?? "identity", 1);
    this.#ownPage = this.#frames.allocate(0)!.frame;
    const { events } = this.#machine;
    events.dmaCalled = (event) => {
      const { name: call, address, length, attributes } = event as DmaEvent;
      const isMmio = (attributes & ATTRIBUTE_BITS.mmio) !== 0;
      if (call === "dma_map_phys" || call === "dma_unmap_phys")
        events.events.push([call === "dma_map_phys" ? "dmaMapPhys" : "dmaUnmapPhys", address ?? null, length!, isMmio]);
    };
    this.#dma.device.skipSync = false;
  }

  get #dma(): Dma {
    return this.#machine.device(0).dma;
  }

  /** The provider is number 1, the device number 0: below one switch, or both on the root bus. */
  #buildTree(isSwitch: boolean, amd: boolean): void {
    const cpu = { vendor: "AMD", family: amd ? 0x17 : 0xf };
    const bridge = { segment: 0, vendorId: 0x8086, deviceId: 0x29c0, cpu };
    const nodes = this.#machine.tree.devices as RecordedNode[];
    if (!isSwitch) {
      nodes.push(new RecordedNode("00:07.0", "root-endpoint", undefined, bridge));
      nodes.push(new RecordedNode("00:04.0", "root-endpoint", undefined, bridge));
      return;
    }
    const port = new RecordedNode("00:02.0", "root-port", undefined, bridge);
    const upstream = new RecordedNode("01:00.0", "upstream-port", port, bridge);
    const below = ["02:00.0", "02:01.0"].map((name) => new RecordedNode(name, "downstream-port", upstream, bridge));
    nodes.push(new RecordedNode("04:00.0", "endpoint", below[1], bridge));
    nodes.push(new RecordedNode("03:00.0", "endpoint", below[0], bridge));
  }

  run(): Verdict {
    return judgeLines(this.#lines, true, (line, i) => {
      // Fresh memory is made for each history, before the pages of a peer come into it.
      if (line["op"] === "mmapPeer" && !this.#map)
        this.#refresh(this.#lines.slice(i).find(({ op }) => op === "alloc")!);
      this.#line(line);
      this.#compareState(line);
      return this.#differences.take();
    });
  }

  /** Memory as at the start: one area, of which nothing was touched. */
  #refresh(alloc: Line): void {
    const count = number(alloc["n"]);
    this.#notifier?.remove();
    const { memory } = this.#process;
    memory.unmap(UserAddr(ARENA * PAGE_SIZE), MOST * PAGE_SIZE);
    memory.map({ address: UserAddr(ARENA * PAGE_SIZE), length: count * PAGE_SIZE });
    this.#isFresh = false;
    this.#watch();
  }

  #watch(): void {
    this.#notifier?.remove();
    const start = UserAddr(ARENA * PAGE_SIZE);
    this.#notifier = this.#process.memory.watch(start, UserAddr((ARENA + MOST) * PAGE_SIZE), (invalidation) => {
      const first = invalidation.start / PAGE_SIZE - ARENA;
      const last = invalidation.end / PAGE_SIZE - ARENA;
      this.#invalidations.push([INVALIDATION_WORDS[invalidation.kind], first, last - first]);
      if (this.#map && this.#unmapsOnInvalidate) this.#drop(this.#map, first, last);
      return true;
    });
  }

  /** What an on-demand driver does: unmap, then forget. */
  #drop(map: HmmDmaMap, first: number, last: number): void {
    for (let i = Math.max(0, first); i < Math.min(last, map.words.count); i++) {
      if (map.unmap(i)) this.#invalidations.push(["unmapPfn", i]);
      map.words.clear(i);
    }
  }

  #line(line: Line): void {
    const op = line["op"] as string;
    const { memory } = this.#process;
    const index = number(line["index"] ?? 0);
    this.#index = index;
    const count = number(line["n"] ?? 0);
    const address = UserAddr((ARENA + index) * PAGE_SIZE);
    const length = count * PAGE_SIZE;
    const answer = (call: () => void): void => this.#differences.same("ret", line["ret"], errnoOf(call));
    switch (op) {
      case "note":
        this.#isFresh = true;
        this.#isRandom = line["text"] === "random" || (this.#isRandom && line["text"] === "peer memory");
        return;
      case "query":
        this.#query(line);
        return;
      case "setMask":
        answer(() => this.#dma.setMask(number(line["bits"]) === 64 ? 2 ** 64 : 2 ** number(line["bits"]) - 1));
        return;
      case "alloc":
        this.#alloc(line);
        return;
      case "free":
        this.#base = this.#map!.address ?? 0;
        this.#map!.free();
        this.#differences.same("ret", line["ret"], 0);
        this.#compareEvents(line);
        this.#map = undefined;
        return;
      case "fault":
        this.#fault(line, index, count);
        return;
      case "mapPfn":
        this.#mapPfn(line, index);
        return;
      case "unmapPfn":
        this.#differences.same("done", line["done"], this.#map!.unmap(index));
        return;
      case "setWord":
        this.#map!.words.clear(index);
        return;
      case "mmap":
        answer(() => memory.map({ address, length, replace: true }));
        return;
      case "mmapPeer":
        answer(() =>
          memory.map({
            address,
            length,
            replace: true,
            shared: true,
            peer: Math.floor(this.#peer! / PAGE_SIZE) as PhysPage,
          }),
        );
        return;
      case "munmap":
        answer(() => memory.unmap(address, length));
        return;
      case "mprotect":
        answer(() => memory.protect(address, length, line["prot"] as Access));
        return;
      case "dontneed":
        answer(() => memory.advise(address, length, "dontneed"));
        return;
      case "cpuWrite":
        this.#cpuWrite(index, count);
        this.#differences.same("ret", line["ret"], 0);
        return;
      case "fork": {
        const child = this.#process.fork();
        if (line["parentWrites"]) this.#cpuWrite(index, count);
        child.exit();
        return;
      }
      case "p2pProvider":
        this.#addProvider(line);
        return;
      case "mapOwnPage":
        this.#mapOwn(line);
        return;
      case "unmapOwnPage":
        this.#own?.unmap();
        this.#own = undefined;
        return;
      default:
        known("the operation", {}, op);
    }
  }

  #query(line: Line): void {
    const { device } = this.#dma;
    const found = {
      addressingLimited: Number(this.#dma.addressingLimited),
      needUnmap: Number(this.#dma.needsUnmap),
      skipSync: Number(device.skipSync),
      domain: this.#domainName,
    };
    for (const [key, value] of Object.entries(found)) this.#differences.same(key, line[key], value);
  }

  #alloc(line: Line): void {
    const pages = number(line["n"]);
    let map: HmmDmaMap | undefined;
    const ret = errnoOf(() => {
      map = new HmmDmaMap({ dma: this.#dma, pages, entryBytes: number(line["entrySize"]) });
    });
    this.#differences.same("ret", line["ret"], ret);
    if (!map) return;
    this.#map = map;
    this.#unmapsOnInvalidate = line["unmapOnInvalidate"] === true;
    this.#words = new Array<string>(pages).fill("0");
    this.#iommu = new Array<string>(pages).fill("-");
    this.#differences.same("iova", line["iova"], map.address !== undefined);
    this.#differences.same("list", line["list"], map.hasAddressList);
    if (map.address !== undefined) {
      if (!this.#isLazy) this.#differences.same("addr", line["addr"], `0x${map.address.toString(16)}`);
      this.#differences.same("sizeWord", line["sizeWord"], `0x${(pages * PAGE_SIZE).toString(16)}`);
    }
    const isReady = this.#process.memory.areaAt(UserAddr(ARENA * PAGE_SIZE)) !== undefined;
    const isPeer = this.#peer !== undefined;
    if (!isReady || ((this.#isFresh || this.#isRandom) && !isPeer)) this.#refresh(line);
  }

  #fault(line: Line, index: number, count: number): void {
    const flags = line["flags"] as string;
    const ask = (flags.includes("F") ? HMM.valid : 0) | (flags.includes("W") ? HMM.write : 0);
    let retries = 0;
    const ret = errnoOf(() => {
      for (;;) {
        const notifier = this.#notifier!;
        const done = finish(
          rangeFault({
            memory: this.#process.memory,
            notifier,
            sequence: notifier.readBegin(),
            start: UserAddr((ARENA + index) * PAGE_SIZE),
            end: UserAddr((ARENA + index + count) * PAGE_SIZE),
            words: this.#map!.words,
            firstWord: index,
            ask,
          }),
        );
        if (done) return;
        retries++;
      }
    });
    this.#differences.same("ret", line["ret"], ret);
    this.#differences.same("retries", line["retries"], retries);
  }

  #mapPfn(line: Line, index: number): void {
    const map = this.#map!;
    let address: number | undefined;
    try {
      address = map.map(index);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
    }
    const page = map.words.page(index) * PAGE_SIZE;
    const { address: base } = map;
    const isInRange = base !== undefined && address !== undefined && !map.words.has(index, HMM.peerBus);
    let dma: string | null = null;
    if (isInRange) dma = relative(address!, base);
    else if (address !== undefined) dma = address === page && base === undefined ? "page" : `0x${address.toString(16)}`;
    this.#differences.same("dma", line["dma"], dma);
  }

  #addProvider(line: Line): void {
    this.#peer = PhysAddr(number(line["start"]));
    const bar: PciBar = {
      index: number(line["bar"]),
      phys: this.#peer,
      length: number(line["length"]),
      busAddress: this.#peer,
    };
    this.#machine.peers.add(this.#machine.tree.devices[1]!, bar, true);
    this.#differences.same("ret", line["ret"], 0);
  }

  #mapOwn(line: Line): void {
    const phys = PhysAddr(this.#ownPage * PAGE_SIZE);
    const attributes = attributesOf(number(line["attrs"]));
    this.#ownLength = number(line["size"]);
    try {
      this.#own = this.#dma.map(phys, number(line["size"]), "bidirectional", attributes);
      this.#base = this.#own.address;
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
    }
    this.#differences.same("ret", line["ret"], this.#own ? "dma" : null);
  }

  #cpuWrite(index: number, count: number): void {
    const bytes = new Uint8Array(PAGE_SIZE).fill(index + 1);
    for (let i = index; i < index + count; i++) this.#process.memory.write(UserAddr((ARENA + i) * PAGE_SIZE), bytes);
  }

  #compareState(line: Line): void {
    this.#differences.same("invalidate", line["invalidate"] ?? [], this.#invalidations);
    this.#invalidations = [];
    if (line["op"] !== "free") this.#compareEvents(line);
    const map = this.#map;
    if (!map) return;
    for (const [index, count, word] of (line["words"] ?? []) as [number, number, string][])
      for (let i = index; i < index + count; i++) this.#words[i] = word;
    this.#differences.same(
      "words",
      this.#words,
      Array.from(map.words.flags, (word) => word.toString(16)),
    );
    for (const [index, state] of (line["iommu"] ?? []) as [number, string][]) this.#iommu[index] = state;
    if (map.address !== undefined) this.#differences.same("iommu", this.#iommu, this.#iommuStates(map));
  }

  #iommuStates(map: HmmDmaMap): string[] {
    const domain = this.#machine.device(0).domain!;
    return Array.from({ length: map.words.count }, (_, i) => {
      const address = map.address! + i * map.entryBytes;
      const page =
        i * map.entryBytes < map.words.count * PAGE_SIZE ? domain.lookup((address / PAGE_SIZE) as IovaPage) : -1;
      if (page <= 0) return "-"; // physical 0 is what the kernel answers for nothing
      return page === map.words.page(i) ? "page" : "stale";
    });
  }

  #compareEvents(line: Line): void {
    const found = this.#machine.events
      .take()
      .map((event) => this.#told(event))
      .filter((event) => event !== undefined);
    this.#differences.same("events", line["events"] ?? [], found);
  }

  /** An event as these files write it; undefined for those that they leave out. */
  #told(event: Event): Event | undefined {
    const [name, first, second, third] = event;
    const at = (address: unknown): string => this.#addressed(Number(address));
    switch (name) {
      case "iovaAlloc":
        return [name, first!, second!, this.#isLazy ? null : third!];
      case "iovaFree":
        return [name, at(Number(first) * PAGE_SIZE), second!];
      case "map":
        return [name, at(first), this.#labelled(Number(second)), Number(third)];
      case "unmap":
        return [name, at(first), Number(second), Number(third)];
      case "syncMap": // one-shot mappings were not listened to
        return this.#map ? [name, at(first), Number(second)] : undefined;
      case "inv":
      case "invMap":
        return [name, at(first), Number(second) - Number(first) + 1];
      case "slot":
        return [name, this.#labelled(Number(first)), Number(second)];
      case "slotFree":
        return [name, this.#ownLength];
      case "dmaMapPhys":
      case "dmaUnmapPhys": {
        const place = this.#domainName.startsWith("dma")
          ? at(first)
          : this.#labelled(first === null ? -1 : Number(first));
        return third ? [name, place, second!, "mmio"] : [name, place, second!];
      }
      default:
        return undefined;
    }
  }

  #addressed(address: number): string {
    return relative(address, this.#map?.address ?? this.#base);
  }

  #labelled(phys: number): string {
    if (Math.floor(phys / PAGE_SIZE) === this.#ownPage) return "own";
    if (phys === 0) return "page0";
    const words = this.#map?.words;
    if (words && words.page(this.#index) * PAGE_SIZE === phys) return `e${this.#index}`;
    if (words) for (let i = 0; i < words.count; i++) if (words.page(i) * PAGE_SIZE === phys) return `e${i}`;
    return "other";
  }
}

const relative = (address: number, base: number): string => `+0x${(address - base).toString(16)}`;

export const judges: Readonly<Record<string, Judge>> = {
  "hmm-dma": (header, lines) => new HmmDmaJudge(header, lines).run(),
};
