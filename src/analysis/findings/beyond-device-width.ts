/** Mappings at addresses that the device cannot drive: found before they fault. */
import type { KernelFact, MaskOverflow } from "../../trace/index.ts";
import type { Told } from "../faults/told.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Evidence } from "./finding.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { address, plural, size } from "./words.ts";

/** Devices whose overflows the kernel told, one by one. */
const MOST_DEVICES = 1000;

interface Beyond {
  count: number;
  bytes: number;
  /** The first, as it would arrive. */
  readonly first: Evidence;
  readonly iova: number;
  readonly length: number;
  readonly timeNs: number;
}

class BeyondWidth implements Watcher {
  readonly #scene: RuleContext;
  readonly #beyond = new Map<number, Beyond>();
  readonly #told = new Map<string, { readonly first: MaskOverflow<Told>; count: number }>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  opened(row: number): void {
    const { table, deviceBits } = this.#scene;
    if (deviceBits.size === 0) return;
    const device = table.device[row]!;
    const bits = deviceBits.get(table.devices[device] ?? "");
    if (bits === undefined) return;
    const [iova, length] = [table.iova[row]!, table.length[row]!];
    if (iova + length <= 2 ** bits) return;
    const known = this.#beyond.get(device);
    if (known) {
      known.count++;
      known.bytes += length;
      return;
    }
    const first = this.#scene.begun(row);
    this.#beyond.set(device, { count: 1, bytes: length, first, iova, length, timeNs: table.startNs[row]! });
  }

  said(fact: KernelFact<Told>): void {
    if (fact.kind !== "mask-overflow") return;
    const known = this.#told.get(fact.device ?? "");
    if (known) known.count++;
    else if (this.#told.size < MOST_DEVICES) this.#told.set(fact.device ?? "", { first: fact, count: 1 });
  }

  finish(): void {
    const { deviceBits, table, report } = this.#scene;
    for (const [device, { count, bytes, first, iova, length, timeNs }] of this.#beyond) {
      const width = deviceBits.get(table.devices[device]!)!;
      const arrives = iova % 2 ** width;
      report({
        device,
        iova,
        length,
        timeNs,
        message: `${table.devices[device]} drives ${width} address bits, but ${plural(count, "mapping")} of it (${size(bytes)}) ${count === 1 ? "lies" : "lie"} beyond: the first, ${size(length)} at ${address(iova)}, would arrive as ${address(arrives)}.`,
        evidence: [first],
        selfEvident: true,
      });
    }
    for (const { first, count } of this.#told.values()) this.#overflow(first, count);
  }

  #overflow({ device, address: at, size: bytes, mask, text, at: told }: MaskOverflow<Told>, times: number): void {
    const { deviceIndex, report } = this.#scene;
    report({
      device: device === undefined ? NO_DEVICE : (deviceIndex(device) ?? NO_DEVICE),
      ...(device !== undefined && { deviceName: device }),
      iova: Number(at),
      length: bytes,
      timeNs: told.timeNs ?? -1,
      message: `${device ?? "A device"}: ${plural(times, "mapping")} failed: memory at 0x${at.toString(16)} (${size(bytes)}) lies beyond its mask 0x${mask.toString(16)}, and could not be bounced.`,
      advice:
        "Set the device's real mask with dma_set_mask_and_coherent; if it is right, the memory has to come from below it (GFP_DMA32, a bounce pool: swiotlb).",
      evidence: [this.#scene.told("reported by the kernel", told, text)],
      selfEvident: true,
    });
  }
}

export const beyondDeviceWidth: Rule = {
  name: "beyond-device-width",
  severity: "error",
  summary: "memory is mapped at addresses that the device cannot drive (needs --device-bits, or the kernel's log)",
  advice:
    "Set the device's real width with dma_set_mask_and_coherent, or dma-ranges of its bus in the device tree: the IOMMU then gives addresses below it.",
  watch: (scene) => new BeyondWidth(scene),
};
