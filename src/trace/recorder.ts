/**
 * Records what the stack does, as the kernel would: events in its own formats, as text or as a trace.dat file.
 *
 * Idea: an observer that turns each announcement into the event of that name. A call and the work it does come from one
 * place in time, but the kernel prints some calls before their work and some after; the recorder keeps that order.
 * Promises: what it writes is read by this project's reader, by trace-cmd, and by the same analyzer as a recording of a
 * real kernel. Everything is kept in memory until it is written.
 * Not for: counting (see Counters), or for machines with real kernels (`dmalink record`).
 */
import { type DmaEvent, directionNumber, type Observer, type TwoStepEvent } from "../base/index.ts";
import { formatOf, RECORDED_EVENTS, type RecordedEvent } from "./recorded-events.ts";
import { DatWriter, type EventValues } from "./write-dat.ts";

/** Where a recorder takes time, task and call site from. */
export interface RecorderOptions {
  /** Time of events; one microsecond apart without it. */
  readonly nowMs?: () => number;
  /** The task that events are said to be of. */
  readonly task?: {
    /** Its number. */
    readonly pid: number;
    /** Its name, as the kernel shows it: 15 characters at most. */
    readonly name: string;
  };
  /** Where the call at hand was made: asked at every event of the DMA API. */
  readonly callSite?: () => string;
}

interface Entry {
  readonly timeNs: bigint;
  readonly event: RecordedEvent;
  readonly values: EventValues;
}

const EVENTS = new Map(RECORDED_EVENTS.map((event) => [event.name, event]));
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
/** Where x86-64 kernels have all memory: their own addresses of it begin here. */
const DIRECT_MAP = 0xffff_8880_0000_0000n;
/** Entries that an event of a scatterlist carries, as in the kernel. */
const LIST_LIMIT = 128;

/** Writes what the stack does as a kernel would have traced it; an {@link Observer}. */
export class TraceRecorder implements Observer {
  readonly #entries: Entry[] = [];
  readonly #nowMs: (() => number) | undefined;
  readonly #task: { readonly pid: number; readonly name: string };
  readonly #callSite: (() => string) | undefined;
  #lastNs = 0n;
  /** A number that stands for the caller's state of a range, by the range's device and address. */
  readonly #states = new Map<string, number>();
  #nextState = 0x1000;

  /** Begins with no events. */
  constructor(options: RecorderOptions = {}) {
    this.#nowMs = options.nowMs;
    this.#task = options.task ?? { pid: 1000, name: "dmalink" };
    this.#callSite = options.callSite;
  }

  /** Events so far. */
  get count(): number {
    return this.#entries.length;
  }

  /** The lines that tracefs would show. */
  text(): string {
    const { pid, name } = this.#task;
    const task = `${name}-${pid}`.padStart(23);
    const lines = [
      "# tracer: nop",
      "#",
      `# entries-in-buffer/entries-written: ${this.count}/${this.count}   #P:1`,
      "#",
    ];
    lines.push(
      "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION",
      "#              | |         |   |||||     |         |",
    );
    for (const { timeNs, event, values } of this.#entries) {
      const seconds = `${timeNs / 1_000_000_000n}.${String((timeNs / 1000n) % 1_000_000n).padStart(6, "0")}`;
      lines.push(
        `${task.slice(-Math.max(23, task.length))} [000] ..... ${seconds.padStart(12)}: ${event.name}: ${event.print(values)}`,
      );
    }
    return `${lines.join("\n")}\n`;
  }

  /** A trace.dat file, version 6. */
  dat(): Uint8Array {
    const formats = RECORDED_EVENTS.map((event, i) => ({ system: event.system, text: formatOf(event, 1000 + i) }));
    const { pid, name } = this.#task;
    const writer = new DatWriter({ formats, tasks: [[pid, name]] });
    for (const { timeNs, event, values } of this.#entries)
      writer.add(0, timeNs, writer.encode(event.name, pid, values));
    return writer.finish();
  }

  #add(name: string, values: EventValues): void {
    const now = this.#nowMs === undefined ? this.#lastNs + 1000n : BigInt(Math.round(this.#nowMs() * 1_000_000));
    this.#lastNs = now > this.#lastNs ? now : this.#lastNs + 1n;
    this.#entries.push({ timeNs: this.#lastNs, event: EVENTS.get(name)!, values });
  }

  // What is announced.

  dmaCalled(event: DmaEvent): void {
    const { name, device } = event;
    const caller = this.#callSite?.() ?? "";
    const number = directionNumber(event.direction);
    const dir = number < 0 ? 3 : number; // what is none prints as NONE
    const common = { device, dir, attrs: event.attributes, caller };
    const size = event.length ?? 0;
    const address = event.address ?? (name === "dma_map_phys" ? ALL_ONES : 0);
    if (event.physAddresses === undefined) {
      this.#add(name, {
        ...common,
        size,
        dma_addr: address,
        addr: address,
        phys_addr: event.phys ?? 0,
        // NULL is what a call that failed gives, and what gives back nothing.
        virt_addr: event.address === undefined ? 0 : DIRECT_MAP + BigInt(event.phys ?? event.address),
        phys_addrs: event.phys === undefined ? [] : [event.phys],
      });
      return;
    }
    const [phys, addresses, lengths] = [event.physAddresses, event.addresses ?? [], event.lengths ?? []];
    this.#add(name, {
      ...common,
      full_nents: phys.length,
      full_ents: addresses.length,
      truncated: phys.length > LIST_LIMIT || addresses.length > LIST_LIMIT ? 1 : 0,
      phys_addrs: phys.slice(0, LIST_LIMIT),
      dma_addrs: addresses.slice(0, LIST_LIMIT),
      addrs: phys.slice(0, LIST_LIMIT),
      lengths: lengths.slice(0, LIST_LIMIT),
    });
  }

  twoStepCalled(event: TwoStepEvent): void {
    const { name, address } = event;
    if (name === "dma_iova_link" && event.ok === false) {
      this.#takeBack(event);
      return;
    }
    // Two devices may have the same address, each in its own domain.
    const range = `${event.device} ${address}`;
    let state = this.#states.get(range);
    if (state === undefined || name === "dma_iova_try_alloc") {
      state = this.#nextState += 16;
      this.#states.set(range, state);
    }
    if (name === "dma_iova_free" || name === "dma_iova_destroy") this.#states.delete(range);
    this.#add(name, {
      dev: event.device,
      state,
      addr: address,
      phys: event.phys ?? 0,
      offset: event.offset ?? 0,
      size: name === "dma_iova_try_alloc" ? event.reserved : (event.length ?? 0),
      mapped_len: event.length ?? 0,
      dir: event.direction === undefined ? 0 : directionNumber(event.direction),
      attrs: event.attributes ?? 0,
      ret: event.ok ? 1 : 0,
      caller: this.#callSite?.() ?? "",
    });
  }

  /** A link that failed is no event; the maps and unmaps of its undoing are. */
  #takeBack({ device, address, offset }: TwoStepEvent): void {
    for (let i = this.#entries.length - 1; i >= 0; i--) {
      const { event, values } = this.#entries[i]!;
      if (event.name !== "dma_iova_link" || values["dev"] !== device) continue;
      if (values["addr"] !== address || values["offset"] !== offset) continue;
      this.#entries.splice(i, 1);
      return;
    }
  }

  iotlbSynced(start: number, last: number): void {
    this.#add("iotlb_sync", { start, end: last });
  }

  mapped(iova: number, phys: number, bytes: number): void {
    this.#add("map", { iova, paddr: phys, size: bytes });
  }

  unmapped(iova: number, length: number, bytes: number): void {
    this.#add("unmap", { iova, size: length, unmapped_size: bytes });
  }

  bounceAsked(address: number, size: number): void {
    this.#add("swiotlb_bounced", { dev_name: "device", dma_mask: ALL_ONES, dev_addr: address, size, force: 0 });
  }

  iovaAllocated(pages: number, limitPage: number, page: number): void {
    this.#add("iova_alloc", { pages, limit: limitPage * 4096, iova: page * 4096 });
  }

  iovaFreed(page: number, pages: number): void {
    this.#add("iova_free", { iova: page * 4096, pages });
  }

  flushQueued(page: number, pages: number): void {
    this.#add("fq_queue", { iova: page * 4096, pages });
  }

  domainInvalidated(): void {
    this.#add("fq_flush", { domains: 1 });
  }

  mapSynced(iova: number, length: number): void {
    this.#add("map_sync", { iova, size: length });
  }
}
