/**
 * What devices use while a trace runs: the most bytes that each had mapped at once, its slots of the pool of bounce buffers, and
 * its calls that failed. For `stats`, which sees every mapping only when it ends.
 */
import { ERRNO_NAMES, type Trace } from "../trace/index.ts";
import type { DeviceStats } from "./device-stats.ts";
import type { Follow } from "./follow.ts";
import { BounceUse } from "./lifetimes/bounce-use.ts";
import { FROM_BEFORE, NO_DEVICE, TWO_STEP } from "./lifetimes/table.ts";

/** Functions and errors that are told apart. */
const MOST_FAILURES = 1000;

interface Use {
  bytes: number;
  peak: number;
  /** Mappings of device memory, and their bytes. */
  peers: number;
  peerBytes: number;
  readonly failures: Map<string, number>;
}

export class DeviceUse {
  readonly #bounce: BounceUse;
  /** By index of the device. */
  readonly #uses: (Use | undefined)[] = [];

  constructor({ ledger }: Pick<Follow, "ledger">, trace: Trace) {
    const { table, now } = ledger;
    this.#bounce = new BounceUse(now, (row) => table.device[row]!);
    ledger.watch(this.#bounce);
    const isSelected = (row: number): boolean =>
      !ledger.selects || ledger.selects(table.device[row]!, table.task[row]!, table.pid[row]!, table.cpu[row]!);
    const ended = (row: number): void => {
      if (isSelected(row) && (table.flags[row]! & FROM_BEFORE) === 0)
        this.#of(table.device[row]!).bytes -= table.reserved[row]!;
    };
    /** Ranges that device memory was linked into. */
    const linked = new Set<number>();
    ledger.watch({
      opened: (row) => {
        if (!isSelected(row)) return;
        const use = this.#of(table.device[row]!);
        use.bytes += table.reserved[row]!;
        if (use.bytes > use.peak) use.peak = use.bytes;
        if (now.isOfDeviceMemory) this.#peer(use, table.length[row]!);
      },
      linking: (row) => {
        if (now.isOfDeviceMemory) linked.add(row);
      },
      // A range is of device memory if a link or its end says so: some recordings have the attributes of one of them only.
      closed: (row) => {
        const isLinked = linked.delete(row);
        if (table.kind[row] === TWO_STEP && (isLinked || now.isOfDeviceMemory) && isSelected(row))
          this.#peer(this.#of(table.device[row]!), table.length[row]!);
        ended(row);
      },
      dropped: (row) => {
        linked.delete(row);
        ended(row);
      },
      failed: (device, _length, error) => {
        if (ledger.selects && !ledger.selects(device, now.task, now.pid, now.cpu)) return;
        const { failures } = this.#of(device);
        const call = (trace.types[now.type]?.name ?? "").replace(/_err$/, "");
        const key = `${call} ${ERRNO_NAMES[error] ?? `error ${-error}`}`;
        if (failures.size < MOST_FAILURES || failures.has(key)) failures.set(key, (failures.get(key) ?? 0) + 1);
      },
    });
  }

  /** `stats` with what was used; a device whose calls all failed has a row of its own. */
  into(stats: readonly DeviceStats[], devices: readonly string[]): readonly DeviceStats[] {
    const withUse = stats.map((one) => ({ ...one, ...this.#use(devices.indexOf(one.name)) }));
    const seen = new Set(stats.map(({ name }) => name));
    const others = [...this.#uses.keys()].filter((device) => {
      const name = devices[device];
      return name !== undefined && !seen.has(name) && (this.#uses[device]?.failures.size ?? 0) > 0;
    });
    return [
      ...withUse,
      ...others.map((device) => ({ ...NOTHING_MAPPED, name: devices[device]!, ...this.#use(device) })),
    ];
  }

  #use(device: number): Pick<DeviceStats, "peakBytes" | "bounce" | "deviceMemory" | "failures"> {
    const use = this.#uses[device < 0 ? NO_DEVICE : device];
    const bounce = this.#bounce.devices.get(device);
    return {
      peakBytes: use?.peak ?? 0,
      bounce: bounce && {
        mappings: bounce.mappings,
        peakSlots: bounce.peakSlots,
        slotsAtEnd: bounce.slots,
        largestPiece: bounce.largest,
        failed: bounce.failed,
      },
      deviceMemory: use && use.peers > 0 ? { mappings: use.peers, bytes: use.peerBytes } : undefined,
      failures: Object.fromEntries(use?.failures ?? []),
    };
  }

  #peer(use: Use, bytes: number): void {
    use.peers++;
    use.peerBytes += bytes;
  }

  #of(device: number): Use {
    let use = this.#uses[device];
    if (!use) {
      use = { bytes: 0, peak: 0, peers: 0, peerBytes: 0, failures: new Map() };
      this.#uses[device] = use;
    }
    return use;
  }
}

/** What is counted of a device that has mapped nothing. */
export const NOTHING_MAPPED: Omit<DeviceStats, "name"> = {
  maps: 0,
  unmaps: 0,
  segments: 0,
  bytesMapped: 0,
  liveAtEnd: 0,
  liveBytesAtEnd: 0,
  segmentSizes: {},
  requestSizes: {},
  lifetimeNs: undefined,
  pageSizes: { "4K": 0, "2M": 0, "1G": 0 },
  largestGap: undefined,
  kinds: {},
  peakBytes: 0,
  bounce: undefined,
  deviceMemory: undefined,
  failures: {},
};
