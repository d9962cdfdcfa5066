/**
 * A run of NVMe disks: the driver that ships, on controllers that go wrong on purpose, with every promise checked.
 *
 * The oracles are those of any run: a shadow of every block, compared whenever a read resolves; no access of a controller
 * after its mapping was torn down and flushed, however late it is (disks.ts); and all given back at the end. A write that
 * failed or was given up may have reached the disk or not: its blocks are anything until they are written again.
 */
import { pattern } from "../bytes.ts";
import { Broken, type RunOptions, type RunResult, type Violation, violationOf } from "../scenario.ts";
import { type Disk, Disks } from "./disks.ts";
import { HostMemory } from "./host-memory.ts";
import { BLOCK, DISK_BLOCKS, type NvmePlan, type NvmeStep } from "./plan.ts";
import { isFree, Transfers } from "./transfers.ts";

export async function runNvme(plan: NvmePlan, options: RunOptions = {}): Promise<RunResult> {
  const run = new NvmeRun(plan, options);
  return run.all();
}

class NvmeRun {
  readonly #plan: NvmePlan;
  readonly #disks: Disks;
  readonly #memory: HostMemory;
  readonly #transfers: Transfers;
  #events = 0;
  #bytes = 0;

  constructor(plan: NvmePlan, options: RunOptions) {
    this.#plan = plan;
    this.#disks = new Disks(plan, options, (broken) => this.#transfers.fail(broken));
    this.#memory = new HostMemory(this.#disks.machine);
    this.#transfers = new Transfers(this.#disks.machine.clock);
  }

  async all(): Promise<RunResult> {
    let step = 0;
    let violation: Violation | undefined;
    try {
      for (let i = 0; i < this.#plan.config.disks; i++) await this.#disks.plug(i);
      for (; step < this.#plan.steps.length; step++) {
        await this.#step(this.#plan.steps[step]!);
        if (this.#transfers.failure !== undefined) throw this.#transfers.failure;
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
        return this.#write(this.#disks.at(step.disk), step.block, pattern(step.seed, step.blocks * BLOCK), step.ragged);
      case "read":
        return this.#read(this.#disks.at(step.disk), step.block, step.blocks, step.ragged);
      case "zero":
        return this.#zero(this.#disks.at(step.disk), step.block, step.blocks);
      case "flush":
        return this.#transfers.start(
          this.#disks.at(step.disk),
          { block: 0, blocks: 0 },
          (disk) => disk.nvme.flush(),
          () => {},
        );
      case "copy":
        return this.#copy(step.block, step.to, step.blocks);
      case "give up":
        return this.#transfers.giveUp(step.nth);
      case "wait":
        return this.#pass(step.ms);
      case "settle":
        return this.#transfers.settle();
      case "reset":
        return this.#reset(this.#disks.at(step.disk));
      case "pull out":
        return this.#pullOut(step.disk);
    }
  }

  #write(disk: Disk, block: number, bytes: Uint8Array, ragged: boolean): void {
    const blocks = bytes.length / BLOCK;
    const vecs = isFree(disk, block, blocks) ? this.#memory.take(bytes.length, ragged) : undefined;
    if (!vecs) return;
    this.#memory.write(vecs, bytes);
    this.#transfers.start(
      disk,
      { block, blocks },
      ({ nvme }, signal) => nvme.write(block, vecs, { signal }),
      (ok) => {
        this.#memory.giveBack(vecs);
        disk.unknown.fill(ok ? 0 : 1, block, block + blocks);
        disk.shadow.set(bytes, block * BLOCK);
        if (ok) this.#bytes += bytes.length;
      },
    );
  }

  #read(disk: Disk, block: number, blocks: number, ragged: boolean): void {
    const vecs = isFree(disk, block, blocks) ? this.#memory.take(blocks * BLOCK, ragged) : undefined;
    if (!vecs) return;
    this.#memory.write(vecs, pattern(99, blocks * BLOCK));
    this.#transfers.start(
      disk,
      { block, blocks },
      ({ nvme }, signal) => nvme.read(block, vecs, { signal }),
      (ok) => {
        const found = this.#memory.read(vecs, blocks * BLOCK);
        this.#memory.giveBack(vecs);
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
    this.#transfers.start(
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
    const [from, target] = this.#disks.all;
    if (!from?.lent || !target || from.gone || target.gone) return;
    await this.#transfers.settle();
    const vecs = [from.lent.vec(0, blocks * BLOCK)];
    this.#transfers.start(
      from,
      { block, blocks },
      ({ nvme }) => nvme.read(block, vecs),
      (ok) => {
        if (!ok || from.gone) return;
        const bytes = from.shadow.slice(block * BLOCK, (block + blocks) * BLOCK);
        const unknown = from.unknown.slice(block, block + blocks);
        this.#transfers.start(
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
    await this.#transfers.settle();
  }

  async #pass(ms: number): Promise<void> {
    const { clock } = this.#disks.machine;
    await clock.run(new Promise<void>((resolve) => void clock.after(ms, resolve)));
  }

  async #reset({ nvme }: Disk): Promise<void> {
    await this.#disks.machine.clock.run(nvme.reset().catch(() => {}));
  }

  async #pullOut(index: number): Promise<void> {
    const disk = this.#disks.at(index);
    // Whoever uses its memory is done first: what memory that is gone reads as is nobody's promise.
    if (disk.lent) await this.#transfers.settle();
    this.#disks.pullOut(disk);
    await this.#transfers.settle();
    await this.#disks.release(disk);
    await this.#disks.plug(index);
  }

  async #end(): Promise<void> {
    await this.#transfers.settle();
    if (this.#transfers.failure !== undefined) throw this.#transfers.failure;
    for (const disk of this.#disks.all) {
      if (!disk.gone) this.#read(disk, 0, DISK_BLOCKS / 8, false);
      await this.#transfers.settle();
      await this.#disks.release(disk);
      if (this.#transfers.failure !== undefined) throw this.#transfers.failure;
    }
    await this.#pass(1000);
    const leaks = this.#disks.machine.leaks().filter((leak) => !leak.startsWith("timers"));
    if (leaks.length > 0) throw new Broken("leak", `at the end: ${leaks.join("; ")}`);
  }
}
