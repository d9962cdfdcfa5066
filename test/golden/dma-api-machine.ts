/** Operations of the kind dma-api on the machine: devices, domains, limits, clock, pool, peers, and DMA debugging. */
import { PhysAddr } from "../../src/base/index.ts";
import { requesterName } from "../../src/layouts/pci/index.ts";
import type { P2pProvider, P2pState } from "../../src/p2p/index.ts";
import type { Operation, Replay } from "./dma-api-replay.ts";
import { known, type Line, NotJudged } from "./judge.ts";
import { hex } from "./kernel-events.ts";
import { MAP_TYPES, type RecordedNode } from "./p2p-machine.ts";
import { errnoOf, number } from "./words.ts";

export function machineOperations(replay: Replay): Readonly<Record<string, Operation>> {
  const { machine, state, misuse } = replay;
  return {
    note: () => {},
    queueTimeout: () => {}, // what the timer did is said where it ran
    device: (line) => {
      if (line["found"] !== false) machine.addDevice(replay.dev, line["name"] as string, line["untrusted"] === true);
    },
    domain: (line, _held, index) => {
      if (line["ret"] === undefined) machine.enter(replay.dev, line["type"] as string, domainId(replay, index));
    },
    set: (line) => set(replay, line),
    query: (line) => state.query(line, replay.dev),
    poolIndex: (line) => state.poolIndex(line),
    pool: (line) => state.pool(line),
    wait: (line) => wait(replay, line),
    bindDriver: () => misuse?.debug.driverBound(replay.dma.device, "dmat"),
    unbindDriver: () => misuse?.debug.driverUnbound(replay.dma.device),
    dmaDebug: (line) => misuse?.compareState(line, replay.differences),
  };
}

export function peerOperations(replay: Replay): Readonly<Record<string, Operation>> {
  const { machine } = replay;
  const { peers, tree } = machine;
  const providers = new Map<number, P2pProvider>();
  const published = new Set<number>();
  const node = (index: unknown): RecordedNode => {
    const found = tree.devices[number(index)];
    if (!found?.isPlaced) throw new NotJudged(`where device ${index} stands in the PCI tree is not known to the judge`);
    return found;
  };
  const offered = (line: Line): void => replay.same("ret", line["ret"], 0);
  return {
    p2pAddResource: (line) => {
      offered(line);
      published.add(replay.dev);
    },
    p2pInit: offered, // the kernel makes a provider of every BAR then; the next line says which one is used
    bar: (line) => {
      const bar = tree.bars.get(replay.dev)!;
      replay.same("start", line["start"], hex(bar.phys));
      providers.set(replay.dev, peers.add(node(replay.dev), bar, published.has(replay.dev)));
    },
    acs: (line) => {
      const port = node(replay.dev);
      if (line["write"] !== undefined) port.writeAcs(number(line["write"]));
      replay.same("control", line["control"], hex(port.acsControl));
    },
    p2pAlloc: (line) => {
      const provider = peers.providerOf(PhysAddr(number(line["phys"])));
      replay.same(
        "owner",
        requesterName(node(replay.dev).requester),
        provider && requesterName(provider.owner.requester),
      );
      replay.same("bus", line["bus"], provider && hex(provider.busAddress(PhysAddr(number(line["phys"])))));
    },
    p2pFree: () => {},
    p2pFind: (line) => {
      const owner = peers.nearest([node(line["client"])]);
      replay.same("ret", line["ret"], owner ? requesterName(owner.requester) : "");
    },
    p2pMapType: (line) => {
      const provider = providers.get(number(line["provider"]));
      if (!provider) throw new NotJudged(`device ${line["provider"]} provides memory that no line describes`);
      replay.same("type", line["type"], MAP_TYPES[peers.mapType(provider, node(line["client"]))]);
      replay.same("busOffset", line["busOffset"], hex(provider.busOffset));
    },
    p2pDistance: (line) =>
      replay.same("ret", line["ret"], peers.distance(node(line["provider"]), node(line["client"]))),
    p2pState: (line) => {
      const run: P2pState = { type: undefined, provider: undefined };
      const found = (line["pages"] as string[]).map((page) => {
        const phys = PhysAddr(number(page));
        const type = peers.stateOf(run, phys, node(line["client"]));
        const { provider } = run;
        return [
          MAP_TYPES[type],
          run.type === undefined ? 0 : MAP_TYPES[run.type],
          provider ? requesterName(provider.owner.requester) : "",
          hex(provider ? provider.busAddress(phys) : 0),
        ];
      });
      replay.same("states", line["states"], found);
    },
  };
}

function set(replay: Replay, line: Line): void {
  const { dma } = replay;
  const value = number(line["value"]);
  const limits: Readonly<Record<string, () => void>> = {
    mask: () => dma.setMask(value),
    coherentMask: () => dma.setCoherentMask(value),
    segBoundaryMask: () => dma.setSegmentBoundary(value),
    maxSegSize: () => {
      dma.device.maxSegmentSize = value;
    },
    busDmaLimit: () => {
      dma.device.busLimit = value;
    },
    minAlignMask: () => {
      dma.device.minAlignMask = value;
    },
  };
  replay.same("ret", line["ret"], errnoOf(known("the limit", limits, line["what"])));
}

function wait(replay: Replay, line: Line): void {
  const { clock, events } = replay.machine;
  const timer = line["timer"] as { flushAll: number; iovaFree: number } | undefined;
  if (!timer) return; // the kernel's queue timer was raised to ten minutes
  clock.advance(number(line["ms"]));
  const seen = events.take();
  const count = (name: string): number => seen.filter(([event]) => event === name).length;
  replay.same("flushes", timer.flushAll, count("invAll"));
  replay.same("freed", timer.iovaFree, count("iovaFree"));
}

/** The domain id that the next descriptors for the device say; one that is nobody's if none comes before its next domain. */
function domainId(replay: Replay, index: number): number {
  const { lines, dev } = replay;
  const devices = new Map<unknown, unknown>();
  let here = lines[index]?.["dev"];
  for (const [at, line] of lines.entries()) {
    const { id, op } = line;
    here = line["dev"] ?? devices.get(id) ?? here;
    if (id !== undefined) devices.set(id, here);
    if (at <= index || here !== dev) continue;
    if (op === "domain" && line["type"] !== "identity") break;
    for (const event of (line["events"] ?? []) as string[][])
      if (event[0] === "qi" && [2n, 6n].includes(BigInt(event[1]!) & 0xfn))
        return Number((BigInt(event[1]!) >> 16n) & 0xffffn);
  }
  return 0x8000 + dev;
}
