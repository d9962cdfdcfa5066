/**
 * A run of NVMe disks: the driver that ships, on controllers that go wrong on purpose, with every promise checked.
 *
 * The oracles are those of any run: a shadow of every block, compared whenever a read resolves; no access of a controller
 * after its mapping was torn down and flushed, however late it is; and all given back at the end. A write that failed or
 * was given up may have reached the disk or not: its blocks are anything until they are written again.
 */
import { DmaError, type IovaPage, KiB, MiB, PAGE_SIZE, type PhysAddr, Random } from "../../base/index.ts";
import { Nvme, type PeerMemory } from "../../consumers/nvme/index.ts";
import { Dma, type PhysVec } from "../../dma/index.ts";
import {
  CMB_BAR,
  NvmeController,
  randomFaults,
  SimulatedMachine,
  type SimulatedPciDevice,
  SimulatedUnit,
} from "../../hosts/simulated/index.ts";
import { IommuDomain } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { DISK_BLOCKS, type NvmeConfig, type NvmePlan, type NvmeStep } from "./nvme-plan.ts";
import { Broken, type RunOptions, type RunResult, type Violation, violationOf } from "./scenario.ts";

const BLOCK = 512;
const SLOTS = ["0.0.0", "0.0.1"] as const;

interface Disk {
  readonly index: number;
  readonly device: SimulatedPciDevice;
  readonly controller: NvmeController;
  readonly domain: IommuDomain | undefined;
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

/** A transfer under way. */
interface Transfer {
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

export async function runNvme(plan: NvmePlan, options: RunOptions = {}): Promise<RunResult> {
  const run = new NvmeRun(plan, options);
  return run.all();
}

class NvmeRun {
  readonly #plan: NvmePlan;
  readonly #config: NvmeConfig;
  readonly #machine: SimulatedMachine;
  readonly #unit = new SimulatedUnit();
  readonly #options: RunOptions;
  readonly #disks: Disk[] = [];
  readonly #transfers: Transfer[] = [];
  /** The address space of each requester, and its pages that were torn down and not flushed since. */
  readonly #spaces = new Map<number, { readonly domain: IommuDomain; readonly stale: Set<number> }>();
  readonly #faults: Random;
  #failure: unknown;
  #events = 0;
  #bytes = 0;
  #domains = 0;

  constructor(plan: NvmePlan, options: RunOptions) {
    this.#plan = plan;
    this.#config = plan.config;
    this.#options = options;
    this.#faults = Random.fromSeed(plan.seed).fork("controllers");
    const { mode } = plan.config;
    this.#machine = new SimulatedMachine({
      seed: plan.seed,
      memoryBytes: 256 * MiB,
      scattered: true,
      coherent: mode !== "non-coherent",
      bridges: [{ rootPorts: [{ switch: [{}, {}] }] }],
      ...(mode === "bounced" && { pool: { slots: 8192 } }),
      ...(options.observer && { observer: options.observer }),
    });
    if (this.#translated)
      this.#machine.fabric.translator = {
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

  async all(): Promise<RunResult> {
    let step = 0;
    let violation: Violation | undefined;
    try {
      for (let i = 0; i < this.#config.disks; i++) await this.#plug(i);
      for (; step < this.#plan.steps.length; step++) {
        await this.#step(this.#plan.steps[step]!);
        if (this.#failure !== undefined) throw this.#failure;
      }
      await this.#end();
    } catch (error) {
      violation = violationOf(error, step);
    }
    return { events: this.#events, violation, bytesMoved: this.#bytes };
  }

  async #step(step: NvmeStep): Promise<void> {
    this.#events++;
    switch (step.do) {
      case "write":
        return this.#write(this.#disks[step.disk]!, step.block, pattern(step.seed, step.blocks * BLOCK), step.ragged);
      case "read":
        return this.#read(this.#disks[step.disk]!, step.block, step.blocks, step.ragged);
      case "zero":
        return this.#zero(this.#disks[step.disk]!, step.block, step.blocks);
      case "flush":
        return this.#start(
          this.#disks[step.disk]!,
          undefined,
          (disk) => disk.nvme.flush(),
          () => {},
        );
      case "copy":
        return this.#copy(step.block, step.to, step.blocks);
      case "give up":
        return this.#transfers[step.nth]?.abort.abort(new Error("given up"));
      case "wait":
        return this.#pass(step.ms);
      case "settle":
        return this.#settle();
      case "reset":
        await this.#machine.clock.run(this.#disks[step.disk]!.nvme.reset().catch(() => {}));
        return undefined;
      case "pull out":
        return this.#pullOut(step.disk);
    }
  }

  // Transfers.

  /** Starts a transfer of blocks that no other is about; `then` is told how it went. Does not wait for it. */
  #start(
    disk: Disk,
    range: { readonly block: number; readonly blocks: number } | undefined,
    work: (disk: Disk, signal: AbortSignal) => Promise<void>,
    then: (ok: boolean) => void,
  ): void {
    const { block, blocks } = range ?? { block: 0, blocks: 0 };
    if (!isFree(disk, block, blocks)) return;
    disk.taken.fill(1, block, block + blocks);
    const abort = new AbortController();
    const finish = (ok: boolean, error?: unknown): void => {
      disk.taken.fill(0, block, block + blocks);
      const at = this.#transfers.indexOf(transfer);
      if (at >= 0) this.#transfers.splice(at, 1);
      try {
        if (error !== undefined && !isExpected(error)) throw error;
        then(ok);
      } catch (problem) {
        this.#failure ??= problem;
      }
    };
    const done = work(disk, abort.signal).then(
      () => finish(true),
      (error: unknown) => finish(false, error),
    );
    const transfer: Transfer = { abort, done };
    this.#transfers.push(transfer);
  }

  #write(disk: Disk, block: number, bytes: Uint8Array, ragged: boolean): void {
    const blocks = bytes.length / BLOCK;
    const vecs = isFree(disk, block, blocks) ? this.#memory(bytes.length, ragged) : undefined;
    if (!vecs) return;
    this.#put(vecs, bytes);
    this.#start(
      disk,
      { block, blocks },
      ({ nvme }, signal) => nvme.write(block, vecs, { signal }),
      (ok) => {
        this.#free(vecs);
        disk.unknown.fill(ok ? 0 : 1, block, block + blocks);
        disk.shadow.set(bytes, block * BLOCK);
        if (ok) this.#bytes += bytes.length;
      },
    );
  }

  #read(disk: Disk, block: number, blocks: number, ragged: boolean): void {
    const vecs = isFree(disk, block, blocks) ? this.#memory(blocks * BLOCK, ragged) : undefined;
    if (!vecs) return;
    this.#put(vecs, pattern(99, blocks * BLOCK));
    this.#start(
      disk,
      { block, blocks },
      ({ nvme }, signal) => nvme.read(block, vecs, { signal }),
      (ok) => {
        const found = this.#get(vecs, blocks * BLOCK);
        this.#free(vecs);
        if (!ok) return;
        this.#bytes += found.length;
        this.#compare(disk, block, found);
      },
    );
  }

  #compare(disk: Disk, block: number, found: Uint8Array): void {
    const at = found.findIndex((byte, i) => {
      const where = block * BLOCK + i;
      return disk.unknown[Math.floor(where / BLOCK)] === 0 && byte !== disk.shadow[where];
    });
    if (at >= 0)
      throw new Broken(
        "bytes",
        `block ${block + Math.floor(at / BLOCK)} of disk ${disk.index} reads ${found[at]} at byte ${at % BLOCK}, not ${disk.shadow[block * BLOCK + at]}`,
      );
  }

  #zero(disk: Disk, block: number, blocks: number): void {
    this.#start(
      disk,
      { block, blocks },
      ({ nvme }) => nvme.disk.writeZeroes(block, blocks),
      (ok) => {
        disk.unknown.fill(ok ? 0 : 1, block, block + blocks);
        disk.shadow.fill(0, block * BLOCK, (block + blocks) * BLOCK);
      },
    );
  }

  /** Through memory of the first disk: below one switch nothing is mapped for it. */
  async #copy(block: number, to: number, blocks: number): Promise<void> {
    const [from, target] = this.#disks;
    if (!from?.lent || !target || from.gone || target.gone) return;
    await this.#settle();
    const vecs = [from.lent.vec(0, blocks * BLOCK)];
    this.#start(
      from,
      { block, blocks },
      ({ nvme }) => nvme.read(block, vecs),
      (ok) => {
        if (!ok || from.gone) return;
        const bytes = from.shadow.slice(block * BLOCK, (block + blocks) * BLOCK);
        const unknown = from.unknown.slice(block, block + blocks);
        this.#start(
          target,
          { block: to, blocks },
          ({ nvme }) => nvme.write(to, vecs),
          (written) => {
            target.shadow.set(bytes, to * BLOCK);
            if (written) target.unknown.set(unknown, to);
            else target.unknown.fill(1, to, to + blocks);
          },
        );
      },
    );
    await this.#settle();
  }

  async #settle(): Promise<void> {
    while (this.#transfers.length > 0 && this.#failure === undefined)
      await this.#machine.clock.run(Promise.all(this.#transfers.map(({ done }) => done)).then(() => {}));
  }

  async #pass(ms: number): Promise<void> {
    const { clock } = this.#machine;
    await clock.run(new Promise<void>((resolve) => void clock.after(ms, resolve)));
  }

  // Memory of the host.

  /** Pages here and there, or pieces that start and end anywhere in steps of 4 bytes. undefined if there is none. */
  #memory(length: number, ragged: boolean): PhysVec[] | undefined {
    const vecs: PhysVec[] = [];
    const piece = ragged ? 3 * KiB : PAGE_SIZE;
    for (let at = 0; at < length; at += piece) {
      const page = this.#machine.pages.allocatePages(1);
      if (page === undefined) {
        this.#free(vecs);
        return undefined;
      }
      const inside = ragged ? 512 : 0;
      vecs.push({ phys: (page * PAGE_SIZE + inside) as PhysAddr, length: Math.min(piece, length - at) });
    }
    return vecs;
  }

  #free(vecs: readonly PhysVec[]): void {
    for (const { phys } of vecs) this.#machine.pages.freePages(Math.floor(phys / PAGE_SIZE) as never, 1);
  }

  #put(vecs: readonly PhysVec[], bytes: Uint8Array): void {
    let at = 0;
    for (const { phys, length } of vecs) {
      this.#machine.memory.write(phys, bytes.subarray(at, at + length));
      at += length;
    }
  }

  #get(vecs: readonly PhysVec[], length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const vec of vecs) {
      this.#machine.memory.read(vec.phys, bytes.subarray(at, at + vec.length));
      at += vec.length;
    }
    return bytes;
  }

  // Disks.

  async #plug(index: number): Promise<void> {
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
    const device = this.#machine.plug(SLOTS[index]!, controller)[0]!;
    const stale = new Set<number>();
    const { observer, parts } = this.#options;
    const domain = this.#translated
      ? new IommuDomain({
          layout: vtdSecondStage(),
          unit: parts?.unit?.(this.#unit) ?? this.#unit,
          clock: this.#machine.clock,
          mode: mode === "lazy" ? "lazy" : "strict",
          domainId: ++this.#domains,
          observer: {
            unmapped: (iova, length) => {
              if (mode === "lazy") for (let at = 0; at < length; at += PAGE_SIZE) stale.add((iova + at) / PAGE_SIZE);
              observer?.unmapped?.(iova, length, length);
            },
            domainInvalidated: () => stale.clear(),
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
      machine: this.#machine,
      coherent: mode !== "non-coherent",
      forceBounce: mode === "bounced",
      mask: faults.includes("IOVA exhaustion") ? 4 * MiB - 1 : 2 ** 48 - 1,
      ...(domain && { domain }),
      ...(observer && { observer }),
    });
    const nvme = await this.#machine.clock.run(
      Nvme.open(device, dma, { clock: this.#machine.clock, timeoutMs: 50, retries: 2, queues }),
    );
    const bar = device.node.bars.find((one) => one.index === CMB_BAR);
    const lent = bar && nvme.lendMemory(bar);
    this.#disks[index] = {
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

  async #pullOut(index: number): Promise<void> {
    const disk = this.#disks[index]!;
    // Whoever uses its memory is done first: what memory that is gone reads as is nobody's promise.
    if (disk.lent) await this.#settle();
    disk.gone = true;
    this.#machine.unplug(disk.device.node);
    await this.#settle();
    await this.#release(disk);
    await this.#plug(index);
  }

  async #release(disk: Disk): Promise<void> {
    disk.lent?.[Symbol.dispose]();
    await this.#machine.clock.run(disk.nvme.close());
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
    this.#failure ??= new Broken(
      "teardown",
      `a ${access} of page 0x${page.toString(16)} went through, though nothing is mapped there and everything was flushed`,
    );
  }

  async #end(): Promise<void> {
    await this.#settle();
    if (this.#failure !== undefined) throw this.#failure;
    for (const disk of this.#disks) {
      if (!disk.gone) this.#read(disk, 0, DISK_BLOCKS / 8, false);
      await this.#settle();
      await this.#release(disk);
      if (this.#failure !== undefined) throw this.#failure;
    }
    await this.#pass(1000);
    const leaks = this.#machine.leaks().filter((leak) => !leak.startsWith("timers"));
    if (leaks.length > 0) throw new Broken("leak", `at the end: ${leaks.join("; ")}`);
  }
}

/** Nobody else is about these blocks, and the disk is there. */
const isFree = (disk: Disk, block: number, blocks: number): boolean =>
  !disk.gone && !disk.taken.subarray(block, block + blocks).includes(1);

/** What a transfer may answer on a machine on which things go wrong. */
function isExpected(error: unknown): boolean {
  return error instanceof DmaError || (error instanceof Error && error.message === "given up");
}

function pattern(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (seed + 7 * i + 13 * (i >> 8)) & 255;
  return bytes;
}
