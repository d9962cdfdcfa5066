/** Memory that stays mapped though its kind is always unmapped. */
import { PAGE_SIZE } from "../../base/index.ts";
import { COHERENT, NO_DEVICE, REPORTED } from "../lifetimes/table.ts";
import type { Rule, Scene, Watcher } from "./rule.ts";
import { address, count, noun, plural, size, time } from "./words.ts";

/** Coherent allocations of one device that make a trend. */
const LEAST_GROWTH = 32;
/** Parts of the recording in each of which a leak that grows must have grown. */
const PARTS = 4;

class Leak implements Watcher {
  readonly #scene: Scene;
  /** By device: begin times of coherent allocations that are live, and how many ended. */
  readonly #ended = new Map<number, number>();

  constructor(scene: Scene) {
    this.#scene = scene;
  }

  closed(row: number): void {
    const { table } = this.#scene;
    if (table.kind[row] !== COHERENT) return;
    const device = table.device[row]!;
    this.#ended.set(device, (this.#ended.get(device) ?? 0) + 1);
  }

  abandoned(row: number): void {
    const { table, deviceName, begun, current, report } = this.#scene;
    report({
      device: table.device[row]!,
      iova: table.iova[row]!,
      length: table.reserved[row]!,
      timeNs: table.startNs[row]!,
      message: `The two-step range of ${size(table.reserved[row]!)} at ${address(table.iova[row]!)} of ${deviceName(table.device[row]!)} was never destroyed: its state was used for another reservation, so nobody can give it back any more.`,
      evidence: [begun(row, "reserved"), current("its state is reserved again")],
    });
  }

  finish(): void {
    const { table } = this.#scene;
    if (this.#scene.isCut()) return;
    for (let row = 0; row < table.used; row++) {
      if (!table.isLive(row) || this.#scene.isDoubtful(table.startNs[row]!)) continue;
      const overdue = this.#scene.overdue(row);
      if (!overdue || this.#scene.suspicionOf(row)) continue;
      const age = this.#scene.lastNs() - table.startNs[row]!;
      const device = table.device[row]!;
      this.#scene.report({
        confidence: overdue.confidence,
        device,
        iova: table.iova[row]!,
        length: table.reserved[row]!,
        timeNs: table.startNs[row]!,
        message: `The ${noun(table.kind[row]!)} of ${size(table.reserved[row]!)} at ${address(table.iova[row]!)} of ${this.#scene.deviceName(device)} is still live ${time(age)} later, when the recording ends; ${overdue.why}.`,
        evidence: [this.#scene.begun(row)],
      });
    }
    this.#growth();
    this.#unattributed();
  }

  /** Coherent memory is kept on purpose; a leak of it shows only as growth that never stops. */
  #growth(): void {
    const { table, deviceName, begun, report } = this.#scene;
    const [firstNs, lastNs] = [this.#scene.firstNs(), this.#scene.lastNs()];
    const byDevice = new Map<number, number[]>();
    for (let row = 0; row < table.used; row++) {
      if (!table.isLive(row) || table.kind[row] !== COHERENT || table.startNs[row]! < 0) continue;
      if ((table.flags[row]! & REPORTED) !== 0) continue;
      const rows = byDevice.get(table.device[row]!) ?? [];
      byDevice.set(table.device[row]!, rows);
      rows.push(row);
    }
    for (const [device, rows] of byDevice) {
      const ended = this.#ended.get(device) ?? 0;
      if (rows.length < LEAST_GROWTH || ended > rows.length / 8) continue;
      const parts = new Array<number>(PARTS).fill(0);
      const span = (lastNs - firstNs + 1) / PARTS;
      for (const row of rows) parts[Math.floor((table.startNs[row]! - firstNs) / span)]!++;
      if (Math.min(...parts) < LEAST_GROWTH / 8) continue;
      const bytes = rows.reduce((sum, row) => sum + table.length[row]!, 0);
      report({
        severity: "warning",
        confidence: "likely",
        device,
        length: bytes,
        timeNs: lastNs,
        message: `The coherent memory of ${deviceName(device)} grows all the time: ${plural(rows.length, "allocation")} (${size(bytes)}) in ${time(lastNs - firstNs)}, ${count(ended)} freed; ${parts.map(count).join(", ")} in the quarters of the recording.`,
        evidence: rows.slice(-1).map((row) => begun(row, "allocated")),
      });
    }
  }

  /** What only `iommu:map` events show: adjacent pieces that stay are one mapping. */
  #unattributed(): void {
    const { iommu, evidence, report } = this.#scene;
    const lastNs = this.#scene.lastNs();
    const { pieces, ended, longestNs, recentNs } = iommu;
    if (this.#scene.hasLost() || ended < 8 || iommu.overLive > 0) return; // two domains share addresses: no telling whose is left
    // Those that ended last all began after it: it is not the load that just began.
    const before = Math.min(...recentNs);
    const left: number[] = [];
    for (let piece = 0; piece < pieces.used; piece++) {
      const startNs = pieces.startNs[piece]!;
      if (pieces.isLive(piece) && startNs < before && lastNs - startNs > 2 * longestNs) left.push(piece);
    }
    left.sort((a, b) => pieces.page[a]! - pieces.page[b]!);
    for (let i = 0; i < left.length; ) {
      const first = left[i]!;
      let end = pieces.page[first]!;
      while (i < left.length && pieces.page[left[i]!] === end) end += pieces.pages[left[i++]!]!;
      const iova = pieces.page[first]! * PAGE_SIZE;
      const length = (end - pieces.page[first]!) * PAGE_SIZE;
      const place = {
        timeNs: pieces.startNs[first]!,
        cpu: pieces.cpu[first]!,
        pid: pieces.pid[first]!,
        task: pieces.task[first]!,
        type: pieces.type[first]!,
        site: 0,
      };
      report({
        confidence: "likely",
        device: NO_DEVICE,
        iova,
        length,
        timeNs: place.timeNs,
        message: `${size(length)} at ${address(iova)} are still mapped ${time(lastNs - place.timeNs)} later, when the recording ends; the ${count(ended)} others that no event names a device for lived ${time(longestNs)} at most.`,
        evidence: [evidence("mapped", place, iova, length)],
      });
    }
  }
}

export const leak: Rule = {
  name: "leak",
  severity: "error",
  summary: "memory stays mapped though its kind is always unmapped, or coherent memory grows all the time",
  advice:
    "Find the path that ends without its unmap (an error or time-out path, most often) from the task and time of the map; the device can still reach this memory.",
  watch: (scene) => new Leak(scene),
};
