/**
 * An RDMA adapter: it reads page lists, work requests and data by DMA through its IOMMU, and speaks to others over a wire.
 *
 * Idea: what the driver takes away is gone when the call returns: an access finds its blocks and moves its bytes at one moment of the
 * machine's time, and entries that were remembered are dropped. What comes from the wire is checked as if it came from anybody.
 * Promises: nothing is reached that a key, an entry and the IOMMU do not allow; a refused access is a completion with an error, or an answer to
 * the peer, never a silent part.
 * Not for: speed; link layers; other transports than connected ones.
 * Specified by: InfiniBand Architecture Specification, volume 1, chapter 9; layouts/rdma.
 */

import { readPacket } from "../../../../layouts/rdma/index.ts";
import type {
  AdapterPageFault,
  AdapterQueueState,
  AdapterRing,
  QueuePairConnection,
  QueuePairContext,
  RdmaAdapter,
  RegionContext,
} from "../../../../platform/index.ts";
import { type BarModel, type DeviceModel, type DevicePort, memoryTarget } from "../../device.ts";
import { notPlugged } from "../../errors.ts";
import { RnicCompletions } from "./completions.ts";
import { RnicFaults } from "./faults.ts";
import { RnicQueuePair } from "./queue-pair.ts";
import { RnicRegions } from "./regions.ts";
import type { Wire } from "./wire.ts";

/** An adapter to plug into a machine. */
export interface RnicOptions {
  /** What it speaks to others over. */
  readonly wire: Wire;
  /** Its address on the wire. */
  readonly address: number;
  /** Sizes of blocks, or'ed. 4 KiB, 64 KiB and 2 MiB unless said. */
  readonly blockSizes?: number;
  /** Longest message, bytes. 1 GiB unless said. */
  readonly maxMessageBytes?: number;
  /** Until the driver hears of a page fault, ms. 0.005 unless said. */
  readonly faultLatencyMs?: number;
  /** Bytes of memory behind BAR 0, for peers; a power of two from 4096 on. None unless said. */
  readonly memoryBytes?: number;
}

const DEFAULT_SIZES = 0x1000 + 0x1_0000 + 0x20_0000;
const MOST_PIECES = 30;

/** What an adapter counts. */
export interface RnicCounts {
  /** Packets that arrived. */
  packets: number;
  /** Packets that are none, or for nobody. */
  dropped: number;
  /** Answers that did not come in time. */
  timeouts: number;
}

/** A simulated RDMA adapter. */
export class Rnic implements DeviceModel, RdmaAdapter {
  readonly vendorId = 0x1234;
  readonly deviceId = 0x0015;
  /** A network controller for InfiniBand. */
  readonly classCode = 0x02_0700;
  readonly bars: readonly BarModel[];
  readonly vectors = 2;
  readonly port: number;
  readonly blockSizes: number;
  readonly maxPieces: number = MOST_PIECES;
  readonly maxMessageBytes: number;
  /** Packets and time-outs so far. */
  readonly counts: RnicCounts = { packets: 0, dropped: 0, timeouts: 0 };
  /** Regions that it has been told of. */
  readonly regions: RnicRegions = new RnicRegions(() => this.#plugged);
  readonly #faults: RnicFaults;
  readonly #completions: RnicCompletions;
  readonly #wire: Wire;
  readonly #pairs = new Map<number, RnicQueuePair>();
  readonly #onCompletion = new Set<(queue: number) => void>();
  #devicePort: DevicePort | undefined;

  /** An adapter to plug into a machine; it is on the wire at once. */
  constructor(options: RnicOptions) {
    const { wire, address, blockSizes = DEFAULT_SIZES, maxMessageBytes = 2 ** 30, faultLatencyMs = 0.005 } = options;
    this.#wire = wire;
    this.port = address;
    this.blockSizes = blockSizes;
    this.maxMessageBytes = maxMessageBytes;
    this.#faults = new RnicFaults(() => wire.clock, faultLatencyMs);
    this.#completions = new RnicCompletions(
      () => this.#plugged,
      (queue) => this.#tell(queue),
    );
    const length = options.memoryBytes ?? 0;
    this.bars = length > 0 ? [{ index: 0, length, target: memoryTarget(length) }] : [];
    wire.attach(address, (from, packet) => this.#receive(from, packet));
  }

  get name(): string {
    return `adapter ${this.port}`;
  }

  plugged(port: DevicePort): void {
    this.#devicePort = port;
  }

  /** Everything that the driver told it is forgotten. */
  reset(): void {
    for (const pair of this.#pairs.values()) pair.stop();
    this.#pairs.clear();
    this.#completions.clear();
    this.regions.clear();
    this.#faults.clear();
  }

  putRegion(context: RegionContext): void {
    this.regions.put(context);
  }
  removeRegion(key: number): void {
    this.regions.remove(key);
  }
  forgetBlocks(key: number, first: number, end: number): void {
    this.regions.forget(key, first, end);
  }

  putWindow(key: number, domain: number): void {
    this.regions.windows.put(key, domain);
  }
  removeWindow(key: number): void {
    this.regions.windows.remove(key);
  }
  windowsOn(key: number): number {
    return this.regions.windows.on(key);
  }

  putCompletionQueue(number: number, ring: AdapterRing): void {
    this.#completions.put(number, ring);
  }
  removeCompletionQueue(number: number): void {
    this.#completions.remove(number);
  }
  completionsRead(number: number, index: number): void {
    this.#completions.read(number, index);
  }
  armCompletions(number: number): void {
    this.#completions.arm(number);
  }

  putQueuePair(context: QueuePairContext): void {
    this.#pairs.set(
      context.number,
      new RnicQueuePair(context, {
        port: () => this.#plugged,
        wire: this.#wire,
        address: this.port,
        regions: this.regions,
        faults: this.#faults,
        completions: this.#completions,
        maxMessageBytes: this.maxMessageBytes,
        counts: this.counts,
      }),
    );
  }
  connectQueuePair(number: number, connection: QueuePairConnection): void {
    this.#pairs.get(number)?.connect(connection);
  }
  setQueueState(number: number, state: AdapterQueueState): void {
    this.#pairs.get(number)?.setState(state);
  }
  queueState(number: number): AdapterQueueState {
    return this.#pairs.get(number)?.state ?? "reset";
  }
  removeQueuePair(number: number): void {
    this.#pairs.get(number)?.stop();
    this.#pairs.delete(number);
  }
  ringSends(number: number, index: number): void {
    const pair = this.#pairs.get(number);
    if (pair) this.#wire.clock.after(0, () => pair.ringSends(index));
  }
  ringReceives(number: number, index: number): void {
    this.#pairs.get(number)?.ringReceives(index);
  }

  onPageFault(callback: (fault: AdapterPageFault) => void): () => void {
    return this.#faults.listen(callback);
  }
  resume(id: number, isThere: boolean): void {
    this.#faults.resume(id, isThere);
  }
  onCompletion(callback: (queue: number) => void): () => void {
    this.#onCompletion.add(callback);
    return () => void this.#onCompletion.delete(callback);
  }

  #receive(from: number, bytes: Uint8Array): void {
    this.counts.packets++;
    const packet = readPacket(bytes);
    const pair = packet && this.#pairs.get(packet.destination);
    if (pair) pair.receive(from, packet);
    else this.counts.dropped++;
  }

  #tell(queue: number): void {
    this.#plugged.interrupt(1);
    for (const callback of [...this.#onCompletion]) callback(queue);
  }

  get #plugged(): DevicePort {
    if (!this.#devicePort) throw notPlugged();
    return this.#devicePort;
  }
}
