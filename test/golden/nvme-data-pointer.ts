/**
 * Judge of the kind nvme-data-pointer: a request of bios becomes a command, and its memory is unmapped again.
 *
 * Each line is judged through the block layer and the NVMe driver's mapper: gap, vectors, flags, PRPs or SGL, lists, records,
 * and every mapping event in its order. Behind an IOMMU the events are those of our own DMA layer; without one, of a stand-in
 * as in the kernel's run. Peer memory is told by address: 0x381... and 0x382... are reached by bus address, 0x383...
 * through the host bridge, 0x384... not at all.
 */
import { type Direction, DmaAddr, DmaError, hex } from "../../src/base/index.ts";
import {
  Bio,
  BLOCK_STATUS,
  BlockRequest,
  DEFAULT_LIMITS,
  type DmaOps,
  type PeerRoute,
  PhysicalVectors,
  type QueueLimits,
  TwoStepOps,
  VectorList,
} from "../../src/consumers/block/index.ts";
import {
  CommandMapping,
  DataMapper,
  DEFAULT_SGL_THRESHOLD,
  type DescriptorBlock,
  DescriptorPool,
  DescriptorPools,
  LARGE_BLOCK,
  RecordPool,
  type SegmentRecords,
  SMALL_BLOCK,
} from "../../src/consumers/nvme/index.ts";
import { Dma, type DmaAttributes } from "../../src/dma/index.ts";
import { SimulatedUnit } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { COMMAND, get64, POINTERS, SGL, SGL_BYTES, SGL_TYPE, viewOf } from "../../src/layouts/nvme/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { ManualClock } from "../models/manual-clock.ts";
import { Differences, type Judge, judgeLines, type Line } from "./judge.ts";
import { CountedArena, type LayerEvent, LayerEvents } from "./layer-events.ts";

/** Peer windows of 2^36 bytes and how the device reaches them. */
const PEERS = new Map<number, PeerRoute>([
  [0x381, { type: "bus-address", busOffset: 0x1_0000_0000 }],
  [0x382, { type: "bus-address", busOffset: -0x10_0000_0000 }],
  [0x383, { type: "through-host-bridge", busOffset: 0 }],
  [0x384, { type: "not-supported", busOffset: 0 }],
]);
const peerOf = (phys: number): PeerRoute | undefined => PEERS.get(Math.floor(phys / 2 ** 36));
const RAM: PeerRoute = { type: "none", busOffset: 0 };

/** Our DMA layer, told where peers are and announcing what is unmapped. */
class JudgedDoor extends TwoStepOps {
  readonly #events: LayerEvents;

  constructor(dma: Dma, events: LayerEvents) {
    super(dma);
    this.#events = events;
  }

  override peerRoute(phys: number): PeerRoute {
    return peerOf(phys) ?? RAM;
  }

  override unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    this.#events.add("unmapPhys", hex(address), hex(length));
    super.unmapPhys(address, length, direction, attributes);
  }
}

/** The DMA layer of a line. */
function doorOf(line: Line, events: LayerEvents): DmaOps {
  if (!line["iommu"])
    return {
      mergeBoundary: 0,
      needsUnmap: line["needUnmap"] === true,
      providerOf: peerOf,
      peerRoute: (phys) => peerOf(phys) ?? RAM,
      tryReserveIova: () => undefined,
      mapPhys: (phys, length) => {
        events.add("direct", hex(phys), hex(length));
        return DmaAddr(phys);
      },
      unmapPhys: (address, length) => events.add("unmapPhys", hex(address), hex(length)),
    };
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit: new SimulatedUnit(),
    clock: new ManualClock(),
    mode: "strict",
    reserved: [],
    tableMemory: new CountedArena(events),
    observer: events,
  });
  return new JudgedDoor(
    new Dma({ domain, coherent: line["coherent"] === true, observer: events, linuxCompatible: true }),
    events,
  );
}

/** Descriptor memory as the kernel's run had it, with every block that comes back announced. */
function poolsOf(line: Line, events: LayerEvents): DescriptorPools {
  let fail = line["failDescriptor"] === true;
  const memory = (base: number) => {
    let next = base;
    return (length: number) => {
      if (fail) {
        fail = false;
        throw new DmaError("ERR_DMA_TEST", "ENOMEM", "no descriptor memory");
      }
      const address = DmaAddr(next);
      next += length;
      return { address, bytes: new Uint8Array(length), free: () => {} };
    };
  };
  class Announcing extends DescriptorPools {
    override give(block: DescriptorBlock): void {
      events.add("descFree", hex(block.address));
      super.give(block);
    }
  }
  return new Announcing(
    new DescriptorPool(SMALL_BLOCK, memory(0x70_0000_0000)),
    new DescriptorPool(LARGE_BLOCK, memory(0x71_0000_0000)),
  );
}

const NO_LIMITS: QueueLimits = {
  ...DEFAULT_LIMITS,
  maxBytes: 2 ** 40,
  maxSegments: 4096,
  maxIntegritySegments: 256,
  blockBytes: 1,
  peerMemory: true,
};

function requestOf(line: Line): BlockRequest {
  const request = new BlockRequest();
  let block = 0;
  for (const [i, vecs] of (line["bios"] as [string, number][][]).entries()) {
    const list = new VectorList();
    for (const [phys, length] of vecs) list.add(Number(phys), length, peerOf(Number(phys)));
    const [all, bio] = [new Bio(), new Bio()];
    all.set(line["dir"] === "TO_DEVICE" ? "write" : "read", block, list, NO_LIMITS);
    if (all.split(NO_LIMITS, bio)) throw new Error("the bio was split");
    if (i === 0) request.start(bio);
    else if (!request.tryAppend(bio, NO_LIMITS)) throw new Error("the bio was not merged");
    block += list.bytes;
  }
  return request;
}

function judgeLine(line: Line, sglThreshold: number): { found: Record<string, unknown>; afterFailure: boolean } {
  const events = new LayerEvents();
  const request = requestOf(line);
  const found: Record<string, unknown> = { gapBit: request.gap, segments: request.segments, bytes: request.bytes };
  request.integritySegments = line["integritySegments"] as number;
  const vectors = new PhysicalVectors();
  vectors.start(request.first, NO_LIMITS);
  const vecs: string[][] = [];
  while (vectors.next()) vecs.push([hex(vectors.phys), hex(vectors.length)]);
  found["vecs"] = vecs;

  const pools = poolsOf(line, events);
  class AnnouncingRecords extends RecordPool {
    override give(records: SegmentRecords): void {
      events.add("recordFree");
      super.give(records);
    }
  }
  const records = new AnnouncingRecords();
  const options = {
    sgls: line["sgls"] !== 0 && line["qid"] !== 0,
    metadataSgls: false,
    sglThreshold,
    untrusted: false,
  };
  const mapper = new DataMapper(doorOf(line, events), NO_LIMITS, options, pools, records);
  const mapping = new CommandMapping();
  const command = viewOf(new Uint8Array(64));
  const status = mapper.mapData(mapping, request, command, 0, line["userCommand"] === true);
  found["status"] = BLOCK_STATUS[status];
  found["events"] = events.take();
  if (status !== "ok") {
    if (pools.inUse + records.inUse > 0) throw new Error("a failure left descriptors or records in use");
    return { found, afterFailure: true };
  }

  const flags = command.getUint8(COMMAND.flags);
  const at = COMMAND.dataPointer;
  found["flags"] = hex(flags);
  found["single"] = mapping.form === "single";
  found["coalesced"] = mapping.data.range !== undefined;
  found["totalLen"] = mapping.bytes;
  if (mapping.data.range) found["iova"] = [hex(mapping.data.range.address), hex(mapping.data.range.length)];
  const blocks = mapping.blocks.slice(0, mapping.blockCount);
  if (blocks.length > 0) found["pool"] = blocks[0]!.view.byteLength === SMALL_BLOCK ? "small" : "large";
  const descriptor = (view: DataView, from: number): unknown[] => [
    hex(get64(view, from)),
    view.getUint32(from + SGL.length, true),
    hex(view.getUint8(from + SGL.identifier)),
  ];
  if (flags === POINTERS.prp) {
    found["prp"] = [hex(get64(command, at)), hex(get64(command, at + 8))];
    if (blocks.length > 0) found["lists"] = blocks.map(({ view }) => prpsIn(view));
  } else {
    found["sgl"] = descriptor(command, at);
    if (command.getUint8(at + SGL.identifier) === SGL_TYPE.lastSegment) {
      const entries = command.getUint32(at + SGL.length, true) / SGL_BYTES;
      found["lists"] = [Array.from({ length: entries }, (_, i) => descriptor(blocks[0]!.view, i * SGL_BYTES))];
    }
  }
  if (mapping.records) {
    const { addresses, lengths, count } = mapping.records;
    found["records"] = Array.from({ length: count }, (_, i) => [hex(addresses[i]!), lengths[i]!]);
  }
  mapper.unmap(mapping);
  found["unmapEvents"] = events.take();
  if (pools.inUse + records.inUse > 0) throw new Error("descriptors or records were not given back");
  return { found, afterFailure: false };
}

/** Slots of a fresh list page up to the last one used. */
function prpsIn(view: DataView): string[] {
  const slots: string[] = [];
  for (let at = 0; at < view.byteLength && get64(view, at) !== 0; at += 8) slots.push(hex(get64(view, at)));
  return slots;
}

export const WHOLE_UNLINK = "a request whose list could not be built is unlinked in its whole length";

const judge: Judge = (header, lines) => {
  const threshold = (header["sglThreshold"] as number | undefined) ?? DEFAULT_SGL_THRESHOLD;
  return judgeLines(lines, false, (line, _index, tally) => {
    const differences = new Differences();
    const { found, afterFailure } = judgeLine(line, threshold);
    const keys = afterFailure ? ["status", "gapBit", "segments", "vecs", "events"] : Object.keys(found);
    for (const key of new Set([...keys, ...KEYS.filter((name) => !afterFailure && name in line)])) {
      if (JSON.stringify(line[key]) === JSON.stringify(found[key])) continue;
      if (afterFailure && key === "events" && unlinksMore(line[key] as LayerEvent[], found[key] as LayerEvent[]))
        tally.rule(WHOLE_UNLINK);
      else differences.same(key, line[key], found[key]);
    }
    return differences.take();
  });
};

const KEYS = [
  "flags",
  "prp",
  "sgl",
  "lists",
  "records",
  "iova",
  "pool",
  "unmapEvents",
  "coalesced",
  "single",
  "totalLen",
];

/** The kernel takes back only what it had described of a range; we take back all that was linked, and then the same order. */
function unlinksMore(kernel: readonly LayerEvent[], ours: readonly LayerEvent[]): boolean {
  const linked = kernel.findIndex(([name]) => name === "syncMap");
  if (linked < 0 || JSON.stringify(kernel.slice(0, linked + 1)) !== JSON.stringify(ours.slice(0, linked + 1)))
    return false;
  const [, address, length] = kernel[linked]!;
  const [, pages, , page] = kernel.find(([name]) => name === "iovaAlloc")!;
  const last = hex(Number(address) + Number(length) - 1);
  const whole = [
    ["unmap", address, length, length],
    ["inv", address, last, 0],
    ["iovaFree", page, pages],
  ];
  const names = (events: readonly LayerEvent[]): string => events.map(([name]) => name).join();
  return (
    JSON.stringify(ours.filter(([name]) => /^(unmap|inv|iovaFree)$/.test(name as string))) === JSON.stringify(whole) &&
    names(kernel.filter(([name]) => name !== "cpuSyncCpu")) === names(ours.filter(([name]) => name !== "cpuSyncCpu"))
  );
}

export const judges: Readonly<Record<string, Judge>> = { "nvme-data-pointer": judge };
