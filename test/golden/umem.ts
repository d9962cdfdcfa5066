/**
 * Judge of the umem files: user memory of an RDMA device of the running kernel, pinned, on demand, and of a shared buffer; and (those with
 * verbs in them) regions of the software device.
 *
 * The process is the simulated one, the DMA API is dmalink's as Linux is (`linuxCompatible`, unchecked). Compared are results, lists, words,
 * accounts, notifier calls, what a child gets at a fork, and every event of the IOMMU, of the pool and of the DMA API.
 */

import { DmaError, type DmaEvent, PAGE_SIZE } from "../../src/base/index.ts";
import { HMM } from "../../src/consumers/hmm/index.ts";
import { BufferMemory, bestPageSize, OnDemandMemory, PinnedMemory } from "../../src/consumers/rdma/index.ts";
import type { Dma, DmaVec } from "../../src/dma/index.ts";
import { type Access, Frames, SimulatedFile, SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import type { PageEntry } from "../../src/platform/index.ts";
import { newPageEntry, UserAddr } from "../../src/platform/index.ts";
import { Differences, type Header, type Judge, judgeLines, known, type Line, type Verdict } from "./judge.ts";
import { KernelMachine } from "./kernel-machine.ts";
import { accessOf, HeapBuffer, PlainPages } from "./umem-memory.ts";
import { judgeVerbs } from "./umem-verbs.ts";
import { errnoOf, INVALIDATION_WORDS, number } from "./words.ts";

/** Where the arena lies: a page on demand of the last addresses of all says so, by its distance. */
const ARENA = 2 ** 45;
/** RAM of that machine ends here; its pool of bounce slots lies below. */
const RAM_END = 2 ** 29;
const POOL = { start: "0x10000000", slots: 4096, areas: 1 };
const HUGETLB_PAGES = 16;
const BUFFER_BYTES = 65_536;
/** No line says what time it is. With 2 to 7 ms between two lines, lazy ranges come back as they did. */
const MS_PER_LINE = 4;

type Event = readonly (string | number | boolean | null)[];
type Umem = PinnedMemory | OnDemandMemory | BufferMemory;

/** The lines of a child that dropped the capability follow this note, up to the next one. */
const CHILD = "without the capability (a child process)";

class UmemJudge {
  readonly #machine: KernelMachine;
  readonly #lines: readonly Line[];
  readonly #differences = new Differences();
  readonly #frames: Frames;
  readonly #parent: SimulatedProcess;
  readonly #dma: Dma | undefined;
  readonly #isLazy: boolean;
  readonly #isTranslated: boolean;
  readonly #umems = new Map<number, Umem>();
  readonly #buffer: HeapBuffer;
  readonly #slots = new Map<unknown, number>();
  #process: SimulatedProcess;
  #pinned = 0;
  #maxSegment = 2 ** 31;
  #callbacks: unknown[] = [];
  /** Where addresses of a region on demand are counted from; while it is there, and on its last line. */
  #onDemand: OnDemandMemory | undefined;

  constructor(header: Header, lines: readonly Line[]) {
    const mode = header["name"] as string;
    this.#machine = new KernelMachine(
      { ...header, mode, machine: "1 processor, 2 GiB", memoryEnd: RAM_END, ...(mode === "force" && { pool: POOL }) },
      [],
    );
    this.#lines = lines;
    this.#isLazy = mode.endsWith("lazy");
    this.#isTranslated = this.#machine.mode.vtd !== undefined || this.#machine.mode.virtio === true;
    const { memory } = this.#machine;
    const pages = new PlainPages();
    this.#frames = new Frames({ pages, memory, hugetlbPages: HUGETLB_PAGES });
    this.#parent = new SimulatedProcess(this.#frames, { capabilities: ["IPC_LOCK"] });
    this.#process = this.#parent;
    if (mode !== "soft") {
      this.#machine.addDevice(0, header["device"] as string, false);
      if (this.#isTranslated) this.#machine.enter(0, this.#isLazy ? "DMA-FQ" : "DMA", 1);
      else this.#machine.enter(0, "identity", 1);
      this.#dma = this.#machine.device(0).dma;
      this.#dma.setMask(2 ** 32 - 1);
      this.#dma.device.maxSegmentSize = this.#maxSegment;
    }
    this.#buffer = new HeapBuffer(pages.allocateAligned(BUFFER_BYTES / PAGE_SIZE), BUFFER_BYTES);
    const { events } = this.#machine;
    events.dmaCalled = (event) => {
      const { name, address, phys, length } = event as DmaEvent;
      if (name === "dma_map_sg" || name === "dma_unmap_sg") events.events.push([name]);
      if (name === "dma_map_phys") events.events.push(["dmaMapPhys", address === undefined ? null : phys!, length!]);
    };
  }

  run(): Verdict {
    return judgeLines(this.#lines, true, (line) => {
      this.#machine.clock.advance(MS_PER_LINE);
      this.#machine.events.take(); // flushes by the timer are in no file
      this.#line(line);
      this.#compareState(line);
      return this.#differences.take();
    });
  }

  #at(text: unknown): number {
    const value = text as string;
    return value.startsWith("+") ? ARENA + Number(value.slice(1)) : Number(value);
  }

  #line(line: Line): void {
    const { memory } = this.#process;
    const page = number(line["page"] ?? 0);
    const count = number(line["n"] ?? 0);
    const address = UserAddr(ARENA + page * PAGE_SIZE);
    const length = count * PAGE_SIZE;
    const answer = (call: () => void): void => this.#differences.same("ret", line["ret"], errnoOf(call));
    switch (line["op"] as string) {
      case "note":
        this.#note(line["text"] as string);
        return;
      case "mmap":
        answer(() => this.#map(line, address, length));
        return;
      case "munmap":
        answer(() => memory.unmap(address, length));
        return;
      case "mprotect":
        answer(() => memory.protect(address, length, line["prot"] as Access));
        return;
      case "dontneed":
      case "dontfork":
      case "hugepage":
        answer(() => memory.advise(address, length, line["op"] as "dontneed"));
        return;
      case "mlock":
        return; // locked pages are of another account
      case "cpuWrite":
        for (let i = 0; i < count; i++)
          memory.write(UserAddr(address + i * PAGE_SIZE), new Uint8Array(PAGE_SIZE).fill(page + i + 1));
        return;
      case "cpuRead":
        for (let i = 0; i < count; i++) memory.read(UserAddr(address + i * PAGE_SIZE), new Uint8Array(PAGE_SIZE));
        return;
      case "fork":
        this.#fork(line, page, count);
        return;
      case "setMemlock":
        this.#process.memlockBytes = number(line["pages"]) * PAGE_SIZE;
        return;
      case "setMaxSegment":
        if (this.#dma) this.#dma.device.maxSegmentSize = number(line["bytes"]);
        return;
      case "umemGet":
        this.#get(line);
        return;
      case "umemRelease":
      case "odpRelease":
        this.#release(line);
        return;
      case "bestPageSize":
        this.#best(line);
        return;
      case "odpGet":
        this.#getOnDemand(line);
        return;
      case "odpMap":
        this.#mapOnDemand(line);
        return;
      case "odpWords":
        this.#compareWords(line, this.#onDemand!);
        return;
      default:
        this.#bufferLine(line);
    }
  }

  #note(text: string): void {
    if (this.#process !== this.#parent) {
      this.#process.exit();
      this.#process = this.#parent;
    }
    if (text.includes(CHILD)) {
      this.#process = this.#parent.fork();
      this.#process.capabilities.clear();
    }
    this.#pinned = this.#process.memory.pinned.pages;
  }

  #map(line: Line, address: UserAddr, length: number): void {
    const kind = line["kind"] as string;
    const file = kind.startsWith("file")
      ? new SimulatedFile({ frames: this.#frames, name: "memory", medium: "memfd", length })
      : undefined;
    this.#process.memory.map({
      address,
      length,
      access: line["prot"] as Access,
      shared: kind.endsWith("Shared"),
      hugetlb: kind.startsWith("huge"),
      replace: true,
      ...(file && { file }),
    });
  }

  #fork(line: Line, page: number, count: number): void {
    const child = this.#process.fork();
    const runs: [string, number][] = [];
    for (let i = 0; i < count; i++) {
      const address = UserAddr(ARENA + (page + i) * PAGE_SIZE);
      const [own, others] = [pageAt(this.#process, address), pageAt(child, address)];
      let what = others === own ? "shared" : "copied";
      if (others === undefined) what = "absent";
      const last = runs.at(-1);
      if (last?.[0] === what) last[1]++;
      else runs.push([what, 1]);
    }
    this.#differences.same("childPages", line["childPages"], runs);
    child.exit();
  }

  #get(line: Line): void {
    const dma = this.#dma;
    let umem: PinnedMemory | undefined;
    const ret = errnoOf(() => {
      umem = new PinnedMemory({
        process: this.#process,
        address: this.#at(line["addr"]),
        length: Number(line["len"]),
        access: accessOf(line["access"]),
        ...(dma && { dma }),
      });
    });
    this.#differences.same("ret", line["ret"], ret);
    if (!umem) return;
    this.#umems.set(line["id"] as number, umem);
    this.#differences.same("writable", line["writable"], umem.writable);
    this.#compareList(line, umem.segments);
  }

  #compareList(line: Line, segments: readonly DmaVec[]): void {
    const list = line["list"] as unknown[] | undefined;
    const isSaid = list !== undefined;
    if (isSaid)
      this.#differences.same(
        "list",
        list,
        segments.map((segment) => this.#asListed(segment)),
      );
    if (typeof line["entries"] === "number") this.#differences.same("entries", line["entries"], segments.length);
    if (line["total"] !== undefined)
      this.#differences.same(
        "total",
        line["total"],
        segments.reduce((sum, { length }) => sum + length, 0),
      );
  }

  /** Only addresses of the IOMMU are said, and those not in lazy mode; but in the file itself they are numbers or null. */
  #asListed({ address, length }: DmaVec): unknown {
    if (!this.#isTranslated) return [null, length];
    return [this.#isLazy ? null : `0x${address.toString(16)}`, length];
  }

  #release(line: Line): void {
    const id = line["id"] as number;
    const umem = this.#umems.get(id);
    this.#differences.same("ret", line["ret"], umem ? 0 : -2);
    umem?.release();
    this.#umems.delete(id);
  }

  #best(line: Line): void {
    const umem = this.#umems.get(line["id"] as number) as PinnedMemory | BufferMemory;
    const { segments: runs, firstOffset, length } = umem;
    const virt = BigInt(line["virt"] as string);
    const best = bestPageSize({ runs: runs!, firstOffset, virt, length, sizes: Number(line["sizes"]) });
    this.#differences.same("best", line["best"], `0x${best.toString(16)}`);
  }

  #getOnDemand(line: Line): void {
    const dma = this.#dma;
    let umem: OnDemandMemory | undefined;
    const isHuge = (line["access"] as string[]).includes("hugetlb");
    const ret = errnoOf(() => {
      umem = new OnDemandMemory({
        process: this.#process,
        address: this.#at(line["addr"]),
        length: Number(line["len"]),
        pageBytes: isHuge ? 2 ** 21 : PAGE_SIZE,
        ...(dma && { dma }),
        linuxCompatible: true,
        forget: () => {},
        heard: ({ kind, start, end }) =>
          this.#callbacks.push([INVALIDATION_WORDS[kind], (start - ARENA) / PAGE_SIZE, (end - start) / PAGE_SIZE]),
      });
    });
    this.#differences.same("ret", line["ret"], ret);
    if (!umem) return;
    this.#umems.set(line["id"] as number, umem);
    this.#onDemand = umem;
    const signed = umem.start >= 2 ** 63 ? umem.start - 2 ** 64 : umem.start;
    this.#differences.same("firstPage", line["firstPage"], (signed - ARENA) / PAGE_SIZE);
    this.#differences.same("pages", line["pages"], umem.words.count);
    this.#differences.same("pageShift", line["pageShift"], isHuge ? 21 : 12);
    this.#differences.same("iova", line["iova"], umem.iova !== undefined);
    if (umem.iova === undefined) return;
    if (!this.#isLazy) this.#differences.same("base", line["base"], `0x${umem.iova.toString(16)}`);
    this.#differences.same("sizeWord", line["sizeWord"], `0x${(umem.words.count * PAGE_SIZE).toString(16)}`);
  }

  #mapOnDemand(line: Line): void {
    const umem = this.#umems.get(line["id"] as number) as OnDemandMemory;
    const addresses: (string | null)[] = [];
    let done = 0;
    const ret = errnoOf(() => {
      const how = { write: line["write"] === true, presentOnly: line["fault"] !== true };
      done = umem.fault(Number(line["off"]), Number(line["len"]), how, (first, count) => {
        for (let i = first; this.#dma && i < first + count; i++) addresses.push(this.#mapped(umem, i));
      });
    });
    this.#differences.same("ret", line["ret"], ret === 0 ? done : ret);
    this.#differences.same("dma", line["dma"] ?? [], addresses);
    this.#compareWords(line, umem);
  }

  #mapped(umem: OnDemandMemory, index: number): string | null {
    if (!umem.words.has(index, HMM.valid)) return "-";
    let address: number;
    try {
      address = umem.mapPage(index);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      return null;
    }
    if (umem.iova !== undefined) return `+0x${(address - umem.iova).toString(16)}`;
    const page = pageAt(this.#process, UserAddr(umem.start + index * PAGE_SIZE));
    return page !== undefined && page * PAGE_SIZE === address ? "page" : "other";
  }

  #compareWords(line: Line, { words }: OnDemandMemory): void {
    const runs: [string, number][] = [];
    let mapped = 0;
    for (let i = 0; i < words.count; i++) {
      if (words.has(i, HMM.dmaMapped)) mapped++;
      const word = words.flags[i]!.toString(16);
      const last = runs.at(-1);
      if (last?.[0] === word) last[1]++;
      else runs.push([word, 1]);
    }
    this.#differences.same("words", line["words"], runs);
    this.#differences.same("mapped", line["mapped"], mapped);
  }

  #bufferLine(line: Line): void {
    const umem = this.#umems.get(line["id"] as number) as BufferMemory;
    switch (line["op"] as string) {
      case "umemDmabuf":
        this.#getBuffer(line);
        return;
      case "mapPages": {
        let segments: readonly DmaVec[] = [];
        const ret = errnoOf(() => {
          segments = umem.map();
        });
        this.#differences.same("ret", line["ret"], ret);
        if (ret === 0) this.#compareList(line, segments);
        return;
      }
      case "unmapPages":
        umem.unmap();
        return;
      case "invalidate":
        this.#buffer.move();
        return;
      case "revoke":
        umem.revoke();
        return;
      default:
        known("the operation", {}, line["op"]);
    }
  }

  /**
   * The file does not say which descriptor was given: -EBADF is for one that is not open, and a part that is in the buffer is refused
   * only of a file that is no buffer. Both are the caller's who looks descriptors up.
   */
  #getBuffer(line: Line): void {
    const dma = this.#dma!;
    const [offset, length] = [Number(line["off"]), Number(line["len"])];
    if (line["ret"] === -9 || (line["ret"] === -22 && length > 0 && offset + length <= BUFFER_BYTES)) return;
    const lives = { dynamic: "dynamic", pinned: "pinned", pinnedRevocable: "pinned-revocable" } as const;
    const life = known("the class", lives, line["class"]);
    const id = line["id"] as number;
    let umem: BufferMemory | undefined;
    const ret = errnoOf(() => {
      umem = new BufferMemory({
        buffer: this.#buffer,
        dma,
        life,
        offset,
        length,
        forget: (why) => {
          if (why === "moved") this.#callbacks.push(["invalidateMappings", id]);
          else if (life === "pinned-revocable") this.#callbacks.push(["revoked", id]);
        },
      });
    });
    this.#differences.same("ret", line["ret"], ret);
    if (!umem) return;
    this.#umems.set(id, umem);
    if (life !== "dynamic") this.#compareList(line, umem.segments!);
  }

  #compareState(line: Line): void {
    this.#differences.same("callbacks", line["callbacks"] ?? [], this.#callbacks);
    this.#callbacks = [];
    const { pages } = this.#process.memory.pinned;
    const before = this.#pinned;
    this.#pinned = (line["pinned"] as number | undefined) ?? before;
    this.#differences.same("pinned", this.#pinned, pages);
    const events = this.#told(this.#machine.events.take());
    if (this.#process === this.#parent) this.#differences.same("events", line["events"] ?? [], events);
    if (line["op"] === "odpRelease") this.#onDemand = undefined;
  }

  /** Events as these files write them; neighbouring pieces of memory are mapped as one. */
  #told(events: readonly Event[]): Event[] {
    const told: Event[] = [];
    let open: { iova: number; bytes: number } | undefined;
    for (const event of events) {
      if (event[0] === "map" && !this.#onDemand) {
        const [iova, bytes] = [Number(event[1]), Number(event[3])];
        if (open && open.iova + open.bytes === iova) {
          open.bytes += bytes;
          told.pop();
        } else open = { iova, bytes };
        told.push(["map", this.#address(open.iova), "ram", open.bytes]);
        continue;
      }
      const one = this.#toldOne(event);
      if (!one) continue;
      open = undefined;
      told.push(one);
    }
    return told;
  }

  #toldOne(event: Event): Event | undefined {
    const [name, first, second, third] = event;
    switch (name) {
      case "iovaAlloc":
        return [name, first!, second!, this.#isLazy ? null : third!];
      case "iovaFree":
        return [name, this.#address(Number(first) * PAGE_SIZE), second!];
      case "map":
        return [name, this.#address(Number(first)), this.#label(Number(second)), Number(third)];
      case "unmap":
        return [name, this.#address(Number(first)), Number(second), Number(third)];
      case "syncMap":
        return this.#onDemand && [name, this.#address(Number(first)), Number(second)];
      case "inv":
      case "invMap":
        return [name, this.#address(Number(first)), Number(second) - Number(first) + 1];
      case "slot":
        this.#slots.set(event[4], Number(second));
        return [name, "ram", Number(second)];
      case "slotFree":
        return [name, this.#slots.get(first)!];
      case "dmaMapPhys":
        return [name, first === null ? "ram" : this.#label(Number(first)), second!];
      case "dma_map_sg":
      case "dma_unmap_sg":
        return [name];
      default:
        return undefined;
    }
  }

  #address(address: number): string | null {
    const base = this.#onDemand?.iova;
    if (base !== undefined) return `+0x${(address - base).toString(16)}`;
    return this.#isLazy ? null : `0x${address.toString(16)}`;
  }

  #label(phys: number): string {
    const { words } = this.#onDemand!;
    for (let i = 0; i < words.count; i++) if (words.page(i) * PAGE_SIZE === phys) return `e${i}`;
    return "ram";
  }
}

const entry: PageEntry = newPageEntry();

/** The page that a process has there. */
function pageAt(process: SimulatedProcess, address: UserAddr): number | undefined {
  process.memory.entryAt(address, entry);
  if (entry.kind !== "present") return undefined;
  return entry.page;
}

export const judges: Readonly<Record<string, Judge>> = {
  umem: (header, lines) => (header["name"] === "verbs" ? judgeVerbs(lines) : new UmemJudge(header, lines).run()),
};
