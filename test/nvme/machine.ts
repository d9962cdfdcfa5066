/**
 * A machine for NVMe tests: one or more controllers in slots, an IOMMU or none, and virtual time.
 */
import { Counters, MiB, type PhysAddr } from "../../src/base/index.ts";
import { Nvme, type NvmeOptions } from "../../src/consumers/nvme/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import {
  type BridgeDescription,
  NvmeController,
  type NvmeModelOptions,
  SimulatedHost,
  type SimulatedMachine,
  type SimulatedPciDevice,
  type SimulatedUnit,
} from "../../src/hosts/simulated/index.ts";
import type { DmaDomain } from "../../src/iommu/index.ts";
import type { HostBuffer, HostMemory } from "../../src/platform/index.ts";

export type Mode =
  | "strict"
  | "lazy"
  | "direct"
  | "bounced"
  | "confidential"
  | "non-coherent"
  | "non-coherent, strict"
  | "VT-d to the bit, lazy"
  | "VT-d to the bit, strict";
export const MODES: readonly Mode[] = [
  "strict",
  "lazy",
  "direct",
  "bounced",
  "confidential",
  "non-coherent",
  "non-coherent, strict",
  "VT-d to the bit, lazy",
  "VT-d to the bit, strict",
];

export interface TestMachineOptions {
  readonly mode?: Mode;
  readonly seed?: number;
  readonly untrusted?: boolean;
  readonly bridges?: readonly BridgeDescription[];
}

/** A controller in its slot, with what its driver needs. */
export interface Plugged {
  readonly controller: NvmeController;
  readonly device: SimulatedPciDevice;
  readonly dma: Dma;
  readonly domain: DmaDomain | undefined;
}

export class TestMachine {
  readonly host: SimulatedHost;
  /** The hardware of {@link host}. */
  readonly machine: SimulatedMachine;
  readonly mode: Mode;
  /** Of the bounce pool. */
  readonly poolCounters: Counters = new Counters();
  readonly #untrusted: boolean;

  constructor(options: TestMachineOptions = {}) {
    const { mode = "strict", untrusted = false } = options;
    this.mode = mode;
    this.#untrusted = untrusted;
    const isTranslated = mode.endsWith("lazy") || mode.endsWith("strict");
    const needsPool = mode === "bounced" || mode === "confidential" || untrusted;
    this.host = new SimulatedHost({
      seed: options.seed ?? 1,
      memoryBytes: 512 * MiB,
      scattered: true,
      counters: this.poolCounters,
      coherent: !mode.startsWith("non-coherent"),
      ...(options.bridges && { bridges: options.bridges }),
      ...(needsPool && { pool: { slots: 8192 } }),
      ...(mode === "confidential" && { confidential: "refused" as const }),
      ...(isTranslated && {
        iommu: { mode: mode.endsWith("lazy") ? "lazy" : "strict", unit: mode.startsWith("VT-d") ? "vt-d" : "tables" },
      }),
    });
    this.machine = this.host.machine;
  }

  /** The unit that is driven by calls. */
  get unit(): SimulatedUnit {
    return this.host.tablesUnit!;
  }

  /** Requests that an IOMMU has refused. */
  get faults(): number {
    return this.host.faults;
  }

  get clock(): SimulatedMachine["clock"] {
    return this.machine.clock;
  }

  run<T>(promise: Promise<T>): Promise<T> {
    return this.clock.run(promise);
  }

  plug(slot = "0.0", options: Partial<NvmeModelOptions> = {}): Plugged {
    const controller = new NvmeController({ namespaces: [{ blocks: 1 << 20 }], ...options });
    const [plugged] = this.machine.plug(slot, controller);
    const limits = { forceBounce: this.mode === "bounced", untrusted: this.#untrusted };
    const { device, dma, domain } = this.host.openDevice(plugged!.name, { counters: new Counters(), limits });
    return { controller, device, dma, domain };
  }

  open({ device, dma }: Plugged, options: Partial<NvmeOptions> = {}): Promise<Nvme> {
    return this.run(Nvme.open(device, dma, { clock: this.clock, ...options }));
  }

  /** `pages` pages that lie apart, in random order. */
  scattered(pages: number): ScatteredBuffer {
    const random = this.machine.random.fork(`buffer ${pages}`);
    const order = random.shuffle(Array.from({ length: pages }, (_, i) => i));
    return new ScatteredBuffer(
      this.machine.ram,
      order.map((page) => page * 8192),
    );
  }
}

/** Pages of one allocation that are not adjacent; as a list of vectors, and as bytes one after the other. */
export class ScatteredBuffer {
  readonly vecs: { phys: PhysAddr; length: number }[];
  readonly #buffer: HostBuffer;
  readonly #offsets: readonly number[];

  constructor(memory: HostMemory, offsets: readonly number[]) {
    this.#buffer = memory.allocate(offsets.length * 8192);
    this.#offsets = offsets;
    this.vecs = offsets.map((offset) => ({ phys: (this.#buffer.phys + offset) as PhysAddr, length: 4096 }));
  }

  fill(byteAt: (i: number) => number): this {
    this.#offsets.forEach((offset, page) => {
      for (let i = 0; i < 4096; i++) this.#buffer.bytes[offset + i] = byteAt(page * 4096 + i);
    });
    return this;
  }

  get bytes(): Uint8Array {
    const all = new Uint8Array(this.#offsets.length * 4096);
    this.#offsets.forEach((offset, page) => {
      all.set(this.#buffer.bytes.subarray(offset, offset + 4096), page * 4096);
    });
    return all;
  }

  free(): void {
    this.#buffer.free();
  }
}
