/** Memory that a driver leaves mapped or allocated when it lets go of its device. */
import { COHERENT, DIRECT, FROM_BEFORE, PAGES_GONE, REPORTED } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { address, noun, plural, size } from "./words.ts";

/** Tasks that load, unload, bind and unbind drivers. */
const RELEASING_TASK =
  /^(?:modprobe|rmmod|kmod|insmod|driverctl|udevadm|systemd-udevd|libvirtd|virtqemud|bash|sh|dash|zsh|tee|echo)$/;
/** Functions of the driver core that release a device, and what drivers call theirs. */
const RELEASING_CODE =
  /^(?:device_release_driver|__device_release_driver|driver_detach|driver_unregister|unbind_store|device_shutdown|devres_release|__do_sys_delete_module|__x64_sys_delete_module)|_(?:remove|shutdown|disconnect)$/;
/** Mappings left behind that are named in one finding. */
const NAMED = 5;

/** The ends of one device since it began a mapping last. */
interface Run {
  ends: number;
  /** Of those, coherent memory. */
  freed: number;
  /** By a task or a function that releases devices. */
  releases: boolean;
  endNs: number;
  /** Of the task that freed last. */
  pid: number;
}

class LeftAtRelease implements Watcher {
  readonly #scene: RuleContext;
  readonly #runs = new Map<number, Run>();
  /** Coherent memory that is live, by device. */
  readonly #live = new Map<number, Set<number>>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  opened(row: number): void {
    const { table } = this.#scene;
    const device = table.device[row]!;
    const run = this.#runs.get(device);
    if (run) {
      this.#runs.delete(device);
      // The task that freed goes on: it changes its buffers, or works with one after the other.
      if (run.pid !== table.pid[row]) this.#judge(device, run, row);
    }
    if (table.kind[row] !== COHERENT) return;
    let live = this.#live.get(device);
    if (!live) {
      live = new Set();
      this.#live.set(device, live);
    }
    live.add(row);
  }

  closed(row: number): void {
    const { table, now, taskName, codeAt } = this.#scene;
    const device = table.device[row]!;
    let run = this.#runs.get(device);
    if (table.kind[row] !== COHERENT) {
      if (run) run.ends++;
      return;
    }
    this.#live.get(device)?.delete(row);
    if (!run) {
      run = { ends: 0, freed: 0, releases: false, endNs: 0, pid: 0 };
      this.#runs.set(device, run);
    }
    run.ends++;
    run.freed++;
    run.endNs = now.timeNs;
    run.pid = now.pid;
    const code = codeAt(now.site);
    run.releases ||= code ? code.some((one) => RELEASING_CODE.test(one)) : RELEASING_TASK.test(taskName(now.task));
  }

  dropped(row: number): void {
    this.#live.get(this.#scene.table.device[row]!)?.delete(row);
  }

  finish(): void {
    if (this.#scene.isCut()) return;
    for (const [device, run] of this.#runs) this.#judge(device, run, -1);
  }

  /** `but`: what begins right now. */
  #judge(device: number, { freed, releases, endNs }: Run, but: number): void {
    const { table, deviceName, begun, report, isDoubtful } = this.#scene;
    if (!releases || isDoubtful(endNs)) return;
    const coherent = this.#live.get(device)?.size ?? 0;
    // A driver that only changes its rings keeps more than it frees.
    if (coherent > freed) return;
    const left: number[] = [];
    for (let row = 0; row < table.used; row++) {
      if (row === but || !table.isLive(row) || table.device[row] !== device) continue;
      if ((table.flags[row]! & (FROM_BEFORE | PAGES_GONE | REPORTED)) !== 0) continue;
      if (table.reached[row] === DIRECT && table.kind[row] !== COHERENT) continue;
      if (isDoubtful(table.startNs[row]!)) return;
      // At the end of the recording the rule of leaks has spoken for these.
      if (but < 0 && this.#scene.overdue(row)) continue;
      left.push(row);
    }
    if (left.length === 0) return;
    left.sort((a, b) => table.id[a]! - table.id[b]!);
    const bytes = left.reduce((sum, row) => sum + table.length[row]!, 0);
    const [first] = left;
    for (const row of left) table.flags[row] = table.flags[row]! | REPORTED;
    const what =
      left.length === 1
        ? `the ${noun(table.kind[first!]!)} of ${size(bytes)} at ${address(table.iova[first!]!)}`
        : `${plural(left.length, "mapping")} (${size(bytes)})`;
    report({
      confidence: "likely",
      device,
      iova: table.iova[first!]!,
      length: bytes,
      timeNs: endNs,
      message: `${deviceName(device)}: ${what} ${left.length === 1 ? "is" : "are"} left when the driver lets go of the device: it freed ${freed === 1 ? "its other coherent memory" : `${plural(freed, "piece")} of coherent memory`} and not ${left.length === 1 ? "this" : "these"}.`,
      evidence: left.slice(0, NAMED).map((row) => begun(row)),
    });
  }
}

export const leftAtRelease: Rule = {
  name: "left-at-release",
  severity: "error",
  summary: "memory stays mapped or allocated when a driver lets go of its device",
  advice:
    "Free in remove() what probe() and open() took, and in their error paths too (devm_ and dmam_ functions do it by themselves): the device can still reach this memory, and nobody can give it back.",
  watch: (scene) => new LeftAtRelease(scene),
};
