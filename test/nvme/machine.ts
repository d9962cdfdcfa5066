/**
 * A machine for NVMe tests: one or more controllers in slots, an IOMMU or none, and virtual time.
 */
import { Counters, MiB, type PhysAddr, type PhysPage } from "../../src/base/index.ts";
import { Nvme, type NvmeOptions } from "../../src/consumers/nvme/index.ts";
import { Dma } from "../../src/dma/index.ts";
import {
  type BridgeDescription,
  NvmeController,
  type NvmeControllerOptions,
  SimulatedMachine,
  type SimulatedPciDevice,
  SimulatedUnit,
} from "../../src/hosts/simulated/index.ts";
import { SimulatedVtdUnit } from "../../src/hosts/simulated/units/vtd/index.ts";
import { DmaDomain, VtdUnit } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
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
  readonly machine: SimulatedMachine;
  /** The IOMMU that is driven by calls. */
  readonly unit: SimulatedUnit = new SimulatedUnit();
  /** The one that is driven by registers and queues, and its driver. */
  readonly vtd: { readonly hardware: SimulatedVtdUnit; readonly unit: VtdUnit; readonly memory: Arena } | undefined;
  readonly mode: Mode;
  /** Of the bounce pool. */
  readonly poolCounters: Counters = new Counters();
  readonly #untrusted: boolean;
  #domains = 0;

  constructor(options: TestMachineOptions = {}) {
    this.mode = options.mode ?? "strict";
    this.#untrusted = options.untrusted ?? false;
    this.machine = new SimulatedMachine({
      seed: options.seed ?? 1,
      memoryBytes: 512 * MiB,
      scattered: true,
      counters: this.poolCounters,
      ...(options.bridges && { bridges: options.bridges }),
      ...((this.mode === "bounced" || this.mode === "confidential" || this.#untrusted) && { pool: { slots: 8192 } }),
      ...(this.mode === "confidential" && { confidential: "refused" as const }),
      coherent: this.#coherent,
      ...(this.#translated && { translator: this.unit }),
    });
    if (this.mode.startsWith("VT-d")) {
      const { clock } = this.machine;
      const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
      const hardware = new SimulatedVtdUnit({ memory, clock });
      this.vtd = { hardware, memory, unit: new VtdUnit({ registers: hardware, memory, clock }) };
      this.machine.fabric.translator = hardware;
    }
  }

  /** Requests that an IOMMU has refused. */
  get faults(): number {
    this.vtd?.unit.readFaults();
    return this.unit.faults.length + (this.vtd?.unit.faults.length ?? 0);
  }

  get #translated(): boolean {
    return this.mode.endsWith("lazy") || this.mode.endsWith("strict");
  }

  get #coherent(): boolean {
    return !this.mode.startsWith("non-coherent");
  }

  get clock(): SimulatedMachine["clock"] {
    return this.machine.clock;
  }

  run<T>(promise: Promise<T>): Promise<T> {
    return this.clock.run(promise);
  }

  plug(slot = "0.0", options: Partial<NvmeControllerOptions> = {}): Plugged {
    const controller = new NvmeController({ namespaces: [{ blocks: 1 << 20 }], ...options });
    const device = this.machine.plug(slot, controller)[0]!;
    const domain = this.#translated
      ? new DmaDomain({
          layout: vtdSecondStage(),
          unit: this.vtd?.unit ?? this.unit,
          clock: this.clock,
          mode: this.mode.endsWith("lazy") ? "lazy" : "strict",
          ...(this.vtd && { tableMemory: this.vtd.memory }),
          domainId: ++this.#domains,
        })
      : undefined;
    if (domain) (this.vtd?.unit ?? this.unit).attach(device.requester, domain.tables);
    const dma = new Dma({
      name: device.name,
      node: device.node,
      machine: this.machine,
      ...(domain && { domain }),
      forceBounce: this.mode === "bounced",
      coherent: this.#coherent,
      untrusted: this.#untrusted,
    });
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
