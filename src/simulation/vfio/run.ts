/**
 * A run of a guest that devices are given to: its memory is plugged and unplugged, its devices come, go and are pulled out, its process forks and
 * hands over, and it moves to other hosts.
 *
 * Oracles, after every step: each page is reached by a device exactly if it is plugged for it, and then it is the process's own page (teardown);
 * what devices and processors read is what a shadow of the guest's memory says, also on the host it has moved to (bytes); as many pages
 * are charged as are mapped (leak); at the end, and on every host that it left, nothing is pinned, charged, mapped or held (leak).
 */
import { DmaError, PAGE_SIZE, Random } from "../../base/index.ts";
import {
  DirtyBitmap,
  type DirtySource,
  deviceLogSource,
  iommuSource,
  type MovableMachine,
  MoveSource,
  MoveTarget,
  RamLayout,
} from "../../consumers/vfio/index.ts";
import type { SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import { Broken, type RunOptions, type RunResult, violationOf } from "../scenario.ts";
import { linkPair } from "./link.ts";
import { Place } from "./place.ts";
import type { VfioPlan, VfioStep } from "./plan.ts";

/** Writes of devices and processors during a move, for each of its frames. */
const WRITES_PER_FRAME = 2;
/** Copies that the guest's own IOMMU has at most. */
const SLOTS = 16;

/** Runs a plan. */
export async function runVfio(plan: VfioPlan, options: RunOptions = {}): Promise<RunResult> {
  const run = new Run(plan, options);
  let step = 0;
  try {
    for (; step < plan.steps.length; step++) await run.step(plan.steps[step]!);
    run.end();
    return { events: run.events, violation: undefined, bytesMoved: run.bytesMoved };
  } catch (error) {
    return { events: run.events, violation: violationOf(error, step), bytesMoved: run.bytesMoved };
  }
}

class Run {
  events = 0;
  bytesMoved = 0;
  readonly #plan: VfioPlan;
  readonly #options: RunOptions;
  readonly #pages: number;
  /** What the guest's memory holds. */
  readonly #shadow: Uint8Array;
  readonly #plugged = new Set<number>();
  /** Pages of the guest at slots of its own IOMMU. */
  readonly #copies = new Map<number, number>();
  #children: SimulatedProcess[] = [];
  #place: Place;
  #moves = 0;
  /** Pages that processors and the second device wrote since they were told; undefined: nobody asks. */
  #written: DirtyBitmap | undefined;

  constructor(plan: VfioPlan, options: RunOptions) {
    this.#plan = plan;
    this.#options = options;
    this.#pages = plan.config.blocks * plan.config.blockPages;
    this.#shadow = new Uint8Array(this.#pages * PAGE_SIZE);
    this.#place = new Place(plan, options);
    this.#place.startReceiving();
  }

  async step(step: VfioStep): Promise<void> {
    const place = this.#place;
    switch (step.do) {
      case "plug":
        if (this.#plugged.has(step.block)) this.#refused("EEXIST", () => place.plug(step.block));
        else {
          place.plug(step.block);
          this.#plugged.add(step.block);
        }
        break;
      case "unplug":
        this.#unplug(step.block);
        break;
      case "device writes":
        this.#deviceWrites(step.device, step.page, step.seed);
        break;
      case "device reads":
        this.#deviceReads(step.device, step.page);
        break;
      case "processor writes":
        this.#processorWrites(step.page, step.seed);
        break;
      case "packets":
        for (let i = 0; i < step.count; i++) this.#packet();
        break;
      case "add device":
        if (place.hasSecond) return;
        place.addSecond();
        break;
      case "remove device":
      case "pull device":
        if (!place.hasSecond) return;
        place.removeSecond(step.do === "pull device");
        break;
      case "map too much":
        this.#refused("ENOMEM", () => place.mapTooMuch());
        break;
      case "cut a block":
        this.#cut(step.block);
        break;
      case "fork":
        this.#children.push(place.process.fork());
        break;
      case "child ends":
        this.#children.pop()?.exit();
        break;
      case "copy a page":
        this.#copy(step.page);
        break;
      case "drop the copies":
        this.#dropCopies(() => true);
        break;
      case "hand over":
        this.#handOver();
        break;
      case "migrate":
        await this.#migrate(step.cutAfterBytes);
        break;
    }
    this.events++;
    this.#look();
  }

  end(): void {
    this.#compareAll();
    this.#leave(this.#place);
  }

  #blockOf(page: number): number {
    return Math.floor(page / this.#plan.config.blockPages);
  }

  #isPlugged(page: number): boolean {
    return this.#plugged.has(this.#blockOf(page));
  }

  #bytesOf(page: number): Uint8Array {
    return this.#shadow.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  }

  #unplug(block: number): void {
    const place = this.#place;
    this.#dropCopies((page) => this.#blockOf(page) === block);
    const { blockPages } = this.#plan.config;
    const expected = this.#plugged.has(block) ? blockPages * PAGE_SIZE : 0;
    const bytes = place.unplug(block);
    if (bytes !== expected)
      throw new Broken("teardown", `unplugging block ${block} took back ${bytes} bytes and not ${expected}`);
    this.#plugged.delete(block);
    if (place.forgets) this.#shadow.fill(0, block * blockPages * PAGE_SIZE, (block + 1) * blockPages * PAGE_SIZE);
  }

  /** Where a device finds a page of the guest: undefined, nowhere. */
  #deviceAddress(device: 0 | 1, page: number): number | undefined {
    if (device === 0) return this.#isPlugged(page) ? page : undefined;
    if (!this.#place.hasSecond) return undefined;
    if (!this.#place.hasGuestIommu) return this.#isPlugged(page) ? page : undefined;
    for (const [slot, copied] of this.#copies) if (copied === page) return this.#place.copyPage(slot);
    return undefined;
  }

  /** The page of the machine that a device reaches, which must be the process's own if it may, and none if not. */
  #reach(device: 0 | 1, page: number, access: "read" | "write"): number {
    const address = this.#deviceAddress(device, page);
    const found = this.#place.reach(device, address ?? page, access);
    const what = `device ${device + 1} at page ${page}`;
    if (address === undefined) {
      if (found >= 0) throw new Broken("teardown", `${what} reaches page ${found}, where nothing is mapped for it`);
      return -1;
    }
    const expected = this.#place.pageOf(page);
    if (found !== expected)
      throw new Broken("teardown", `${what} reaches page ${found}, and the guest has ${expected}`);
    return found;
  }

  #deviceWrites(device: 0 | 1, page: number, seed: number): void {
    const found = this.#reach(device, page, "write");
    if (found < 0) return;
    const bytes = randomPage(seed);
    this.#place.dma(found, bytes, "write");
    this.#bytesOf(page).set(bytes);
    if (device === 1 || !this.#place.dirtyDomain) this.#written?.set(page, 1);
    this.bytesMoved += PAGE_SIZE;
  }

  #deviceReads(device: 0 | 1, page: number): void {
    const found = this.#reach(device, page, "read");
    if (found < 0) return;
    const bytes = new Uint8Array(PAGE_SIZE);
    this.#place.dma(found, bytes, "read");
    this.bytesMoved += PAGE_SIZE;
    compare(bytes, this.#bytesOf(page), `what device ${device + 1} read at page ${page}`);
  }

  #processorWrites(page: number, seed: number): void {
    // What is unplugged nobody touches.
    if (!this.#isPlugged(page)) return;
    const bytes = randomPage(seed + 1);
    this.#place.write(page, bytes);
    this.#bytesOf(page).set(bytes);
    this.#written?.set(page, 1);
  }

  /** A packet goes to the next page of the ring, which is all of the guest's memory. */
  #packet(): void {
    const { model } = this.#place.functions[0]!;
    const page = model.received % this.#pages;
    const packet = randomPage(model.received).subarray(0, 64);
    const isTaken = model.receive(packet);
    if (isTaken && !this.#isPlugged(page))
      throw new Broken("teardown", `a packet went to page ${page}, which is unplugged`);
    if (!isTaken && this.#isPlugged(page) && model.suspended === 0)
      throw new Broken("teardown", `a packet did not reach page ${page}`);
    if (isTaken) this.#bytesOf(page).set(packet);
  }

  #cut(block: number): void {
    const { blockPages } = this.#plan.config;
    if (!this.#plugged.has(block)) return;
    const iova = BigInt((block * blockPages + 1) * PAGE_SIZE);
    const errno = this.#place.hasGuestIommu ? "ENOENT" : "EINVAL";
    this.#refused(errno, () => this.#place.unmap(iova, BigInt(PAGE_SIZE)));
  }

  #copy(page: number): void {
    if (!this.#place.hasGuestIommu) return;
    const slot = page % SLOTS;
    const isThere = this.#copies.has(slot);
    if (!this.#isPlugged(page)) this.#refused("ENOENT", () => this.#place.copy(slot, page));
    else if (isThere) this.#refused("EEXIST", () => this.#place.copy(slot, page));
    else {
      this.#place.copy(slot, page);
      this.#copies.set(slot, page);
    }
  }

  #dropCopies(which: (page: number) => boolean): void {
    for (const [slot, page] of [...this.#copies]) {
      if (!which(page)) continue;
      this.#place.dropCopy(slot);
      this.#copies.delete(slot);
    }
  }

  #handOver(): void {
    for (const child of this.#children.splice(0)) child.exit();
    if (this.#plan.config.isFile) this.#place.handOver();
    else if (this.#place.hasGuestIommu && this.#plugged.size > 0) this.#refused("EINVAL", () => this.#place.handOver());
  }

  /** To another host. Cut off, it goes on here. */
  async #migrate(cutAfterBytes: number): Promise<void> {
    if (this.#plugged.size === 0) return;
    const here = this.#place;
    // Devices that cannot move are unplugged before, and what the guest's own IOMMU had with them.
    this.#dropCopies(() => true);
    if (here.hasSecond) here.removeSecond(false);
    const there = new Place(this.#plan, this.#options);
    for (const block of [...this.#plugged].sort((a, b) => a - b)) there.plug(block);
    const random = Random.fromSeed(this.#plan.seed * 1000 + ++this.#moves);
    let isStopped = false;
    const [near, far] = linkPair(cutAfterBytes, () => {
      if (isStopped) return;
      for (let i = 0; i < WRITES_PER_FRAME; i++) {
        const page = random.below(this.#pages);
        if (random.chance(1, 2)) this.#deviceWrites(0, page, random.bits());
        else this.#processorWrites(page, random.bits());
      }
      this.#packet();
    });
    const clock = here.host.machine.clock;
    const machine = this.#movable(here, (stopped) => {
      isStopped = stopped;
    });
    const source = new MoveSource(machine, near, { pause: async () => void clock.step(), stopBelowBytes: 65_536 });
    const target = new MoveTarget(
      this.#movable(there, () => {}),
      far,
    );
    const [outcome, arrival] = await Promise.all([source.run(), target.run()]);
    this.#written = undefined;
    if (outcome.outcome === "in-doubt" && arrival.outcome !== "running") source.stay();
    const hasMoved = arrival.outcome === "running";
    if (outcome.outcome === "moved" && !hasMoved) throw new Broken("bytes", "it has moved, and does not run there");
    if (outcome.outcome === "stayed" && hasMoved) throw new Broken("bytes", "it runs on both hosts");
    if (cutAfterBytes === 0 && !hasMoved)
      throw new Broken("bytes", `a move over a good link ended with ${(outcome as { error?: unknown }).error}`);
    if (hasMoved) {
      this.#place = there;
      // What was unplugged, and kept by a file, stays behind.
      for (let page = 0; page < this.#pages; page++) if (!this.#isPlugged(page)) this.#bytesOf(page).fill(0);
      for (const child of this.#children.splice(0)) child.exit();
    }
    this.#compareAll();
    this.#leave(hasMoved ? here : there);
  }

  #movable(place: Place, stopped: (isStopped: boolean) => void): MovableMachine {
    const { blockPages } = this.#plan.config;
    const blocks = [...this.#plugged].sort((a, b) => a - b);
    const length = blockPages * PAGE_SIZE;
    const layout = new RamLayout(blocks.map((block) => ({ start: block * length, length })));
    const { migration, logging, pci } = place.functions[0]!;
    const each = (first: number, bytes: number, visit: (page: number, at: number) => void): void => {
      for (let at = 0; at < bytes; at += PAGE_SIZE) visit(layout.addressOf(first + at / PAGE_SIZE) / PAGE_SIZE, at);
    };
    const domain = place.dirtyDomain;
    const sources = [
      deviceLogSource("log", logging, layout),
      ...(domain ? [iommuSource("iommu", domain, layout)] : []),
      this.#writes(layout),
    ];
    const { dirty } = this.#options.parts ?? {};
    return {
      ram: {
        layout,
        read: (first, into) =>
          each(first, into.length, (page, at) => place.read(page, into.subarray(at, at + PAGE_SIZE))),
        write: (first, from) =>
          each(first, from.length, (page, at) => place.write(page, from.subarray(at, at + PAGE_SIZE))),
      },
      devices: [
        {
          name: "nic",
          migration,
          reset: () => {
            void pci.reset();
            migration.reset();
          },
        },
      ],
      processors: {
        stop: () => stopped(true),
        resume: () => stopped(false),
        save: () => new Uint8Array(1),
        load: () => {},
      },
      dirty: dirty ? sources.map(dirty) : sources,
    };
  }

  /** What processors wrote, and devices that nobody else speaks for. */
  #writes(layout: RamLayout): DirtySource {
    return {
      name: "processors",
      start: () => {
        this.#written = new DirtyBitmap(this.#pages);
      },
      stop: () => {
        this.#written = undefined;
      },
      collect: (mark) => {
        const written = this.#written;
        if (!written) return;
        for (let run = written.takeRun(0, 1024); run; run = written.takeRun(run.first, 1024))
          layout.eachRun(run.first * PAGE_SIZE, run.count * PAGE_SIZE, mark);
      },
    };
  }

  /** A host that the guest has left. */
  #leave(place: Place): void {
    if (place === this.#place) for (const child of this.#children.splice(0)) child.exit();
    const left = place.end();
    if (left.length > 0) throw new Broken("leak", `left behind: ${left.join("; ")}`);
  }

  #refused(errno: string, call: () => unknown): void {
    try {
      call();
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      if (error.errno !== errno)
        throw new Broken("leak", `refused with ${error.errno} and not ${errno}: ${error.message}`);
      return;
    }
    throw new Broken("leak", `a call that must be refused with ${errno} was not`);
  }

  /** Every page, by every device; and the accounts. */
  #look(): void {
    for (let page = 0; page < this.#pages; page++)
      for (const device of [0, 1] as const) this.#reach(device, page, "read");
    const place = this.#place;
    for (let slot = 0; slot < SLOTS; slot++)
      if (place.hasGuestIommu && !this.#copies.has(slot) && place.reach(1, place.copyPage(slot), "read") >= 0)
        throw new Broken("teardown", `a copy at slot ${slot} is reached, which was dropped`);
    const charged = this.#plugged.size * this.#plan.config.blockPages;
    if (place.chargedPages !== charged)
      throw new Broken("leak", `${place.chargedPages} pages are charged, and ${charged} are plugged`);
    place.host.tablesUnit!.faults.length = 0;
  }

  #compareAll(): void {
    const bytes = new Uint8Array(PAGE_SIZE);
    for (let page = 0; page < this.#pages; page++) {
      if (!this.#isPlugged(page)) continue;
      this.#place.read(page, bytes);
      compare(bytes, this.#bytesOf(page), `page ${page} of the guest`);
    }
  }
}

function randomPage(seed: number): Uint8Array {
  const bytes = new Uint8Array(PAGE_SIZE);
  const words = new Uint32Array(bytes.buffer);
  let state = (seed | 1) >>> 0;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = state;
  }
  return bytes;
}

function compare(found: Uint8Array, expected: Uint8Array, what: string): void {
  const at = found.findIndex((byte, i) => byte !== expected[i]);
  if (at >= 0) throw new Broken("bytes", `${what} differs from byte ${at} on: ${found[at]} and not ${expected[at]}`);
}
