/**
 * Judge of the dmabuf files: heaps, udmabuf, VFIO export, an exporter of physical vectors, and importers of every class, on the
 * running kernel.
 *
 * Everything is dmalink's as Linux is (`linuxCompatible`, unchecked): also what Linux does wrong with several vectors behind an IOMMU. Compared are
 * results, lists, translations, calls of importers and every event. What the recording's own importer did by itself is done here
 * too: before it maps again after a revocation, it lets go of what it still had.
 * Named rule `finer errno`: a list that cannot be mapped says why (ENOMEM), where the kernel says EIO.
 */
import { type Direction, DmaError, ERRNO, type Errno, PAGE_SIZE, type PhysPage } from "../../src/base/index.ts";
import {
  type Attachment,
  type BufferDescriptor,
  BufferDescriptor as Descriptor,
  DmaBuf,
  Fence,
  type FilePart,
  type ImporterOps,
  peerVectors,
  SystemHeap,
  UserMemoryBuffers,
  VfioDeviceMemory,
} from "../../src/consumers/dmabuf/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { Frames, SimulatedFile } from "../../src/hosts/simulated/process/index.ts";
import { type FileSeal, type MemoryFile, type OpenFile, type Steps, WAITING } from "../../src/platform/index.ts";
import { DmabufMachine, PlainPages } from "./dmabuf-machine.ts";
import {
  Differences,
  type Header,
  type Judge,
  judgeLines,
  known,
  type Line,
  NotJudged,
  type Tally,
  type Verdict,
} from "./judge.ts";
import { errnoOf, number } from "./words.ts";

const DIRECTIONS: Readonly<Record<string, Direction>> = {
  bidirectional: "bidirectional",
  toDevice: "to-device",
  fromDevice: "from-device",
  none: "none" as Direction,
};

/** Seals as bits; the one that seals the rest comes last. */
const SEALS: readonly (readonly [bit: number, seal: FileSeal])[] = [
  [2, "shrink"],
  [4, "grow"],
  [8, "write"],
  [16, "future-write"],
  [1, "seal"],
];

/** This one, on a file that can be executed, seals its contents besides. */
const SEAL_EXEC = 32;

/** Pages that a file tells of, after a map. */
const TOLD_PAGES = 8;
const HUGE_PAGES = 512;

/** One that a file attached. */
interface Attached {
  readonly dev: string;
  readonly attachment: Attachment;
  /** All was revoked since it mapped. */
  stale: boolean;
}

/** A file of huge pages, each in one piece. */
class HugeFile implements MemoryFile {
  readonly kind = "memory-file";
  readonly medium = "hugetlb";
  readonly pageBytes: number = HUGE_PAGES * PAGE_SIZE;
  readonly length: number;
  readonly seals: ReadonlySet<FileSeal>;
  readonly #pages: PlainPages;
  readonly #heads: PhysPage[] = [];

  constructor(length: number, seals: ReadonlySet<FileSeal>, pages: PlainPages) {
    this.length = length;
    this.seals = seals;
    this.#pages = pages;
  }

  acquire(): void {}
  release(): void {}
  read(): number {
    return 0;
  }
  write(): number {
    return 0;
  }
  pin(offset: number, count: number, into: Float64Array, at: number): void {
    for (let i = 0; i < count; i++) {
      const page = offset / PAGE_SIZE + i;
      const head = Math.floor(page / HUGE_PAGES);
      this.#heads[head] ??= this.#pages.allocatePages(HUGE_PAGES)!;
      into[at + i] = this.#heads[head] + (page % HUGE_PAGES);
    }
  }
}

/** What no descriptor of memory is. */
const OTHER_FILE: OpenFile = { kind: "device", acquire: () => {}, release: () => {} };

class DmabufJudge {
  readonly #lines: readonly Line[];
  readonly #machine: DmabufMachine;
  readonly #differences = new Differences();
  readonly #pages = new PlainPages();
  readonly #frames: Frames;
  readonly #heap: SystemHeap;
  readonly #users: UserMemoryBuffers;
  readonly #vfio = new Map<string, VfioDeviceMemory>();
  readonly #attached = new Map<number, Attached>();
  #descriptor: BufferDescriptor | undefined;
  #file: MemoryFile | undefined;
  #pinErrno = 0;
  #callbacks: number[] = [];
  /** Revocations that wait until nothing is mapped. */
  #waiting: Steps<void>[] = [];

  constructor(header: Header, lines: readonly Line[]) {
    this.#lines = lines;
    this.#machine = new DmabufMachine(header, lines, (difference) => this.#differences.add(difference));
    const { kernel } = this.#machine;
    this.#frames = new Frames({ pages: this.#pages, memory: kernel.memory });
    const asLinux = { form: "scatter-table", syncFiles: false } as const;
    this.#heap = new SystemHeap({ pages: this.#pages, ...asLinux });
    const dma = new Dma({
      name: "udmabuf",
      machine: { memory: kernel.memory, ...(kernel.pool && { pool: kernel.pool }) },
      forceBounce: kernel.mode.forceBounce === true,
      observer: kernel.events,
      refusesMisuse: false,
      linuxCompatible: true,
    });
    dma.setMask(2 ** 64);
    const pages = {
      unpin: (...pin: Parameters<Frames["unpin"]>) => this.#frames.folio(pin[0]) && this.#frames.unpin(...pin),
    };
    this.#users = new UserMemoryBuffers({ pages, dma, ...asLinux });
  }

  run(): Verdict {
    return judgeLines(this.#lines, true, (line, _index, tally) => {
      this.#machine.begin(line);
      this.#line(line, tally);
      this.#differences.same("callbacks", line["callbacks"] ?? [], this.#callbacks.splice(0));
      this.#compareEvents(line, tally);
      return this.#differences.take();
    });
  }

  #compareEvents(line: Line, tally: Tally): void {
    const found = this.#machine.told();
    const expected = (line["events"] ?? []) as unknown[][];
    const { dev } = this.#attached.get(number(line["id"] ?? -1)) ?? {};
    const told = dev !== undefined && this.#machine.hasHistory(dev) ? withoutOldTables(expected, found) : expected;
    if (told.length < expected.length) tally.rule("tables that an earlier file of the same boot left are not known");
    this.#differences.same("events", told, found);
  }

  get #open(): BufferDescriptor {
    if (!this.#descriptor) throw new NotJudged("a call on a buffer that could not be had");
    return this.#descriptor;
  }

  get #exporter(): VfioDeviceMemory {
    const found = this.#vfio.get("exp");
    if (found) return found;
    const regions = this.#machine.barsOf("exp").map((provider) => {
      const { index, length } = provider.bar;
      return [index, { lengthBytes: length, provider }] as const;
    });
    const made = new VfioDeviceMemory("exp", new Map(regions));
    this.#vfio.set("exp", made);
    return made;
  }

  #line(line: Line, tally: Tally): void {
    const answer = (call: () => void): void => this.#differences.same("ret", line["ret"], errnoOf(call));
    const operations: Readonly<Record<string, () => void>> = {
      note: () => this.#note(line),
      query: () => this.#query(line),
      setMask: () => answer(() => this.#setMask(line)),
      p2pDistance: () => this.#distance(line),
      // heaps and user memory
      heapAlloc: () => this.#make(line, "size", () => this.#heap.allocate(heapRequest(line))),
      heapIoctl: () => answer(() => this.#heap.call(number(line["nr"] ?? 0), undefined)),
      memfd: () => this.#makeFile(line),
      udmabufCreate: () => this.#make(line, "length", () => this.#users.create([this.#part(line)], oddFlag(line))),
      udmabufCreateList: () => this.#make(line, "length", () => this.#users.create(this.#parts(number(line["count"])))),
      ftruncate: () => answer(() => (this.#file as SimulatedFile).truncate(0)),
      punchHole: () => answer(() => (this.#file as SimulatedFile).punch(0, PAGE_SIZE)),
      // calls on a descriptor
      cloexec: () => this.#differences.same("value", line["value"], this.#open.closesOnExec),
      lseek: () => this.#seek(line),
      read: () => answer(() => this.#open.read()),
      write: () => answer(() => this.#open.write()),
      mmap: () => answer(() => this.#open.processMap(processMap(line))),
      sync: () => answer(() => this.#open.sync(number(line["flags"]))),
      setName: () => answer(() => this.#open.setName("x".repeat(number(line["length"])))),
      exportSyncFile: () => answer(() => this.#open.exportSyncFile(number(line["flags"]))),
      importSyncFile: () => answer(() => this.#open.importSyncFile(number(line["flags"]), new Fence("none"))),
      // importers
      attach: () => this.#attach(line),
      pin: () => answer(() => this.#locked((each) => each.pin(), line)),
      unpin: () => answer(() => this.#locked((each) => each.unpin(), line)),
      map: () => this.#map(line, tally),
      unmap: () => this.#unmap(line),
      detach: () => answer(() => this.#attachedOf(line).attachment.detach()),
      // exporters of peer memory
      ownExport: () => this.#make(line, undefined, () => this.#ownExport(line)),
      pinReturns: () => {
        this.#pinErrno = number(line["value"]);
      },
      revoke: () => answer(() => this.#revoke(this.#open.buffer.revoke())),
      restore: () => answer(() => this.#revoke(this.#open.buffer.restore())),
      vfioExport: () => this.#make(line, "size", () => this.#vfioExport(line)),
      vfioProbe: () => answer(() => this.#exporter.probe(line["set"] ? "set" : "get")),
      configCommand: () => this.#command(line),
      vfioReset: () => answer(() => this.#revoke(this.#exporter.reset())),
      powerState: () => {
        this.#revoke(this.#exporter.setPowerState(number(line["d"]) as 0 | 3));
        this.#differences.same("reads", line["reads"], line["d"]);
      },
    };
    known("the operation", operations, line["op"])();
    this.#goOn();
  }

  /** A note ends what was before it, and the last one about a device says that it was closed. */
  #note(line: Line): void {
    if (line["text"] === "device closed") {
      this.#revoke(this.#exporter.close());
      this.#vfio.clear();
    } else this.#close();
  }

  #close(): void {
    for (const { attachment } of this.#attached.values()) attachment.detach();
    this.#attached.clear();
    this.#descriptor?.close();
    this.#descriptor = undefined;
  }

  #query(line: Line): void {
    const dma = this.#machine.dma(line["dev"] as string);
    dma.device.skipSync = line["skipSync"] === 1; // whether a mask was set before is not in the file
    this.#differences.same("domain", line["domain"], this.#machine.domainName);
    this.#differences.same("needUnmap", line["needUnmap"], Number(dma.needsUnmap));
  }

  #setMask(line: Line): void {
    const dma = this.#machine.dma(line["dev"] as string);
    const bits = number(line["bits"]);
    dma.setMask(bits === 64 ? 2 ** 64 : 2 ** bits - 1);
    dma.device.maxSegmentSize = number(line["maxSegment"]);
  }

  #distance(line: Line): void {
    const { kernel } = this.#machine;
    const owner = this.#machine.node(line["provider"] as string);
    const steps = (line["clients"] as string[]).map((client) =>
      kernel.peers.distance(owner, this.#machine.node(client)),
    );
    const sum = steps.includes(-1) ? -1 : steps.reduce((total, each) => total + each, 0);
    this.#differences.same("distance", line["distance"], sum);
  }

  /** A new buffer takes the place of the one before. */
  #make(line: Line, size: "size" | "length" | undefined, make: () => BufferDescriptor): void {
    this.#close();
    const ret = errnoOf(() => {
      this.#descriptor = make();
    });
    this.#differences.same("ret", line["ret"], ret);
    if (size && this.#descriptor) this.#differences.same(size, line[size], this.#descriptor.buffer.lengthBytes);
  }

  #makeFile(line: Line): void {
    const length = number(line["size"]);
    const bits = number(line["seals"]);
    const all = (bits & SEAL_EXEC) !== 0;
    const seals = SEALS.filter(([bit]) => all || (bits & bit) !== 0).map(([, seal]) => seal);
    if (line["what"] === "hugetlb") this.#file = new HugeFile(length, new Set(seals), this.#pages);
    else {
      const file = new SimulatedFile({ frames: this.#frames, name: "memfd", length });
      for (const seal of seals) file.seal(seal);
      this.#file = file;
    }
    this.#differences.same("ret", line["ret"], 0);
  }

  /** No line says what else was opened: the answer does. */
  #part(line: Line): FilePart {
    const file = line["ret"] === -ERRNO.EBADFD ? OTHER_FILE : this.#file!;
    return { file, offset: number(line["off"]), length: number(line["size"]) };
  }

  #parts(count: number): FilePart[] {
    const pages = this.#file!.length / PAGE_SIZE;
    return Array.from({ length: count }, (_, i) => ({
      file: this.#file!,
      offset: (i % pages) * PAGE_SIZE,
      length: PAGE_SIZE,
    }));
  }

  #seek(line: Line): void {
    let at = 0;
    const ret = errnoOf(() => {
      at = this.#open.seek(line["whence"] as "set" | "cur" | "end", number(line["off"]));
    });
    this.#differences.same("ret", line["ret"], ret || at);
  }

  #attachedOf(line: Line): Attached {
    const found = this.#attached.get(number(line["id"]));
    if (!found) throw new NotJudged(`attachment ${line["id"]} is used, and could not be had`);
    return found;
  }

  #locked(call: (attachment: Attachment) => void, line: Line): void {
    const { attachment } = this.#attachedOf(line);
    this.#open.buffer.reservation.locked(() => call(attachment));
  }

  #attach(line: Line): void {
    const dev = line["dev"] as string;
    const id = number(line["id"] ?? -1);
    let attachment: Attachment | undefined;
    const called = (): void => {
      this.#callbacks.push(id);
      if (line["unmapsInCallback"] && attachment?.mapping) attachment.unmap();
    };
    const ops: ImporterOps = {
      peerToPeer: line["peer2peer"] === true,
      ...(line["callback"] === true && { invalidated: called }),
    };
    const ret = errnoOf(() => {
      const importer = { name: `${id}`, dma: this.#machine.dma(dev), ...(line["ops"] === true && { ops }) };
      attachment = this.#open.buffer.attach(importer);
    });
    this.#differences.same("ret", line["ret"], ret);
    if (attachment) this.#attached.set(id, { dev, attachment, stale: false });
  }

  #map(line: Line, tally: Tally): void {
    const attached = this.#attachedOf(line);
    const { attachment, dev } = attached;
    if (attached.stale && attachment.mapping) this.#locked((each) => each.unmap(), line);
    attached.stale = false;
    const had = attachment.mapping;
    const direction = known("the direction", DIRECTIONS, line["dir"]);
    const ret = errnoOf(() => this.#locked((each) => each.map(direction), line));
    const isFiner = line["ret"] === -ERRNO.EIO && ret < 0 && this.#open.buffer.exporter.form === "scatter-table";
    if (isFiner && ret !== line["ret"]) tally.rule("finer errno");
    else this.#differences.same("ret", line["ret"], ret);
    const { mapping } = attachment;
    if (!mapping || mapping === had) return;
    const { ranges, tableEntries } = mapping;
    if (typeof line["entries"] === "number") this.#differences.same("entries", line["entries"], ranges.length);
    if (typeof line["cpuEntries"] === "number") this.#differences.same("cpuEntries", line["cpuEntries"], tableEntries);
    this.#differences.same("list", line["list"], this.#list(dev, ranges));
    const [first] = ranges;
    if (line["translates"] && first)
      this.#differences.same(
        "translates",
        line["translates"],
        Array.from({ length: Math.min(TOLD_PAGES, first.length / PAGE_SIZE) }, (_, i) =>
          this.#machine.translate(dev, first.address + i * PAGE_SIZE),
        ),
      );
  }

  #list(dev: string, ranges: readonly { address: number; length: number; bus?: boolean }[]): unknown[] {
    const isTranslated = this.#machine.isTranslated(dev);
    const list = ranges.map(({ address, length, bus }) => {
      if (isTranslated && !bus) return [this.#machine.isLazy ? null : `0x${address.toString(16)}`, length];
      return [this.#machine.label(address), length];
    });
    if (isTranslated || list.some(([label]) => label !== "ram")) return list;
    return [["ram", ranges.reduce((sum, { length }) => sum + length, 0)]];
  }

  #unmap(line: Line): void {
    const { attachment, dev } = this.#attachedOf(line);
    const first = attachment.mapping?.ranges[0];
    const direction = known("the direction", DIRECTIONS, line["dir"]);
    const ret = errnoOf(() => this.#locked((each) => each.unmap(direction), line));
    this.#differences.same("ret", line["ret"], ret);
    if (line["firstPageStillTranslates"] === undefined || !first) return;
    const reaches = this.#machine.translate(dev, first.address) !== "-";
    this.#differences.same("firstPageStillTranslates", line["firstPageStillTranslates"], reaches);
  }

  #ownExport(line: Line): BufferDescriptor {
    const provider = this.#machine.provider(line["dev"] as string, number(line["bar"]));
    if (!provider) throw new NotJudged(`no BAR ${line["bar"]} of ${line["dev"]} is in the file`);
    const parts = (line["vectors"] as [string, string][]).map(([offset, length]) => ({
      offset: number(offset),
      length: number(length),
    }));
    const exporter = peerVectors({
      name: "own",
      provider,
      parts,
      ...(line["size"] !== undefined && { lengthBytes: number(line["size"]) }),
      ...(line["hasPin"] === true && { pin: () => this.#pinError() }),
    });
    return new Descriptor(new DmaBuf(exporter), { openFlags: 2 });
  }

  #pinError(): DmaError | undefined {
    const found = Object.entries(ERRNO).find(([, value]) => value === -this.#pinErrno);
    return found && new DmaError("ERR_DMA_BUF_PIN", found[0] as Errno, "the exporter of the file refuses");
  }

  #vfioExport(line: Line): BufferDescriptor {
    const ranges = (line["ranges"] as [string, string][]).map(([offset, length]) => ({
      offset: BigInt(offset),
      length: BigInt(length),
    }));
    const call = {
      region: number(line["region"]),
      openFlags: number(line["openFlags"]),
      flags: number(line["flags"]),
      ranges,
    };
    const argumentBytes = 24 + 16 * ranges.length + number(line["argszDelta"] ?? 0);
    return this.#exporter.export(call, argumentBytes);
  }

  #command(line: Line): void {
    this.#revoke(this.#exporter.writeCommand(number(line["value"])));
    this.#differences.same("reads", (number(line["reads"]) & 2) !== 0, this.#exporter.answers);
  }

  /** Runs as far as it can; what still waits goes on when something has been unmapped. */
  #revoke(steps: Steps<void>): void {
    const before = this.#descriptor?.buffer.generation;
    this.#waiting.push(steps);
    this.#goOn();
    if (this.#descriptor?.buffer.generation !== before) for (const each of this.#attached.values()) each.stale = true;
  }

  #goOn(): void {
    this.#waiting = this.#waiting.filter((steps) => {
      for (;;) {
        const { done, value } = steps.next();
        if (done) return false;
        if (value === WAITING) return true;
      }
    });
  }
}

/** Without invalidations of tables that a large leaf took the place of, where there were none here. */
const withoutOldTables = (expected: unknown[][], found: readonly (readonly unknown[])[]): unknown[][] =>
  expected.filter(([name], i) => name !== "inv" || expected[i + 1]?.[0] !== "map" || found[i]?.[0] === "inv");

/** Flags of which only the first bit counts: close on exec. */
const oddFlag = (line: Line): boolean => number(line["flags"]) % 2 === 1;

const heapRequest = (line: Line): Parameters<SystemHeap["allocate"]>[0] => ({
  lengthBytes: number(line["len"]),
  openFlags: number(line["fdFlags"]),
  heapFlags: number(line["heapFlags"]),
  descriptor: number(line["fdIn"] ?? 0),
});

const processMap = (line: Line): Parameters<BufferDescriptor["processMap"]>[0] => ({
  offset: number(line["off"]),
  length: number(line["len"]),
  shared: line["shared"] === true,
  write: String(line["prot"]).includes("w"),
});

export const judges: Readonly<Record<string, Judge>> = {
  dmabuf: (header, lines) => new DmabufJudge(header, lines).run(),
};
