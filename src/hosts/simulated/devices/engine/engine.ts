/**
 * A DMA engine: the plainest device there is. It reads and writes memory at the addresses it is given, nothing more.
 *
 * Every access goes page by page through the IOMMU. An access that is refused stops there and answers `false`, as a device
 * sees an aborted transaction. A *script* makes it work by itself, in the machine's time: gather, scatter, wait, interrupt.
 * So it can misbehave like any device: go on after its buffers are gone (wait), past the end of them (`beyond`), and after
 * a reset that it ignores (`obeysReset`).
 */
import { type DmaAddr, IovaPage, PAGE_SIZE, PhysAddr, Random } from "../../../../base/index.ts";
import type { DeviceAccess, PhysicalMemory, Requester, Timer } from "../../../../platform/index.ts";
import { VirtualClock } from "../../clock.ts";
import { type BarModel, type DeviceModel, type DevicePort, memoryTarget } from "../../device.ts";
import { notPlugged } from "../../errors.ts";
import type { RequestTranslator } from "../../fabric.ts";

/** A run of addresses that the engine was given. Bytes. */
export interface EngineSegment {
  /** First byte, as the engine puts it on the bus. */
  readonly address: DmaAddr;
  /** Bytes. */
  readonly length: number;
}

/** What the engine does next. */
export type EngineStep =
  | {
      /** Reads all segments into its buffer, one after the other, and `beyond` bytes past the end of the last. */
      readonly do: "gather";
      /** What is read. */
      readonly segments: readonly EngineSegment[];
      /** Bytes past the end of the last segment that are read too; 0 unless said. */
      readonly beyond?: number;
    }
  | {
      /** Writes `bytes`, or its buffer, to the segments. */
      readonly do: "scatter";
      /** Where it is written. */
      readonly segments: readonly EngineSegment[];
      /** What is written; what the engine has in its buffer unless said. */
      readonly bytes?: Uint8Array;
      /** Bytes past the end of the last segment that are written too; 0 unless said. */
      readonly beyond?: number;
    }
  | {
      /** Waits. */
      readonly do: "wait";
      /** Milliseconds of the machine's time. */
      readonly ms: number;
    }
  | {
      /** Sends an interrupt. */
      readonly do: "interrupt";
      /** Which one, from 0 on. */
      readonly vector: number;
    };

/** How a gather or scatter of a script went. */
export interface EngineResult {
  /** Which step. */
  readonly step: EngineStep;
  /** False if a page was refused; the step ended there. */
  readonly ok: boolean;
  /** Bytes moved by segments that went through. */
  readonly bytes: number;
}

/** What the engine has besides its DMA. */
export interface DmaEngineOptions {
  /** Bytes of plain memory behind BAR 0, for peers; a power of two from 4096 on. None unless said. */
  readonly memoryBytes?: number;
  /** Interrupt vectors. 1 unless said. */
  readonly vectors?: number;
}

/**
 * The simplest device: it reads and writes where it is told, by DMA through its IOMMU, and can lend memory of its own.
 */
export class DmaEngine implements DeviceModel {
  readonly vendorId = 0x1234;
  readonly deviceId = 0x0001;
  /** A DMA controller. */
  readonly classCode = 0x08_0100;
  readonly bars: readonly BarModel[];
  readonly vectors: number;
  /** A reset stops its scripts. A device that misbehaves goes on. */
  obeysReset = true;
  /** An engine that is not in any slot tells of every access here, as the fabric does for those that are. */
  onAccess: ((access: DeviceAccess) => void) | undefined;
  /** What was gathered last. */
  buffer: Uint8Array = new Uint8Array(0);
  /** Results of scripts, oldest first. */
  readonly results: EngineResult[] = [];
  /** Behind its BAR. */
  readonly #memory: Uint8Array;
  #port: DevicePort | undefined;
  readonly #timers = new Set<Timer>();

  /** An engine that is not in any slot: it reaches `memory` through `unit`. */
  constructor(requester: Requester, unit: RequestTranslator, memory: PhysicalMemory);
  /** An engine to plug into a machine. */
  constructor(options?: DmaEngineOptions);
  constructor(first: Requester | DmaEngineOptions = {}, unit?: RequestTranslator, memory?: PhysicalMemory) {
    const options = typeof first === "number" ? {} : first;
    this.vectors = options.vectors ?? 1;
    const length = options.memoryBytes ?? 0;
    const target = memoryTarget(length);
    this.#memory = target.bytes;
    this.bars = length > 0 ? [{ index: 0, length, target }] : [];
    if (typeof first === "number") this.#port = portThrough(first, unit!, memory!, (access) => this.onAccess?.(access));
  }

  plugged(port: DevicePort): void {
    this.#port = port;
  }

  /** Its name on the bus. */
  get requester(): Requester {
    return this.#plugged.requester;
  }

  /** Fills `into` from `address`; false if a page was refused. */
  read(address: DmaAddr, into: Uint8Array): boolean {
    return this.#plugged.read(address, into);
  }

  /** Puts `from` at `address`; false if a page was refused, and then the pages before it are written. */
  write(address: DmaAddr, from: Uint8Array): boolean {
    return this.#plugged.write(address, from);
  }

  /** The bytes of all segments, one after the other; undefined if a page was refused. */
  gather(segments: readonly EngineSegment[]): Uint8Array | undefined {
    const bytes = new Uint8Array(totalOf(segments));
    return this.#each(segments, (address, at, length) => this.read(address, bytes.subarray(at, at + length))).ok
      ? bytes
      : undefined;
  }

  /** Puts `bytes` into the segments, one after the other, as far as either goes; false if a page was refused. */
  scatter(segments: readonly EngineSegment[], bytes: Uint8Array): boolean {
    return this.#each(segments, (address, at, length) => this.write(address, bytes.subarray(at, at + length))).ok;
  }

  /** Works through a script, in the machine's time. A refusal ends its step, not the script. */
  run(script: readonly EngineStep[]): void {
    for (let i = 0; i < script.length; i++) {
      const step = script[i]!;
      if (step.do === "wait") {
        const timer = this.#plugged.clock.after(step.ms, () => {
          this.#timers.delete(timer);
          this.run(script.slice(i + 1));
        });
        this.#timers.add(timer);
        return;
      }
      if (step.do === "interrupt") this.#plugged.interrupt(step.vector);
      else this.results.push(step.do === "gather" ? this.#gather(step) : this.#scatter(step));
    }
  }

  /** Scripts that wait. */
  get waiting(): number {
    return this.#timers.size;
  }

  reset(): void {
    if (!this.obeysReset) return;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  isQuiet(): boolean {
    return this.waiting === 0;
  }

  scrub(): void {
    this.reset();
    this.buffer = new Uint8Array(0);
    this.#memory.fill(0);
  }

  get #plugged(): DevicePort {
    if (!this.#port) throw notPlugged();
    return this.#port;
  }

  #gather(step: EngineStep & { do: "gather" }): EngineResult {
    const segments = widened(step);
    const buffer = new Uint8Array(totalOf(segments));
    const moved = this.#each(segments, (address, at, length) => this.read(address, buffer.subarray(at, at + length)));
    this.buffer = buffer;
    return { step, ...moved };
  }

  #scatter(step: EngineStep & { do: "scatter" }): EngineResult {
    const segments = widened(step);
    const given = step.bytes ?? this.buffer;
    // What it has no bytes for it fills with junk, as a device does that runs past its end.
    const bytes = new Uint8Array(totalOf(segments)).fill(0xee);
    bytes.set(given.subarray(0, bytes.length));
    return {
      step,
      ...this.#each(segments, (address, at, length) => this.write(address, bytes.subarray(at, at + length))),
    };
  }

  #each(
    segments: readonly EngineSegment[],
    move: (address: DmaAddr, at: number, length: number) => boolean,
  ): { ok: boolean; bytes: number } {
    let bytes = 0;
    for (const { address, length } of segments) {
      if (!move(address, bytes, length)) return { ok: false, bytes };
      bytes += length;
    }
    return { ok: true, bytes };
  }
}

const totalOf = (segments: readonly EngineSegment[]): number => segments.reduce((sum, { length }) => sum + length, 0);

/** The segments of a step, the last one longer by what it goes beyond. */
function widened(step: { readonly segments: readonly EngineSegment[]; readonly beyond?: number }): EngineSegment[] {
  const { segments, beyond = 0 } = step;
  return segments.map((segment, i) =>
    i === segments.length - 1 ? { ...segment, length: segment.length + beyond } : segment,
  );
}

/** A port straight to a unit and memory, in a time of its own that nobody moves. */
function portThrough(
  requester: Requester,
  unit: RequestTranslator,
  memory: PhysicalMemory,
  onAccess: (access: DeviceAccess) => void,
): DevicePort {
  const transfer = (
    address: DmaAddr,
    bytes: Uint8Array,
    access: "read" | "write",
    move: (phys: PhysAddr, piece: Uint8Array) => void,
  ): boolean => {
    for (let at = 0; at < bytes.length; ) {
      const offset = (address + at) % PAGE_SIZE;
      const length = Math.min(PAGE_SIZE - offset, bytes.length - at);
      const page = unit.translate(requester, IovaPage.of((address + at) as DmaAddr), access);
      if (page >= 0) move(PhysAddr(page * PAGE_SIZE + offset), bytes.subarray(at, at + length));
      onAccess({ requester, address: address + at, length, access, wentThrough: page >= 0 });
      if (page < 0) return false;
      at += length;
    }
    return true;
  };
  return {
    requester,
    clock: new VirtualClock(),
    random: Random.fromSeed(requester),
    read: (address, into) => transfer(address, into, "read", (phys, piece) => memory.read(phys, piece)),
    write: (address, from) => transfer(address, from, "write", (phys, piece) => memory.write(phys, piece)),
    interrupt: () => {},
  };
}
