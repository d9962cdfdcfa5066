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
import { type Direction, type DmaAddr, type IovaPage, PhysAddr } from "../../src/base/index.ts";
import {
  type CoherentMemory,
  type DmaAttributes,
  type DmaVec,
  type IovaRange,
  type PhysVec,
  termsOf,
} from "../../src/dma/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import type { P2pProvider } from "../../src/p2p/index.ts";
import { addressOf, shorter, type Thing, Things } from "./dma-api-objects.ts";
import { StateJudge } from "./dma-api-state.ts";
import { Differences, type Header, type Judge, type Line, Tally } from "./judge.ts";
import { ALL_ONES, hex } from "./kernel-events.ts";
import { KernelMachine } from "./kernel-machine.ts";
import { attributesOf, directionOf, errnoOf, number, pattern } from "./le-words.ts";
import { linesBefore, MisuseJudge } from "./misuse.ts";
import { MAP_TYPES } from "./p2p-machine.ts";

export const judgeDmaApi: Judge = (header, lines) => new DmaApiJudge(header, lines).run();

class DmaApiJudge {
  readonly #machine: KernelMachine;
  readonly #lines: readonly Line[];
  readonly #tally = new Tally();
  readonly #differences = new Differences();
  readonly #things = new Things();
  readonly #state: StateJudge;
  readonly #providers = new Map<number, P2pProvider>();
  readonly #engineBuffer = new Uint8Array(4096);
  /** Set for the recordings of a kernel with DMA debugging. */
  readonly #misuse: MisuseJudge | undefined;
  /** Device of the line, for its results. */
  #dev = 0;

  constructor(header: Header, lines: readonly Line[]) {
    if (lines.some(({ op }) => op === "dmaDebug")) this.#misuse = new MisuseJudge();
    this.#machine = new KernelMachine(header, lines, this.#misuse?.debug);
    this.#state = new StateJudge(this.#machine, this.#tally, this.#differences, this.#misuse !== undefined);
    this.#lines = lines;
  }

  run(): ReturnType<Tally["verdict"]> {
    for (const [i, line] of linesBefore(this.#lines).entries()) this.#line(line, i);
    this.#differences.take();
    this.#lines.forEach((line, i) => {
      try {
        this.#line(line, i);
      } catch (error) {
        this.#differences.add(`threw ${(error as Error).stack?.split("\n").slice(0, 4).join(" ")}`);
      }
      this.#tally.judge(i + 2, this.#differences.take());
    });
    return this.#tally.verdict();
  }

  #line(line: Line, index: number): void {
    const op = line["op"] as string;
    const thing = this.#things.of(line);
    this.#dev = line["dev"] !== undefined ? number(line["dev"]) : (thing.dev ?? this.#dev);
    const judge = this.#operations[op];
    if (!judge) throw new Error(`an operation that this judge does not know: ${op}`);
    if (isEmpty(line, thing)) {
      this.#tally.rule("empty");
      if (this.#misuse && op === "unmap") this.#misuse.unmapOfError(this.#dma, number(line["size"] ?? 0));
      else this.#standIn(line, thing);
      if (this.#misuse) this.#misuse.compare(line, this.#differences);
      return;
    }
    if (this.#misuse && op !== "device") this.#dma.device.skipSync = false; // as that kernel is built
    judge(line, thing, index);
    if (this.#misuse) this.#misuse.compare(line, this.#differences);
    if (this.#skip) this.#skip = false;
    else this.#state.after(line, thing, this.#dev);
  }

  readonly #operations: Readonly<Record<string, (line: Line, thing: Thing, index: number) => void>> = {
    note: () => {},
    queueTimeout: () => {},
    device: (line) => this.#machine.addDevice(this.#dev, line["name"] as string, line["untrusted"] === true),
    domain: (line, _thing, index) => {
      if (line["ret"] === undefined) this.#machine.enter(this.#dev, line["type"] as string, this.#domainId(index));
    },
    set: (line) => this.#set(line),
    query: (line) => this.#state.query(line, this.#dev),
    poolIndex: (line) => this.#state.poolIndex(line),
    pool: (line) => this.#state.pool(line),
    cpuFill: (line) => {
      const bytes = pattern(number(line["seed"]), number(line["size"]));
      this.#machine.memory.write(PhysAddr(number(line["phys"])), bytes);
    },
    cpuRead: (line) => {
      const bytes = new Uint8Array(number(line["size"]));
      this.#machine.memory.read(PhysAddr(number(line["phys"])), bytes);
      this.#differences.same("crc32", line["crc32"], crcOf(bytes));
    },
    map: (line, thing) => this.#map(line, thing),
    mapSingleOf: (line, thing) => this.#map(line, thing),
    unmap: (line, thing) => this.#unmap(line, thing),
    mappingError: (_line, { mapping }) => {
      if (mapping) this.#misuse?.debug.errorChecked(mapping.address);
    },
    mapSg: (line, thing) => this.#mapList(line, thing),
    mapSgTable: (line, thing) => this.#mapList(line, thing),
    unmapSg: (line, { list }) => list && this.#dma.lists.unmap(shorter(list, line)),
    syncSgForCpu: (line, { list }) => list && this.#dma.lists.syncForCpu(shorter(list, line)),
    syncSgForDevice: (line, { list }) => list && this.#dma.lists.syncForDevice(shorter(list, line)),
    syncForCpu: (line, thing) => this.#sync(line, thing, "cpu"),
    syncForDevice: (line, thing) => this.#sync(line, thing, "device"),
    tryAlloc: (line, thing) => this.#tryAlloc(line, thing),
    link: (line, thing) => this.#link(line, thing),
    sync: (line, { range }) => range?.sync(number(line["offset"]), number(line["size"])),
    unlink: (line, { range }) => range?.unlink(number(line["offset"]), number(line["size"]), asLinked(line)),
    free: (_line, { range }) => range?.destroy(0),
    destroy: (line, { range }) => range?.destroy(number(line["mappedLen"]), asLinked(line)),
    allocCoherent: (line, thing) =>
      this.#allocate(line, thing, (dma, size, attributes) => dma.allocCoherent(size, attributes)),
    allocPages: (line, thing) => this.#allocate(line, thing, (dma, size) => dma.allocPages(size, directionOf(line))),
    allocNoncontiguous: (line, thing) =>
      this.#allocate(line, thing, (dma, size, attributes) =>
        dma.allocNoncontiguous(size, directionOf(line), attributes),
      ),
    freeCoherent: (line, { memory }) => {
      if (line["size"] === undefined) memory?.handle.free();
      else this.#freePart(memory!.handle, number(line["size"]));
    },
    freePages: (_line, { memory }) => memory?.handle.free(),
    freeNoncontiguous: (_line, { memory }) => memory?.handle.free(),
    deviceRead: (line, thing) => this.#deviceAccess(line, thing, "read"),
    deviceWrite: (line, thing) => this.#deviceAccess(line, thing, "write"),
    deviceDma: (line, thing) => this.#deviceDma(line, thing),
    wait: (line) => this.#wait(line),
    p2pAddResource: () => {},
    p2pInit: (line) => {
      // The kernel makes a provider of every BAR then; the file says which one it uses in the next line.
      this.#differences.same("ret", line["ret"], 0);
    },
    bar: () => {
      const bar = this.#machine.tree.bars.get(this.#dev)!;
      this.#providers.set(this.#dev, this.#machine.peers.add(this.#machine.tree.devices[this.#dev]!, bar, true));
    },
    acs: (line) => {
      const node = this.#machine.tree.devices[this.#dev]!;
      if (line["write"] !== undefined) node.writeAcs(number(line["write"]));
      this.#differences.same("control", line["control"], hex(node.acsControl));
    },
    p2pAlloc: () => {},
    p2pFree: () => {},
    p2pFind: () => {},
    p2pMapType: (line) => {
      const provider = this.#providers.get(number(line["provider"]))!;
      const client = this.#machine.tree.devices[number(line["client"])];
      this.#differences.same("type", line["type"], MAP_TYPES[this.#machine.peers.mapType(provider, client)]);
    },
    p2pDistance: (line) => {
      const [owner, client] = [line["provider"], line["client"]].map((n) => this.#machine.tree.devices[number(n)]);
      this.#differences.same("ret", line["ret"], this.#machine.peers.distance(owner!, client));
    },
    p2pState: () => {}, // judged by p2p-routes
    bindDriver: () => this.#misuse?.debug.driverBound(this.#dma.device, "dmat"),
    unbindDriver: () => this.#misuse?.debug.driverUnbound(this.#dma.device),
    dmaDebug: (line) => this.#misuse!.compareState(line, this.#differences),
  };

  get #dma(): KernelMachine["devices"][number]["dma"] {
    return this.#machine.devices[this.#dev]!.dma;
  }

  /** The kernel may map a granule for nothing: that leaves table pages behind, which later lines count. */
  #standIn(line: Line, thing: Thing): void {
    const granule = line["op"] === "map" && this.#dma.domain && ((line["tables"] as number | undefined) ?? 0) > 1;
    if (granule) this.#map({ ...line, size: "0x1" }, thing);
    else if (line["op"] === "unmap") this.#unmap({ ...line, size: "0x1" }, thing);
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
    this.#differences.same("ret", line["ret"], errno);
  }

  #map(line: Line, thing: Thing): void {
    const size = number(line["size"]);
    const direction = directionOf(line);
    const attributes = attributesOf(line["attrs"], line["via"] === "map_resource");
    if (line["ret"] === undefined || line["phys"] === undefined) {
      this.#mapUnknown(line, thing);
      return;
    }
    let address = ALL_ONES;
    const errno = errnoOf(() => {
      const at = this.#dma.mapPhys(PhysAddr(number(line["phys"])), size, direction, attributes);
      address = hex(at);
      thing.dev = this.#dev;
      thing.mapping = { address: at, size, direction, attributes };
    });
    this.#differences.same(`ret (${errno})`, line["ret"], address);
  }

  /** Memory of which the file does not say where it lies: only the pool's next slot can be compared. */
  #mapUnknown(line: Line, thing: Thing): void {
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
    this.#map({ ...line, phys: hex(phys) }, thing);
  }

  #skip = false;

  #unmap(line: Line, thing: Thing): void {
    const mapping = thing.mapping ?? {
      address: addressOf(thing, 0),
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

  #mapList(line: Line, thing: Thing): void {
    const list: PhysVec[] = (line["entries"] as [string, number][]).map(([phys, length]) => ({
      phys: PhysAddr(number(phys)),
      length,
    }));
    const table = line["op"] === "mapSgTable";
    let segments: readonly DmaVec[] = [];
    const [direction, attributes] = [directionOf(line), attributesOf(line["attrs"])];
    const errno = errnoOf(() => {
      ({ segments } = this.#dma.mapScatterlist(list, direction, attributes));
      thing.dev = this.#dev;
      thing.list = { list, segments, direction, attributes };
    });
    if (table && line["ret"] === -5 && errno !== 0) this.#tally.rule("finer errno");
    else this.#differences.same("ret", line["ret"], table ? errno : segments.length);
    const found = segments.map(({ address, length, bus }) => [hex(address), length, ...(bus ? ["bus"] : [])]);
    this.#differences.same("out", line["out"], found);
  }

  #sync(line: Line, { mapping, memory }: Thing, to: "cpu" | "device"): void {
    const at = mapping?.address ?? memory?.handle.address;
    if (at === undefined) return;
    const address = (at + number(line["offset"])) as DmaAddr;
    const direction = line["dir"] === undefined ? (mapping ?? memory)!.direction : directionOf(line);
    if (to === "cpu") this.#dma.syncForCpu(address, number(line["size"]), direction);
    else this.#dma.syncForDevice(address, number(line["size"]), direction);
  }

  #tryAlloc(line: Line, thing: Thing): void {
    const [length, physOffset] = [number(line["size"]), number(line["phys"])];
    if (length > Number.MAX_SAFE_INTEGER) {
      this.#tally.rule("inexact length");
      this.#skip = true;
      this.#differences.same("ok", line["ok"], false);
      return;
    }
    let range: IovaRange | undefined;
    const errno = errnoOf(() => {
      range = this.#dma.tryReserveIova({ length, physOffset });
    });
    this.#differences.same(`ok (${errno})`, line["ok"], range !== undefined);
    if (!range) return;
    this.#differences.same("addr", line["addr"], hex(range.address));
    thing.dev = this.#dev;
    thing.range = range;
  }

  #link(line: Line, { range }: Thing): void {
    if (!range) return;
    const errno = errnoOf(() =>
      range.link(
        number(line["offset"]),
        PhysAddr(number(line["phys"])),
        number(line["size"]),
        directionOf(line),
        attributesOf(line["attrs"]),
      ),
    );
    this.#differences.same("ret", line["ret"], errno);
    this.#differences.same("bounced", number(line["sizeWord"]) >= 2 ** 63, range.hasBounced);
  }

  #allocate(
    line: Line,
    thing: Thing,
    call: (dma: KernelMachine["devices"][number]["dma"], size: number, attributes?: DmaAttributes) => CoherentMemory,
  ): void {
    const size = number(line["size"]);
    const runs = (line["events"] as [string, string, string, string][] | undefined)
      ?.filter(([name]) => name === "map")
      .map(([, , phys, bytes]) => ({ page: number(phys) / 4096, pages: number(bytes) / 4096 }));
    const direct =
      line["dma"] === undefined ? [] : [{ page: number(line["dma"]) / 4096, pages: Math.ceil(size / 4096) }];
    const noAddress = line["ok"] === false && (line["events"] as unknown[] | undefined)?.length;
    const fed = this.#dma.domain ? (noAddress ? [{ page: 0x10000, pages: Math.ceil(size / 4096) }] : runs) : direct;
    this.#machine.pages.feed(fed ?? []);
    const attributes = {
      ...attributesOf(line["attrs"]),
      ...(line["gfp"] === "atomic" && !this.#misuse && { forceContiguous: true }),
    };
    let found: CoherentMemory | undefined;
    const errno = errnoOf(() => {
      found = call(this.#dma, size, attributes);
    });
    this.#differences.same(`ok (${errno})`, line["ok"], found !== undefined);
    if (!found) return;
    this.#differences.same("dma", line["dma"], hex(found.address));
    thing.dev = this.#dev;
    thing.memory = { handle: found, direction: line["dir"] ? directionOf(line) : "bidirectional" };
    if (line["zeroed"] === true)
      for (const { page, pages } of found.blocks) this.#machine.memory.forget(PhysAddr(page * 4096), pages * 4096);
  }

  /** A handle always frees all it has; what the kernel does with another size is done to the domain here. */
  #freePart({ address, phys }: CoherentMemory, size: number): void {
    this.#misuse?.debug.of(this.#dma.device)?.freeing("coherent", address, size, phys, termsOf("bidirectional"));
    this.#tally.rule("handles free all");
    this.#machine.events.dmaCalled({ name: "dma_free" });
    const pages = Math.ceil(size / 4096);
    this.#dma.domain?.release((address / 4096) as IovaPage, pages, pages);
  }

  #deviceAccess(line: Line, thing: Thing, way: "read" | "write"): void {
    const size = number(line["size"]);
    const address = addressOf(thing, number(line["offset"]));
    const bytes = way === "write" ? pattern(number(line["seed"]), size) : new Uint8Array(size);
    const faults = this.#machine.transfer(this.#dev, address as DmaAddr, bytes, way);
    this.#differences.same("faults", line["faults"] ?? 0, faults);
    if (way === "read") this.#differences.same("crc32", line["crc32"], crcOf(bytes));
  }

  /** A real transfer, through the unit and what it remembers. */
  #deviceDma(line: Line, thing: Thing): void {
    const { hardware, memory, devices } = this.#machine;
    const engine = new DmaEngine(devices[this.#dev]!.requester, hardware!, memory);
    const [at, size] = [number(line["buffer"]), number(line["size"])];
    const address = addressOf(thing, number(line["offset"])) as DmaAddr;
    const part = this.#engineBuffer.subarray(at, at + size);
    const done = line["direction"] === "read" ? engine.read(address, part) : engine.write(address, part);
    const faulted = ((line["log"] as string[] | undefined) ?? []).some((text) => text.includes("fault addr"));
    if (faulted) this.#differences.same("done", false, done); // the kernel does not log every fault; the bytes tell
  }

  #wait(line: Line): void {
    const { clock, events } = this.#machine;
    const timer = line["timer"] as { flushAll: number; iovaFree: number } | undefined;
    if (!timer) return; // the kernel's queue timer was raised to ten minutes
    clock.advance(number(line["ms"]));
    const seen = events.take();
    const count = (name: string): number => seen.filter(([event]) => event === name).length;
    this.#differences.same("flushes", timer.flushAll, count("invAll"));
    this.#differences.same("freed", timer.iovaFree, count("iovaFree"));
  }

  /** The domain id of the next descriptors of a fresh domain. */
  #domainId(index: number): number {
    for (const line of this.#lines.slice(index + 1)) {
      if (line["op"] === "domain" && line["type"] !== "identity") break;
      for (const event of (line["events"] ?? []) as string[][])
        if (event[0] === "qi" && [2n, 6n].includes(BigInt(event[1]!) & 0xfn))
          return Number((BigInt(event[1]!) >> 16n) & 0xffffn);
    }
    return 5;
  }
}

/** What `unlink` and `destroy` are told in Linux. */
function asLinked(line: Line): { direction: Direction; attributes?: DmaAttributes } {
  const attributes = attributesOf(line["attrs"]);
  return { direction: directionOf(line), ...(attributes && { attributes }) };
}

/** Calls about nothing, which dmalink refuses. */
const isEmpty = (line: Line, thing: Thing): boolean =>
  (["map", "allocCoherent"].includes(line["op"] as string) && number(line["size"]) === 0) ||
  (line["op"] === "unmap" && Object.keys(thing).length === 0) ||
  (line["op"] === "mapSg" && (line["entries"] as [string, number][]).some(([, length]) => length === 0)) ||
  (line["op"] === "unmapSg" && thing.list === undefined);

const crcOf = (bytes: Uint8Array): string => crc32(bytes).toString(16).padStart(8, "0");

export const judges: Readonly<Record<string, Judge>> = { "dma-api": judgeDmaApi };
