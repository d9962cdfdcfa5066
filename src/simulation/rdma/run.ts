/**
 * A run of two RDMA machines: one reaches the other's memory, while that one's process forks, drops, protects and moves it.
 *
 * Oracles: every byte that comes is what a shadow of the far process's memory says (bytes); the IOMMU never refuses the adapters, since what was
 * taken away was forgotten first (teardown); a wrong key writes nothing (trust); at the end nothing is pinned, mapped or held (leak). With pinned
 * memory the process's changes part it from the region, as they do on a real machine: there only what does not part them is done.
 */
import { DmaError, PAGE_SIZE, Random } from "../../base/index.ts";
import type { MemoryRegion, SendRequest } from "../../consumers/rdma/index.ts";
import type { SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import { UserAddr } from "../../platform/index.ts";
import { Broken, type RunOptions, type RunResult, violationOf } from "../scenario.ts";
import type { RdmaPlan, RdmaStep } from "./plan.ts";
import { RdmaWorld, REGION_BYTES, START } from "./world.ts";

/** Runs a plan. */
export function runRdma(plan: RdmaPlan, options: RunOptions = {}): RunResult {
  const run = new Run(plan, options);
  let step = 0;
  try {
    for (; step < plan.steps.length; step++) run.step(plan.steps[step]!);
    run.end();
    return { events: run.events, violation: undefined, bytesMoved: run.bytesMoved };
  } catch (error) {
    return { events: run.events, violation: violationOf(error, step), bytesMoved: run.bytesMoved };
  }
}

class Run {
  events = 0;
  bytesMoved = 0;
  readonly #world: RdmaWorld;
  readonly #isPinned: boolean;
  /** What the far process's memory holds. */
  readonly #shadow = new Uint8Array(REGION_BYTES);
  readonly #children: SimulatedProcess[] = [];
  #local: MemoryRegion;
  #remote: MemoryRegion;

  constructor(plan: RdmaPlan, options: RunOptions) {
    this.#world = new RdmaWorld(plan, options);
    this.#isPinned = plan.config.memory === "pinned";
    this.#local = this.#world.register(this.#world.near);
    this.#remote = this.#world.register(this.#world.far);
  }

  step(step: RdmaStep): void {
    const { far } = this.#world;
    const { memory } = far.process;
    switch (step.do) {
      case "write":
      case "read":
      case "send":
        this.#transfer(step.do, step.page * PAGE_SIZE, step.bytes, step.seed);
        break;
      case "count":
        this.#count(step.page * PAGE_SIZE);
        break;
      case "wrong key":
        this.#wrongKey(step.page * PAGE_SIZE);
        break;
      case "fork":
        this.#children.push(far.process.fork());
        break;
      case "child ends":
        this.#children.pop()?.exit();
        break;
      case "register again":
        far.device.deregister(this.#remote.key);
        this.#remote = this.#world.register(far);
        break;
      case "advise":
        if (this.#isPinned) return;
        far.device.advise(far.domain, {
          kind: step.write ? "write" : "read",
          pieces: [{ key: this.#remote.key, address: START + step.page * PAGE_SIZE, length: step.pages * PAGE_SIZE }],
        });
        break;
      case "touch":
        for (let i = 0; i < step.pages; i++) memory.touch(UserAddr(START + (step.page + i) * PAGE_SIZE), i % 2 === 0);
        break;
      case "protect":
        memory.protect(UserAddr(START + step.page * PAGE_SIZE), step.pages * PAGE_SIZE, "r");
        memory.protect(UserAddr(START + step.page * PAGE_SIZE), step.pages * PAGE_SIZE, "rw");
        break;
      default:
        if (this.#isPinned) return;
        this.#lose(step.do, step.page * PAGE_SIZE, step.pages * PAGE_SIZE);
    }
    this.events++;
    this.#look();
  }

  end(): void {
    const found = new Uint8Array(REGION_BYTES);
    this.#world.far.process.memory.read(START, found);
    this.#compare(found, this.#shadow, "the far process's memory");
    for (const child of this.#children) child.exit();
    const left = this.#world.end();
    if (left.length > 0) throw new Broken("leak", `at the end: ${left.join("; ")}`);
  }

  #transfer(work: "write" | "read" | "send", offset: number, bytes: number, seed: number): void {
    const { near, far, pairs } = this.#world;
    const contents = new Uint8Array(bytes);
    const random = Random.fromSeed(seed);
    for (let i = 0; i < bytes; i++) contents[i] = random.bits();
    if (work !== "read") near.process.memory.write(START, contents);
    if (work === "send")
      pairs[1].receive({ id: 1, pieces: [{ address: START + offset, length: bytes, key: this.#remote.key }] });
    const pieces = [{ address: START as number, length: bytes, key: this.#local.key }];
    this.#run({ work, id: 2, pieces, remoteAddress: START + offset, remoteKey: this.#remote.key });
    if (work === "send") {
      const { status, lengthBytes } = this.#world.next(far);
      if (status !== "success" || lengthBytes !== bytes) throw new Broken("bytes", `a receive ended with ${status}`);
    }
    this.bytesMoved += bytes;
    if (work !== "read") {
      this.#shadow.set(contents, offset);
      return;
    }
    near.process.memory.read(START, contents);
    this.#compare(contents, this.#shadow.subarray(offset, offset + bytes), `what was read at ${offset}`);
  }

  #count(offset: number): void {
    const view = new DataView(this.#shadow.buffer);
    const before = view.getBigUint64(offset, true);
    const pieces = [{ address: START as number, length: 8, key: this.#local.key }];
    const remote = { remoteAddress: START + offset, remoteKey: this.#remote.key };
    this.#run({ work: "fetch-add", id: 3, pieces, ...remote, add: 1n });
    view.setBigUint64(offset, BigInt.asUintN(64, before + 1n), true);
    const answer = new Uint8Array(8);
    this.#world.near.process.memory.read(START, answer);
    const found = new DataView(answer.buffer).getBigUint64(0, true);
    if (found !== before) throw new Broken("bytes", `an atomic operation found ${found}, where ${before} was`);
  }

  #wrongKey(offset: number): void {
    const { near, pairs } = this.#world;
    const pieces = [{ address: START as number, length: 8, key: this.#local.key }];
    const remoteKey = this.#remote.key ^ 1;
    pairs[0].send({ work: "write", id: 4, pieces, remoteAddress: START + offset, remoteKey });
    const { status } = this.#world.next(near);
    // A wire that loses everything else may lose the refusal too: then nobody answers any more.
    if (status !== "remote-access" && status !== "retries-exceeded")
      throw new Broken("trust", `a wrong key ended with ${status}`);
    this.#world.reconnect();
  }

  #run(request: SendRequest): void {
    const { near, pairs } = this.#world;
    pairs[0].send(request);
    const { status } = this.#world.next(near);
    if (status !== "success") throw new Broken("bytes", `${request.work} ended with ${status}`);
  }

  /** The process gives contents up. */
  #lose(how: "drop" | "unmap and map", offset: number, length: number): void {
    const { memory } = this.#world.far.process;
    const address = UserAddr(START + offset);
    try {
      if (how === "drop") memory.advise(address, length, "dontneed");
      else {
        memory.unmap(address, length);
        memory.map({ address, length });
      }
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
    }
    this.#shadow.fill(0, offset, offset + length);
  }

  #look(): void {
    for (const { host } of [this.#world.near, this.#world.far])
      if (host.faults > 0) throw new Broken("teardown", "an adapter used an address that had been taken back");
  }

  #compare(found: Uint8Array, expected: Uint8Array, what: string): void {
    const at = found.findIndex((byte, i) => byte !== expected[i]);
    if (at >= 0) throw new Broken("bytes", `${what} differs from byte ${at} on: ${found[at]} and not ${expected[at]}`);
  }
}
