/**
 * Judge of the kind dma-api: every call that a script made on the running kernel, made on dmalink, with every event, table
 * entry, address, error and byte compared.
 *
 * dmalink runs as Linux does (`linuxCompatible`, unchecked), so that its defects are reproduced; where reproducing one is
 * unsafe or pointless, a named rule says so and the better answer is accepted:
 * - `empty`: length 0 is refused.
 * - `free once`: a range is not freed a second time, nor with more than it has.
 * - `handles free all`: memory of its own is freed by its handle, which knows its size.
 * - `inexact length`: a reservation of more than 2^53 bytes is refused as bad input, not for lack of room.
 * - `finer errno`: a refused list says why, where the kernel says EIO.
 */
import { crc32 } from "node:zlib";
import { type DmaAddr, DmaError, type Direction, type IovaPage, PhysAddr } from "../../src/base/index.ts";
import {
  type CoherentMemory,
  type DmaAttributes,
  type DmaVec,
  type IovaRange,
  type PhysVec,
} from "../../src/dma/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import type { MappedList } from "../../src/dma/path.ts";
import type { P2pMapType, P2pProvider } from "../../src/p2p/index.ts";
import { type Header, type Judge, type Line, Tally } from "./judge.ts";
import { ALL_ONES, hex, type KernelEvent } from "./kernel-events.ts";
import { KernelMachine } from "./kernel-machine.ts";
import { linesBefore, MisuseJudge } from "./misuse.ts";

const DIRECTIONS: Readonly<Record<string, Direction>> = {
  BIDIRECTIONAL: "bidirectional",
  TO_DEVICE: "to-device",
  FROM_DEVICE: "from-device",
};
const ATTRIBUTES: Readonly<Record<string, keyof DmaAttributes>> = {
  MMIO: "mmio",
  PRIVILEGED: "privileged",
  SKIP_CPU_SYNC: "skipCpuSync",
  REQUIRE_COHERENT: "requireCoherent",
  CC_SHARED: "shared",
  FORCE_CONTIGUOUS: "forceContiguous",
  ALLOC_SINGLE_PAGES: "allocSinglePages",
  NO_KERNEL_MAPPING: "noKernelMapping",
  NO_WARN: "noWarn",
  DEBUGGING_IGNORE_CACHELINES: "ignoreCacheLines",
};
const MAP_TYPES: Readonly<Record<P2pMapType, number>> = {
  none: 1,
  "not-supported": 2,
  "bus-address": 3,
  "through-host-bridge": 4,
};
const ERRNO: Readonly<Record<string, number>> = {
  EPERM: 1,
  EIO: 5,
  ENXIO: 6,
  ENOMEM: 12,
  EINVAL: 22,
  ERANGE: 34,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EREMOTEIO: 121,
};
const DOMAIN_TYPES: Readonly<Record<string, number>> = { strict: 3, lazy: 11 };

type Bytes = string;
const number = (value: unknown): number =>
  typeof value === "string" && value.startsWith("-") ? -Number(value.slice(1)) : Number(value);

interface Mapping {
  readonly dev: number;
  readonly address: number;
  readonly size: number;
  readonly direction: Direction;
  readonly attributes: DmaAttributes | undefined;
}

interface Entry {
  mapping?: Mapping;
  list?: { mapped: MappedList; dev: number };
  memory?: { memory: CoherentMemory; dev: number; direction: Direction };
  range?: { range: IovaRange; dev: number };
}

export const judgeDmaApi: Judge = (header, lines) => new DmaApiJudge(header, lines).run();

class DmaApiJudge {
  readonly #machine: KernelMachine;
  readonly #lines: readonly Line[];
  readonly #tally = new Tally();
  readonly #ids = new Map<number, Entry>();
  readonly #providers = new Map<number, P2pProvider>();
  readonly #engineBuffer = new Uint8Array(4096);
  /** Slots that other devices of that machine held. */
  #others = 0;
  #differences: string[] = [];
  /** Set for the recordings of a kernel with DMA debugging. */
  readonly #misuse: MisuseJudge | undefined;
  /** Device of the line, for its results. */
  #dev = 0;

  constructor(header: Header, lines: readonly Line[]) {
    if (lines.some(({ op }) => op === "dmaDebug")) this.#misuse = new MisuseJudge();
    this.#machine = new KernelMachine(header, lines, this.#misuse?.debug);
    this.#lines = lines;
  }

  run(): ReturnType<Tally["verdict"]> {
    for (const [i, line] of linesBefore(this.#lines).entries()) this.#line(line, i);
    this.#lines.forEach((line, i) => {
      this.#differences = [];
      try {
        this.#line(line, i);
      } catch (error) {
        this.#differences.push(`threw ${(error as Error).stack?.split("\n").slice(0, 4).join(" ")}`);
      }
      this.#tally.judge(i + 2, this.#differences);
    });
    return this.#tally.verdict();
  }

  #line(line: Line, index: number): void {
    const op = line["op"] as string;
    const entry = this.#entry(line);
    this.#dev = line["dev"] !== undefined ? number(line["dev"]) : (deviceOf(entry) ?? this.#dev);
    const judge = this.#operations[op];
    if (!judge) throw new Error(`an operation that this judge does not know: ${op}`);
    if (this.#isEmpty(line)) {
      this.#tally.rule("empty");
      if (this.#misuse && op === "unmap") this.#misuse.unmapOfError(this.#dma, number(line["size"] ?? 0));
      else this.#standIn(line, entry);
      if (this.#misuse) this.#differences.push(...this.#misuse.compare(line));
      return;
    }
    if (this.#isDebugKernel && op !== "device") this.#dma.device.skipSync = false; // as that kernel is built
    judge(line, entry, index);
    if (this.#misuse) this.#differences.push(...this.#misuse.compare(line));
    this.#results(line, op);
  }

  readonly #operations: Readonly<Record<string, (line: Line, entry: Entry, index: number) => void>> = {
    note: () => {},
    queueTimeout: () => {},
    device: (line) => this.#machine.addDevice(this.#dev, line["name"] as string, line["untrusted"] === true),
    domain: (line, _entry, index) => {
      if (line["ret"] === undefined) this.#machine.enter(this.#dev, line["type"] as string, this.#domainId(index));
    },
    set: (line) => this.#set(line),
    query: (line) => this.#query(line),
    poolIndex: (line) => {
      const { pool } = this.#machine;
      if (!pool || line["used"] === undefined) return;
      pool.nextIndex = number(line["index"]);
      this.#others = number(line["used"]) - pool.used;
    },
    pool: (line) => this.#pool(line),
    cpuFill: (line) => {
      const bytes = pattern(number(line["seed"]), number(line["size"]));
      this.#machine.memory.write(PhysAddr(number(line["phys"])), bytes);
    },
    cpuRead: (line) => {
      const bytes = new Uint8Array(number(line["size"]));
      this.#machine.memory.read(PhysAddr(number(line["phys"])), bytes);
      this.#same("crc32", line["crc32"], crcOf(bytes));
    },
    map: (line) => this.#map(line),
    mapSingleOf: (line) => this.#map(line),
    unmap: (line, entry) => this.#unmap(line, entry),
    mappingError: (_line, { mapping }) => {
      if (mapping) this.#misuse?.debug.errorChecked(mapping.address);
    },
    mapSg: (line) => this.#mapList(line),
    mapSgTable: (line) => this.#mapList(line),
    unmapSg: (line, { list }) => list && this.#dma.unmapList(shorter(list.mapped, line)),
    syncSgForCpu: (line, { list }) => list && this.#dma.syncListForCpu(shorter(list.mapped, line)),
    syncSgForDevice: (line, { list }) => list && this.#dma.syncListForDevice(shorter(list.mapped, line)),
    syncForCpu: (line, entry) => this.#sync(line, entry, "cpu"),
    syncForDevice: (line, entry) => this.#sync(line, entry, "device"),
    tryAlloc: (line) => this.#tryAlloc(line),
    link: (line, entry) => this.#link(line, entry),
    sync: (line, { range }) => range?.range.sync(number(line["offset"]), number(line["size"])),
    unlink: (line, { range }) =>
      range?.range.unlink(number(line["offset"]), number(line["size"]), asLinked(line)),
    free: (_line, { range }) => range?.range.destroy(0),
    destroy: (line, { range }) => range?.range.destroy(number(line["mappedLen"]), asLinked(line)),
    allocCoherent: (line) => this.#allocate(line, (dma, size, attributes) => dma.allocCoherent(size, attributes)),
    allocPages: (line) => this.#allocate(line, (dma, size) => dma.allocPages(size, directionOf(line))),
    allocNoncontiguous: (line) =>
      this.#allocate(line, (dma, size, attributes) => dma.allocNoncontiguous(size, directionOf(line), attributes)),
    freeCoherent: (line, { memory }) => {
      if (line["size"] === undefined) memory?.memory.free();
      else this.#freePart(memory!.memory, number(line["size"]));
    },
    freePages: (_line, { memory }) => memory?.memory.free(),
    freeNoncontiguous: (_line, { memory }) => memory?.memory.free(),
    deviceRead: (line, entry) => this.#deviceAccess(line, entry, "read"),
    deviceWrite: (line, entry) => this.#deviceAccess(line, entry, "write"),
    deviceDma: (line, entry) => this.#deviceDma(line, entry),
    wait: (line) => this.#wait(line),
    p2pAddResource: () => {},
    p2pInit: (line) => {
      // The kernel makes a provider of every BAR then; the file says which one it uses in the next line.
      this.#same("ret", line["ret"], 0);
    },
    bar: () => {
      const bar = this.#machine.tree.bars.get(this.#dev)!;
      this.#providers.set(this.#dev, this.#machine.peers.add(this.#machine.tree.devices[this.#dev]!, bar, true));
    },
    acs: (line) => {
      const node = this.#machine.tree.devices[this.#dev]!;
      if (line["write"] !== undefined) node.writeAcs(number(line["write"]));
      this.#same("control", line["control"], hex(node.acsControl));
    },
    p2pAlloc: () => {},
    p2pFree: () => {},
    p2pFind: () => {},
    p2pMapType: (line) => {
      const provider = this.#providers.get(number(line["provider"]))!;
      const client = this.#machine.tree.devices[number(line["client"])];
      this.#same("type", line["type"], MAP_TYPES[this.#machine.peers.mapType(provider, client)]);
    },
    p2pDistance: (line) => {
      const [owner, client] = [line["provider"], line["client"]].map((n) => this.#machine.tree.devices[number(n)]);
      this.#same("ret", line["ret"], this.#machine.peers.distance(owner!, client));
    },
    p2pState: () => {}, // judged by p2p-routes
    bindDriver: () => this.#misuse?.debug.driverBound(this.#dma.device, "dmat"),
    unbindDriver: () => this.#misuse?.debug.driverUnbound(this.#dma.device),
    dmaDebug: (line) => {
      this.#differences.push(...this.#misuse!.compareState(line));
    },
  };

  get #dma(): KernelMachine["devices"][number]["dma"] {
    return this.#machine.devices[this.#dev]!.dma;
  }

  #entry(line: Line): Entry {
    if (line["id"] === undefined) return {};
    const id = number(line["id"]);
    const starts = /^(map|alloc|tryAlloc|p2pAlloc)/.test(line["op"] as string) && line["op"] !== "mappingError";
    const entry = starts ? {} : (this.#ids.get(id) ?? {});
    this.#ids.set(id, entry);
    return entry;
  }

  #isEmpty(line: Line): boolean {
    const empty =
      (["map", "allocCoherent"].includes(line["op"] as string) && number(line["size"]) === 0) ||
      (line["op"] === "unmap" && Object.keys(this.#ids.get(number(line["id"])) ?? {}).length === 0) ||
      (line["op"] === "mapSg" && (line["entries"] as [string, number][]).some(([, length]) => length === 0)) ||
      (line["op"] === "unmapSg" && this.#ids.get(number(line["id"]))?.list === undefined);
    return empty;
  }

  /** The kernel may map a granule for nothing: that leaves table pages behind, which later lines count. */
  #standIn(line: Line, entry: Entry): void {
    const granule = line["op"] === "map" && this.#dma.domain && ((line["tables"] as number | undefined) ?? 0) > 1;
    if (granule) this.#map({ ...line, size: "0x1" });
    else if (line["op"] === "unmap") this.#unmap({ ...line, size: "0x1" }, entry);
    if (this.#dma?.domain) this.#machine.changes(this.#dev);
    this.#machine.events.take();
  }

  // Operations.

  #set(line: Line): void {
    const { device } = this.#dma;
    const value = number(line["value"]);
    const errno = errnoOf(() => {
      if (line["what"] === "mask") this.#dma.setMask(value);
      else if (line["what"] === "coherentMask") this.#dma.setCoherentMask(value);
      else if (line["what"] === "segBoundaryMask") this.#dma.setSegmentBoundary(value);
      else if (line["what"] === "maxSegSize") device.maxSegmentSize = value;
      else if (line["what"] === "busDmaLimit") device.busLimit = value;
      else device.minAlignMask = value;
    });
    this.#same("ret", line["ret"], errno);
  }

  #query(line: Line): void {
    const dma = this.#dma;
    const { device } = dma;
    const limit = (value: number): Bytes => (Number.isFinite(value) ? hex(value) : ALL_ONES);
    const found: Record<string, unknown> = {
      useIommu: dma.domain !== undefined,
      mask: hex(device.mask || 2 ** 32 - 1), // nobody asked for a mask of 0
      coherentMask: hex(device.coherentMask),
      requiredMask: hex(dma.requiredMask),
      maxMappingSize: limit(dma.maxMappingSize),
      optMappingSize: limit(dma.optMappingSize),
      mergeBoundary: hex(dma.mergeBoundary),
      addressingLimited: dma.addressingLimited,
      needUnmap: dma.needsUnmap,
      needSync: dma.needsSync,
      minAlignMask: hex(device.minAlignMask),
      maxSegSize: hex(device.maxSegmentSize),
      segBoundaryMask: hex(device.segmentBoundaryMask),
    };
    if (dma.domain) found["domainType"] = DOMAIN_TYPES[dma.domain.mode];
    const debugging = (line["needSync"] as boolean) && this.#isDebugKernel;
    for (const [name, value] of Object.entries(found)) {
      if (debugging && (name === "needSync" || name === "needUnmap")) continue; // a kernel with DMA debugging needs all
      this.#same(name, line[name], value);
    }
  }

  get #isDebugKernel(): boolean {
    this.#debugKernel ??= this.#lines.some(({ op }) => op === "dmaDebug");
    return this.#debugKernel;
  }

  #debugKernel: boolean | undefined;

  #pool(line: Line): void {
    const { pool } = this.#machine;
    if (!pool || line["used"] === undefined) return;
    this.#same("used", line["used"], pool.used + this.#others);
    const found = (line["slots"] as unknown[]).map((_, i) => {
      const { freeRun, padSlots, allocSize, used } = pool.slotState(i);
      return [freeRun, padSlots, allocSize, used];
    });
    this.#same("slots", line["slots"], found);
  }

  #map(line: Line): void {
    const size = number(line["size"]);
    const direction = directionOf(line);
    const attributes = attributesOf(line["attrs"], line["via"] === "map_resource");
    if (line["ret"] === undefined || line["phys"] === undefined) return this.#mapUnknown(line);
    let address = ALL_ONES;
    const errno = errnoOf(() => {
      const at = this.#dma.mapPhys(PhysAddr(number(line["phys"])), size, direction, attributes);
      address = hex(at);
      const mapping = { dev: this.#dev, address: at, size, direction, attributes };
      this.#ids.get(number(line["id"]))!.mapping = mapping;
    });
    this.#same(`ret (${errno})`, line["ret"], address);
  }

  /** Memory of which the file does not say where it lies: only the pool's next slot can be compared. */
  #mapUnknown(line: Line): void {
    const slot = (line["events"] as [string, string][] | undefined)?.find(([name]) => name === "bounced");
    const mapped = (line["events"] as [string, string, string][] | undefined)?.find(([name]) => name === "map");
    const ret = line["ret"] as string | undefined;
    if (ret === undefined || ret === ALL_ONES) {
      if (line["crash"] !== undefined) this.#misuse?.invalidMemory(this.#dma, number(line["size"]));
      this.#machine.events.take();
      this.#skip = true;
      return;
    }
    const phys = slot ? number(slot[1]) : mapped ? number(mapped[2]) + (number(ret) % 4096) : number(ret);
    this.#misuse?.memoryIs(line["memory"], phys, number(line["size"]));
    this.#map({ ...line, phys: hex(phys) });
  }

  #skip = false;

  #unmap(line: Line, entry: Entry): void {
    const mapping = entry.mapping ?? {
      address: addressOf(entry, 0),
      size: 0,
      direction: "bidirectional",
      attributes: undefined,
    };
    const direction = line["dir"] === undefined ? mapping.direction : directionOf(line);
    const attributes =
      line["attrs"] === undefined && line["via"] === undefined
        ? mapping.attributes
        : attributesOf(line["attrs"], line["via"] === "unmap_resource");
    const size = line["size"] === undefined ? mapping.size : number(line["size"]);
    this.#dma.unmapPhys(mapping.address as DmaAddr, size, direction, attributes);
  }

  #mapList(line: Line): void {
    const list: PhysVec[] = (line["entries"] as [string, number][]).map(([phys, length]) => ({
      phys: PhysAddr(number(phys)),
      length,
    }));
    const table = line["op"] === "mapSgTable";
    let segments: readonly DmaVec[] = [];
    const [direction, attributes] = [directionOf(line), attributesOf(line["attrs"])];
    const errno = errnoOf(() => {
      ({ segments } = this.#dma.mapScatterlist(list, direction, attributes));
      const mapped = { list, segments, direction, attributes };
      this.#ids.get(number(line["id"]))!.list = { mapped, dev: this.#dev };
    });
    if (table && line["ret"] === -5 && errno !== 0) this.#tally.rule("finer errno");
    else this.#same("ret", line["ret"], table ? errno : segments.length);
    const found = segments.map(({ address, length, bus }) => [hex(address), length, ...(bus ? ["bus"] : [])]);
    this.#same("out", line["out"], found);
  }

  #sync(line: Line, { mapping, memory }: Entry, to: "cpu" | "device"): void {
    const at = mapping?.address ?? memory?.memory.address;
    if (at === undefined) return;
    const address = (at + number(line["offset"])) as DmaAddr;
    const direction = line["dir"] === undefined ? (mapping ?? memory)!.direction : directionOf(line);
    if (to === "cpu") this.#dma.syncForCpu(address, number(line["size"]), direction);
    else this.#dma.syncForDevice(address, number(line["size"]), direction);
  }

  #tryAlloc(line: Line): void {
    const [length, physOffset] = [number(line["size"]), number(line["phys"])];
    if (length > Number.MAX_SAFE_INTEGER) {
      this.#tally.rule("inexact length");
      this.#skip = true;
      return this.#same("ok", line["ok"], false);
    }
    let range: IovaRange | undefined;
    const errno = errnoOf(() => {
      range = this.#dma.tryReserveIova({ length, physOffset });
    });
    this.#same(`ok (${errno})`, line["ok"], range !== undefined);
    if (!range) return;
    this.#same("addr", line["addr"], hex(range.address));
    this.#ids.get(number(line["id"]))!.range = { range, dev: this.#dev };
  }

  #link(line: Line, { range }: Entry): void {
    if (!range) return;
    const errno = errnoOf(() =>
      range.range.link(
        number(line["offset"]),
        PhysAddr(number(line["phys"])),
        number(line["size"]),
        directionOf(line),
        attributesOf(line["attrs"]),
      ),
    );
    this.#same("ret", line["ret"], errno);
    this.#same("bounced", number(line["sizeWord"]) >= 2 ** 63, range.range.hasBounced);
  }

  #allocate(
    line: Line,
    call: (dma: KernelMachine["devices"][number]["dma"], size: number, attributes?: DmaAttributes) => CoherentMemory,
  ): void {
    const size = number(line["size"]);
    const runs = (line["events"] as [string, string, string, string][] | undefined)
      ?.filter(([name]) => name === "map")
      .map(([, , phys, bytes]) => ({ page: number(phys) / 4096, pages: number(bytes) / 4096 }));
    const direct = line["dma"] === undefined ? [] : [{ page: number(line["dma"]) / 4096, pages: Math.ceil(size / 4096) }];
    const noAddress = line["ok"] === false && (line["events"] as unknown[] | undefined)?.length;
    const fed = this.#dma.domain ? (noAddress ? [{ page: 0x10000, pages: Math.ceil(size / 4096) }] : runs) : direct;
    this.#machine.pages.feed(fed ?? []);
    const attributes = { ...attributesOf(line["attrs"]), ...(line["gfp"] === "atomic" && !this.#misuse && { forceContiguous: true }) };
    let found: CoherentMemory | undefined;
    const errno = errnoOf(() => {
      found = call(this.#dma, size, attributes);
    });
    this.#same(`ok (${errno})`, line["ok"], found !== undefined);
    if (!found) return;
    this.#same("dma", line["dma"], hex(found.address));
    const memory = { memory: found, dev: this.#dev, direction: line["dir"] ? directionOf(line) : "bidirectional" } as const;
    this.#ids.get(number(line["id"]))!.memory = memory;
    if (line["zeroed"] === true)
      for (const { page, pages } of found.blocks) this.#machine.memory.forget(PhysAddr(page * 4096), pages * 4096);
  }

  /** A handle always frees all it has; what the kernel does with another size is done to the domain here. */
  #freePart({ address, phys }: CoherentMemory, size: number): void {
    this.#misuse?.debug.of(this.#dma.device)?.freeing("coherent", address, size, phys, "bidirectional", undefined);
    this.#tally.rule("handles free all");
    this.#machine.events.dmaCalled({ name: "dma_free" });
    const pages = Math.ceil(size / 4096);
    this.#dma.domain?.release((address / 4096) as IovaPage, pages, pages);
  }

  #deviceAccess(line: Line, entry: Entry, way: "read" | "write"): void {
    const size = number(line["size"]);
    const address = addressOf(entry, number(line["offset"]));
    const bytes = way === "write" ? pattern(number(line["seed"]), size) : new Uint8Array(size);
    const faults = this.#machine.transfer(this.#dev, address as DmaAddr, bytes, way);
    this.#same("faults", line["faults"] ?? 0, faults);
    if (way === "read") this.#same("crc32", line["crc32"], crcOf(bytes));
  }

  /** A real transfer, through the unit and what it remembers. */
  #deviceDma(line: Line, entry: Entry): void {
    const { hardware, memory, devices } = this.#machine;
    const engine = new DmaEngine(devices[this.#dev]!.requester, hardware!, memory);
    const [at, size] = [number(line["buffer"]), number(line["size"])];
    const address = addressOf(entry, number(line["offset"])) as DmaAddr;
    const part = this.#engineBuffer.subarray(at, at + size);
    const done = line["direction"] === "read" ? engine.read(address, part) : engine.write(address, part);
    const faulted = ((line["log"] as string[] | undefined) ?? []).some((text) => text.includes("fault addr"));
    if (faulted) this.#same("done", false, done); // the kernel does not log every fault; the bytes tell
  }

  #wait(line: Line): void {
    const { clock, events } = this.#machine;
    const timer = line["timer"] as { flushAll: number; iovaFree: number } | undefined;
    if (!timer) return; // the kernel's queue timer was raised to ten minutes
    clock.advance(number(line["ms"]));
    const seen = events.take();
    const count = (name: string): number => seen.filter(([event]) => event === name).length;
    this.#same("flushes", timer.flushAll, count("invAll"));
    this.#same("freed", timer.iovaFree, count("iovaFree"));
  }

  // Results that any line may have.

  #results(line: Line, op: string): void {
    const { events, pool, devices } = this.#machine;
    if (this.#skip) {
      this.#skip = false;
      return;
    }
    const seen = events.take();
    if (op === "domain" || op === "device" || op === "set") return;
    if (line["events"] !== undefined || seen.length > 0) {
      let expected = (line["events"] ?? []) as KernelEvent[];
      const short = expected.some(([name, , length, done]) => name === "unmap" && length !== done);
      const long = number(line["size"] ?? 0) > (this.#ids.get(number(line["id"] ?? -1))?.mapping?.size ?? 0);
      if (op === "unmap" && (short || long) && !seen.some(([name]) => name === "iovaFree" || name === "queue")) {
        expected = expected.filter(([name]) => name !== "iovaFree" && name !== "queue");
        this.#tally.rule("free once");
      }
      this.#same("events", expected, JSON.parse(JSON.stringify(seen)));
    }
    if (pool && line["poolUsed"] !== undefined) this.#same("poolUsed", line["poolUsed"], pool.used + this.#others);
    if (pool && line["poolNext"] !== undefined) this.#same("poolNext", line["poolNext"], pool.nextIndex);
    if (line["skipSync"] !== undefined && !this.#isDebugKernel)
      this.#same("skipSync", line["skipSync"], devices[this.#dev]!.dma.device.skipSync);
    if (devices[this.#dev]?.domain) this.#tables(line);
    for (const [iova, phys, bytes] of (line["translates"] ?? []) as [string, string, string][])
      this.#translates(number(iova), number(phys), number(bytes));
  }

  #tables(line: Line): void {
    const { changed, tables, leaves } = this.#machine.changes(this.#dev);
    if (line["tables"] !== undefined) this.#same("tables", line["tables"], tables);
    if (line["leaves"] !== undefined) this.#same("leaves", line["leaves"], leaves);
    const sorted = (list: unknown): string[] => ((list ?? []) as unknown[]).map((item) => JSON.stringify(item)).sort();
    this.#same("entriesChanged", sorted(line["entriesChanged"]), sorted(changed));
  }

  #translates(iova: number, phys: number, bytes: number): void {
    for (let at = 0; at < bytes; at += 4096) {
      const found = this.#machine.reach(this.#dev, iova + at) ?? 0;
      if (found === (phys === 0 ? 0 : phys + at)) continue;
      this.#differences.push(`${hex(iova + at)} leads to ${hex(found)}, not to ${hex(phys + at)}`);
      return;
    }
  }

  /** The domain id of the next descriptors of a fresh domain. */
  #domainId(index: number): number {
    for (const line of this.#lines.slice(index + 1)) {
      if (line["op"] === "domain" && line["type"] !== "identity") break;
      for (const event of (line["events"] ?? []) as string[][])
        if (event[0] === "qi" && [2n, 6n].includes(BigInt(event[1]!) & 0xfn)) return Number((BigInt(event[1]!) >> 16n) & 0xffffn);
    }
    return 5;
  }

  #same(what: string, expected: unknown, found: unknown): void {
    const [want, have] = [JSON.stringify(expected), JSON.stringify(found)];
    if (want !== have) this.#differences.push(`${what}: expected ${want}, found ${have}`);
  }
}

const directionOf = (line: Line): Direction => DIRECTIONS[line["dir"] as string] ?? ("none" as Direction);

function attributesOf(text: unknown, mmio = false): DmaAttributes | undefined {
  const names = typeof text === "string" && text !== "" ? text.split("|") : [];
  if (names.length === 0 && !mmio) return undefined;
  const attributes: Partial<Record<keyof DmaAttributes, boolean>> = mmio ? { mmio: true } : {};
  for (const name of names) if (ATTRIBUTES[name]) attributes[ATTRIBUTES[name]] = true;
  return attributes;
}

/** What `unlink` and `destroy` are told in Linux. */
function asLinked(line: Line): { direction: Direction; attributes?: DmaAttributes } {
  const attributes = attributesOf(line["attrs"]);
  return { direction: directionOf(line), ...(attributes && { attributes }) };
}

function addressOf({ mapping, list, memory, range }: Entry, offset: number): number {
  if (list) {
    let left = offset;
    for (const { address, length } of list.mapped.segments) {
      if (left < length) return address + left;
      left -= length;
    }
  }
  return (mapping?.address ?? memory?.memory.address ?? range?.range.address ?? 0) + offset;
}

/** The list as a caller names it who forgets entries. */
function shorter(mapped: MappedList, line: Line): MappedList {
  if (line["nents"] === undefined) return mapped;
  const entries = number(line["nents"]);
  return { ...mapped, list: mapped.list.slice(0, entries), segments: mapped.segments.slice(0, entries) };
}

const deviceOf = ({ mapping, list, memory, range }: Entry): number | undefined =>
  mapping?.dev ?? list?.dev ?? memory?.dev ?? range?.dev;

function errnoOf(call: () => void): number {
  try {
    call();
    return 0;
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    return -(ERRNO[error.errno] ?? 0);
  }
}

const pattern = (seed: number, size: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, i) => (seed + 7 * i + 13 * (i >> 8)) & 255);

const crcOf = (bytes: Uint8Array): string => crc32(bytes).toString(16).padStart(8, "0");

export const judges: Readonly<Record<string, Judge>> = { "dma-api": judgeDmaApi };
