/**
 * The machine of a run and the disks in its slots: each a controller that goes wrong on purpose, the driver that ships, and
 * a shadow of every block.
 *
 * Two oracles stand here: no access of a controller after its mapping was torn down and flushed, however late it is; and a
 * disk that is closed holds nothing.
 */
import { type IovaPage, MiB, PAGE_SIZE, Random } from "../../base/index.ts";
import { Nvme, type PeerMemory } from "../../consumers/nvme/index.ts";
import { Dma } from "../../dma/index.ts";
import {
  CMB_BAR,
  NvmeController,
  randomFaults,
  SimulatedHost,
  type SimulatedMachine,
  type SimulatedPciDevice,
  SimulatedUnit,
} from "../../hosts/simulated/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { methodsOf } from "../observers.ts";
import { Broken, type RunOptions } from "../scenario.ts";
import { BLOCK, DISK_BLOCKS, type NvmeConfig, type NvmePlan } from "./plan.ts";

const SLOTS = ["0.0.0", "0.0.1"] as const;

export interface Disk {
  readonly index: number;
  readonly device: SimulatedPciDevice;
  readonly controller: NvmeController;
  readonly domain: DmaDomain | undefined;
  readonly dma: Dma;
  readonly nvme: Nvme;
  readonly lent: PeerMemory | undefined;
  readonly shadow: Uint8Array;
  /** Blocks that are anything: 1. */
  readonly unknown: Uint8Array;
  /** Blocks that a transfer is about. */
  readonly taken: Uint8Array;
  gone: boolean;
}

/** The address space of a requester, and its pages that were torn down and not flushed since. */
interface Space {
  readonly domain: DmaDomain;
  readonly stale: Set<number>;
}

export class Disks {
  readonly host: SimulatedHost;
  /** The hardware of {@link host}. */
  readonly machine: SimulatedMachine;
  readonly #config: NvmeConfig;
  readonly #options: RunOptions;
  readonly #unit = new SimulatedUnit();
  readonly #inSlot: Disk[] = [];
  readonly #spaces = new Map<number, Space>();
  readonly #faults: Random;
  readonly #onBroken: (broken: Broken) => void;
  #domains = 0;

  /** The slots are empty at first. `onBroken` hears of accesses that should not have gone through. */
  constructor(plan: NvmePlan, options: RunOptions, onBroken: (broken: Broken) => void) {
    this.#config = plan.config;
    this.#options = options;
    this.#onBroken = onBroken;
    this.#faults = Random.fromSeed(plan.seed).fork("controllers");
    const { mode } = plan.config;
    this.host = new SimulatedHost({
      seed: plan.seed,
      memoryBytes: 256 * MiB,
      scattered: true,
      coherent: mode !== "non-coherent",
      bridges: [{ rootPorts: [{ switch: [{}, {}] }] }],
      ...(mode === "bounced" && { pool: { slots: 8192 } }),
      ...(options.observer && { observer: options.observer }),
    });
    this.machine = this.host.machine;
    if (this.#translated)
      this.machine.fabric.translator = {
        translate: (requester, page, access) => {
          const found = this.#unit.translate(requester, page, access);
          if (found >= 0) this.#accessed(requester, page, access);
          return found;
        },
      };
  }

  get #translated(): boolean {
    return this.#config.mode === "strict" || this.#config.mode === "lazy";
  }

  get all(): readonly Disk[] {
    return this.#inSlot;
  }

  at(index: number): Disk {
    return this.#inSlot[index]!;
  }

  /** Puts a new disk into a slot, and opens it. */
  async plug(index: number): Promise<void> {
    const { mode, faults, transferShift, sgls, lendsMemory, queues } = this.#config;
    const odds = (name: NvmeConfig["faults"][number], perThousand: number): number =>
      faults.includes(name) ? perThousand : 0;
    const controller = new NvmeController({
      namespaces: [{ blocks: DISK_BLOCKS }],
      vectors: queues + 1,
      maxTransferShift: transferShift,
      sgls: sgls ? 1 : 0,
      cmbBytes: lendsMemory && index === 0 ? MiB : 0,
      faults: randomFaults(this.#faults.fork(`disk ${this.#domains}`), {
        lost: odds("lost completion", 20),
        late: odds("late completion", 20),
        slow: odds("slow command", 60),
        status: odds("bad status", 40),
        "transfer-error": odds("transfer error", 30),
        duplicate: odds("duplicate completion", 20),
      }),
    });
    const device = this.machine.plug(SLOTS[index]!, controller)[0]!;
    const stale = new Set<number>();
    const { observer, parts } = this.#options;
    const domain = this.#translated
      ? new DmaDomain({
          layout: vtdSecondStage(),
          unit: parts?.unit?.(this.#unit) ?? this.#unit,
          clock: this.machine.clock,
          mode: mode === "lazy" ? "lazy" : "strict",
          domainId: ++this.#domains,
          observer: {
            ...methodsOf(observer),
            unmapped: (iova, length, bytes) => {
              if (mode === "lazy") for (let at = 0; at < length; at += PAGE_SIZE) stale.add((iova + at) / PAGE_SIZE);
              observer?.unmapped?.(iova, length, bytes);
            },
            domainInvalidated: () => {
              stale.clear();
              observer?.domainInvalidated?.();
            },
          },
        })
      : undefined;
    if (domain) {
      this.#unit.attach(device.requester, domain.tables);
      this.#spaces.set(device.requester, { domain, stale });
    }
    const dma = new Dma({
      name: device.name,
      node: device.node,
      machine: this.host.dmaMachine,
      coherent: mode !== "non-coherent",
      forceBounce: mode === "bounced",
      mask: faults.includes("IOVA exhaustion") ? 4 * MiB - 1 : 2 ** 48 - 1,
      ...(domain && { domain }),
      ...(observer && { observer }),
    });
    const nvme = await this.machine.clock.run(
      Nvme.open(device, dma, { clock: this.machine.clock, timeoutMs: 50, retries: 2, queues }),
    );
    const bar = device.node.bars.find((one) => one.index === CMB_BAR);
    const lent = bar && nvme.lendMemory(bar);
    this.#inSlot[index] = {
      index,
      device,
      controller,
      domain,
      dma,
      nvme,
      lent,
      shadow: new Uint8Array(DISK_BLOCKS * BLOCK),
      unknown: new Uint8Array(DISK_BLOCKS),
      taken: new Uint8Array(DISK_BLOCKS),
      gone: false,
    };
  }

  /** From here on the disk is gone; what is under way on it fails. */
  pullOut(disk: Disk): void {
    disk.gone = true;
    this.machine.unplug(disk.device.node);
  }

  /** Closes the driver of a disk, which must hold nothing then. */
  async release(disk: Disk): Promise<void> {
    disk.lent?.[Symbol.dispose]();
    await this.machine.clock.run(disk.nvme.close());
    const { commands, descriptors, records } = disk.nvme.inUse;
    if (commands + descriptors + records > 0)
      throw new Broken(
        "leak",
        `a closed disk holds ${commands} commands, ${descriptors} descriptors, ${records} records`,
      );
    const { counters } = disk.dma;
    const held = counters.iovaAllocations - counters.iovaFrees + counters.leavesWritten - counters.leavesCleared;
    if (held !== 0) throw new Broken("leak", `a closed disk holds ${held} reservations and entries`);
    if (!disk.domain) return;
    this.#unit.detach(disk.device.requester);
    disk.domain.destroy();
  }

  /** Every access that the unit let through: the page must be mapped, or torn down lazily and not flushed. */
  #accessed(requester: number, page: IovaPage, access: "read" | "write"): void {
    const space = this.#spaces.get(requester);
    if (!space || space.domain.table.lookup(page) >= 0 || space.stale.has(page)) return;
    this.#onBroken(
      new Broken(
        "teardown",
        `a ${access} of page 0x${page.toString(16)} went through, though nothing is mapped there and everything was flushed`,
      ),
    );
  }
}
