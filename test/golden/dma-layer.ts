/**
 * Judges of the kinds two-step and scatterlist: the kernel's DMA-IOMMU layer, compiled by itself and driven by seeded
 * operations. Every argument, result and event is compared; dmalink runs as Linux does (`linuxCompatible`, unchecked).
 * Named rule `finer errno`: a list that the table refuses says why (ERANGE, EADDRINUSE), where the kernel says EINVAL.
 */
import { hex, type IovaPage, PhysAddr } from "../../src/base/index.ts";
import { Dma, type IovaRange, type PhysVec } from "../../src/dma/index.ts";
import { SimulatedUnit, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { type TableLayout, vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { P2pRouter } from "../../src/p2p/index.ts";
import type { HostBridge, PciNode } from "../../src/platform/index.ts";
import { Differences, type Header, type Judge, judgeLines, known, NotJudged } from "./judge.ts";
import { CountedArena, LayerEvents } from "./layer-events.ts";
import { attributesOf, directionOf, errnoOf, number } from "./words.ts";

const LEVELS = { three: 3, four: 4, five: 5 } as const;

/** The table of the domain that a file describes in words; not judged if it is another. */
function layoutOf(words: unknown): TableLayout {
  const [, levels, bits] = /vtdss, (three|four|five) levels(?:, OA (\d+) bits)?, granule 4K/.exec(String(words)) ?? [];
  if (levels === undefined || !String(words).includes("PCI device, no reservations"))
    throw new NotJudged(`a domain of which the judge knows only the words "${words}"`);
  return vtdSecondStage({
    levels: LEVELS[levels as keyof typeof LEVELS],
    ...(bits !== undefined && { outputBits: Number(bits) }),
  });
}

function layer(options: { layout: TableLayout; lazy: boolean; coherent: boolean; peers?: P2pRouter; node?: PciNode }): {
  events: LayerEvents;
  clock: VirtualClock;
  domain: DmaDomain;
  arena: CountedArena;
  dma: Dma;
} {
  const events = new LayerEvents();
  const clock = new VirtualClock();
  const arena = new CountedArena(events);
  const domain = new DmaDomain({
    layout: options.layout,
    unit: new SimulatedUnit(),
    clock,
    mode: options.lazy ? "lazy" : "strict",
    tableMemory: arena,
    observer: events,
    reserved: [],
  });
  const dma = new Dma({
    domain,
    coherent: options.coherent,
    observer: events,
    refusesMisuse: false,
    linuxCompatible: true,
    machine: { ...(options.peers && { peers: options.peers }) },
    ...(options.node && { node: options.node }),
  });
  return { events, clock, domain, arena, dma };
}

const judgeTwoStep: Judge = (header, lines) => {
  const { events, clock, domain, arena, dma } = layer({
    layout: layoutOf(header["domain"]),
    lazy: header["lazy"] === true,
    coherent: header["coherent"] === true,
  });
  const ranges = new Map<number, IovaRange>();
  return judgeLines(lines, true, (line) => {
    const at = (name: string): number => number(line[name]);
    const [direction, attributes] = [directionOf(line), attributesOf(line["attr"])];
    const as = { direction, ...(attributes && { attributes }) };
    const differences = new Differences();
    const range = (): IovaRange => {
      const found = ranges.get(at("id"));
      if (found === undefined) throw new NotJudged("a call on a range that could not be had");
      return found;
    };
    const operations: Readonly<Record<string, () => void>> = {
      tryAlloc: () => {
        dma.setMask(at("mask"));
        ranges.delete(at("id"));
        const found = dma.tryReserveIova({ length: at("size"), physOffset: at("phys") });
        differences.same("ok", line["ok"], found !== undefined);
        if (found === undefined) return;
        ranges.set(at("id"), found);
        differences.same("addr", line["addr"], hex(found.address));
      },
      link: () => {
        const errno = errnoOf(() =>
          range().link(at("offset"), PhysAddr(at("phys")), at("size"), direction, attributes),
        );
        differences.same("ret", line["ret"], errno);
      },
      sync: () =>
        differences.same(
          "ret",
          line["ret"],
          errnoOf(() => range().sync(at("offset"), at("size"))),
        ),
      unlink: () => range().unlink(at("offset"), at("size"), as),
      free: () => range().destroy(0),
      destroy: () => range().destroy(at("mappedLen"), as),
      mapPhys: () => {
        let address: string | null = null;
        errnoOf(() => {
          address = hex(dma.mapPhys(PhysAddr(at("pa")), at("len"), direction, attributes));
        });
        differences.same("addr", line["addr"], address);
      },
      unmapPhys: () => dma.unmapPhys(at("addr") as never, at("len"), direction, attributes),
      probe: () => {
        const page = domain.table.lookup(Math.floor(at("iova") / 4096) as IovaPage);
        differences.same("pa", line["pa"], page < 0 ? "0x0" : hex(page * 4096 + (at("iova") % 4096)));
      },
      tick: () => clock.advance(at("ms")),
    };
    const operation = known("the operation", operations, line["op"]);
    arena.failAt = (line["failAlloc"] as number | undefined) ?? 0;
    try {
      operation();
    } finally {
      arena.failAt = 0;
    }
    const seen = events.take();
    differences.same("events", line["events"] ?? [], seen);
    return differences.take();
  });
};

const judgeScatterlist: Judge = (header, lines) => {
  const { peers, node } = peersOf(header);
  const layout = layoutOf(header.what);
  return judgeLines(lines, false, (line, _index, tally) => {
    const { events, dma } = layer({ layout, lazy: false, coherent: line["coherent"] === true, peers, node });
    dma.setMask(number(line["mask"]));
    dma.setSegmentBoundary(number(line["segBoundary"]));
    dma.device.maxSegmentSize = number(line["maxSegSize"]);
    const list: PhysVec[] = (line["in"] as [string, number, number][]).map(([page, offset, length]) => ({
      phys: PhysAddr(number(page) + offset),
      length,
    }));
    const differences = new Differences();
    let mapping: ReturnType<Dma["mapScatterlist"]> | undefined;
    const errno = errnoOf(() => {
      mapping = dma.mapScatterlist(list, directionOf(line));
    });
    if (line["ret"] === -22 && errno !== 0) tally.rule("finer errno");
    else differences.same("ret", line["ret"], mapping ? mapping.segments.length : errno);
    differences.same("events", line["events"], events.take());
    if (mapping) {
      const out = mapping.segments.map(({ address, length, bus }) => [
        wrapped(address),
        hex(length),
        ...(bus ? ["bus"] : []),
      ]);
      differences.same("out", line["out"], out);
      mapping.unmap();
      differences.same("unmapEvents", line["unmapEvents"] ?? [], events.take());
    }
    return differences.take();
  });
};

/** Peers whose memory is where the file says, each behind a bridge of its own kind. */
function peersOf(header: Header): { peers: P2pRouter; node: PciNode } {
  const windows = header["barWindows"] as { bus: string[][]; hostBridge: string[]; unsupported: string[] };
  const bridge = (family: number): HostBridge => ({
    segment: 0,
    vendorId: 0,
    deviceId: 0,
    cpu: { vendor: "AMD", family },
  });
  let requester = 0;
  const node = (parent: PciNode | undefined, hostBridge: HostBridge): PciNode => ({
    requester: ++requester,
    kind: parent ? "endpoint" : "root-port",
    parent,
    hostBridge,
    acsControl: 0,
    present: true,
    externalFacing: false,
  });
  const [allowed, unknown] = [bridge(0x17), bridge(0xf)];
  const port = node(undefined, allowed);
  const peers = new P2pRouter();
  const add = (owner: PciNode, [start, last]: string[], busOffset: number): void => {
    const phys = PhysAddr(number(start));
    peers.add(owner, { index: 0, phys, length: number(last) + 1 - phys, busAddress: phys + busOffset });
  };
  for (const window of windows.bus) add(node(port, allowed), window, Number(BigInt.asIntN(64, BigInt(window[2]!))));
  add(node(node(undefined, allowed), allowed), windows.hostBridge, 0);
  add(node(node(undefined, unknown), unknown), windows.unsupported, 0);
  return { peers, node: node(port, allowed) };
}

/** Bus addresses are of 64 bits, whatever the offset. */
const wrapped = (address: number): string => `0x${BigInt.asUintN(64, BigInt(address)).toString(16)}`;

export const judges: Readonly<Record<string, Judge>> = { "two-step": judgeTwoStep, scatterlist: judgeScatterlist };
