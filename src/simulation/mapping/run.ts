/**
 * One run of the "mapping" scenario: the steps of a plan, one after the other, with every promise of the stack checked as it
 * goes.
 *
 * The oracles: (a) a byte-exact shadow of every buffer, compared whenever its bytes are the CPU's or a device reads them
 * (buffers.ts); (b) no access of a device ever reaches a page after its mapping was torn down and flushed (reach.ts); (c) at
 * the end everything is back as it was at the start, and a failed call leaves nothing at any time (mappings.ts); (d) freed
 * memory is poisoned, and no device ever reads the poison. A run ends at the first promise that is broken.
 */
import { Random } from "../../base/index.ts";
import { Broken, type RunOptions, type RunResult, type Violation, violationOf } from "../scenario.ts";
import { Accidents } from "./accidents.ts";
import { Buffers } from "./buffers.ts";
import type { LiveMapping } from "./live-mapping.ts";
import { Mappings } from "./mappings.ts";
import type { MappingPlan, Step } from "./plan.ts";
import { Reach } from "./reach.ts";
import { Traffic } from "./traffic.ts";
import { World } from "./world.ts";

type MappingStep = Exclude<Step, { do: "map" }> & { mapping: number };

export function runMapping(plan: MappingPlan, options: RunOptions = {}): RunResult {
  const run = new Run(plan, options);
  return run.all();
}

class Run {
  readonly #plan: MappingPlan;
  readonly #world: World;
  readonly #buffers: Buffers;
  readonly #reach: Reach;
  readonly #mappings: Mappings;
  readonly #traffic: Traffic;
  readonly #accidents: Accidents;
  #events = 0;

  constructor(plan: MappingPlan, options: RunOptions) {
    this.#plan = plan;
    this.#world = new World(plan.seed, plan.config, options);
    this.#buffers = new Buffers(this.#world, Random.fromSeed(plan.seed).fork("buffers"));
    this.#reach = new Reach(this.#world);
    this.#mappings = new Mappings(this.#world, this.#buffers, this.#reach);
    this.#traffic = new Traffic(this.#world, this.#buffers, this.#reach, this.#mappings);
    this.#accidents = new Accidents(this.#world, this.#buffers, this.#mappings);
  }

  all(): RunResult {
    let step = 0;
    let violation: Violation | undefined;
    try {
      for (; step < this.#plan.steps.length; step++) this.#step(this.#plan.steps[step]!);
      this.#end();
    } catch (error) {
      violation = violationOf(error, step);
    }
    return { events: this.#events, violation, bytesMoved: this.#traffic.bytesMoved };
  }

  #step(step: Step): void {
    this.#events++;
    switch (step.do) {
      case "map":
        this.#mappings.map(step);
        break;
      case "tick":
        this.#world.machine.clock.advance(step.ms);
        break;
      case "fill":
        this.#buffers.fill(step.buffer, step.seed, (page) => this.#mappings.owns(step.buffer, page));
        break;
      case "free buffer":
        this.#freeBuffer(step.buffer);
        break;
      case "stale access":
        this.#reach.staleAccess(step.nth, step.access);
        break;
      case "coherent":
        this.#traffic.coherent(step);
        break;
      case "fill pool":
        this.#accidents.fillPool(step.leave);
        break;
      case "empty pool":
        this.#accidents.emptyPool();
        break;
      case "fail table":
        this.#accidents.failTable(step.nth);
        break;
      case "pull out":
        this.#accidents.pullOut(step.device);
        break;
      case "change ACS":
        this.#accidents.changeAcs(step.port, step.bits);
        break;
      case "silence device":
        this.#accidents.silence(step.device);
        break;
      default: {
        const mapping = this.#mappings.at(step.mapping);
        if (mapping) this.#onMapping(step, mapping);
        else this.#events--; // it did nothing
      }
    }
  }

  #onMapping(step: MappingStep, mapping: LiveMapping): void {
    switch (step.do) {
      case "unmap":
        this.#mappings.unmap(step.mapping);
        break;
      case "device writes":
        this.#traffic.deviceWrites(mapping, step.offset, step.length, step.seed);
        break;
      case "device reads":
        this.#traffic.deviceReads(mapping);
        break;
      case "turn":
        this.#traffic.turn(mapping, step.seed);
        break;
      case "relink":
        this.#mappings.relink(mapping, step.page, step.lazy);
        break;
      case "lose doorbell":
        break; // the device never hears of it: nothing moves, and nothing may have changed
    }
  }

  #freeBuffer(buffer: number): void {
    if (this.#mappings.some((mapping) => mapping.buffer === buffer) || this.#reach.awaitsFlush(buffer)) return;
    this.#buffers.free(buffer);
  }

  #end(): void {
    this.#world.arena.failAt = 0;
    this.#mappings.unmapEach(() => true);
    this.#accidents.emptyPool();
    this.#world.machine.clock.advance(1000);
    this.#reach.staleReads();
    this.#buffers.freeAll();
    const leaks = this.#world.machine.leaks().filter((leak) => !leak.startsWith("timers") && !leak.startsWith("peer"));
    if (leaks.length > 0) throw new Broken("leak", `at the end: ${leaks.join("; ")}`);
    this.#world.close();
  }
}
