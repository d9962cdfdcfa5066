/**
 * What is live of one device, and what was not long ago: the checks look it up, {@link DeviceDebug} keeps it.
 */
import type { DmaDevice } from "../dma/index.ts";
import type { AddressSpace } from "../iommu/index.ts";
import { History } from "./history.ts";
import type { BusGrant, LiveMapping, LiveRange } from "./records.ts";
import { Spans } from "./spans.ts";

const lengthOf = ({ length }: { readonly length: number }): number => length;
const addressOf = ({ address }: { readonly address: number }): number => address;

export class Live {
  readonly device: DmaDevice;
  readonly domain: AddressSpace | undefined;
  /** The driver bound to the device, as it was told. */
  driver: string | undefined;
  readonly mappings: Spans<LiveMapping> = new Spans<LiveMapping>(addressOf, lengthOf);
  readonly ranges: Spans<LiveRange> = new Spans<LiveRange>(addressOf, ({ capacity }) => capacity);
  readonly grants: Spans<BusGrant> = new Spans<BusGrant>(addressOf, lengthOf);
  readonly history: History;

  /** @param history ended mappings that are remembered */
  constructor(device: DmaDevice, domain: AddressSpace | undefined, history: number) {
    this.device = device;
    this.domain = domain;
    this.history = new History(history);
  }

  /** Forgets everything that is live. */
  clear(): void {
    this.mappings.clear();
    this.ranges.clear();
    this.grants.clear();
  }
}
