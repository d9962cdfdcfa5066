/** Two simulated machines with RDMA adapters on one wire, a process on each, and a connection between them. */
import { Frames, type FramesOptions, SimulatedProcess, UserAddr } from "dmalink/process";
import {
  CompletionQueue,
  type ProtectionDomain,
  QueuePair,
  RdmaDevice,
  RdmaWire,
  type RdmaWireOptions,
  Rnic,
  type SendRequest,
  type WorkCompletion,
} from "dmalink/rdma";
import { SimulatedHost, type SimulatedPciDevice, VirtualClock } from "dmalink/sim";

export const START: UserAddr = UserAddr(2 ** 32);

/** One of the two. */
export interface Side {
  readonly host: SimulatedHost;
  readonly pci: SimulatedPciDevice;
  readonly frames: Frames;
  readonly process: SimulatedProcess;
  readonly device: RdmaDevice;
  readonly domain: ProtectionDomain;
  readonly queue: CompletionQueue;
  readonly pair: QueuePair;
}

function side(wire: RdmaWire, address: number, room: Partial<FramesOptions>): Side {
  const rootPorts = [{ switch: [{}, {}] }, {}];
  const host = new SimulatedHost({ iommu: {}, bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts }] });
  const adapter = new Rnic({ wire, address });
  const [pci] = host.plug("0.0.0", adapter) as [SimulatedPciDevice];
  pci.setBusMaster(true);
  const { pages, memory } = host.machine;
  const frames = new Frames({ pages, memory, hugetlbPages: 1, ...room });
  const process = new SimulatedProcess(frames);
  const { dma } = host.openDevice(pci.name);
  const device = new RdmaDevice({ adapter, dma, clock: wire.clock });
  const domain = device.allocateDomain();
  const queue = new CompletionQueue(device, 64);
  const pair = new QueuePair(device, { domain, sendCompletions: queue });
  return { host, pci, frames, process, device, domain, queue, pair };
}

/**
 * Both sides, connected, and `run`: posts a request of a side and lets time go on until it is done. `room`: how much memory each has.
 */
export function talkingMachines(
  bad: Partial<RdmaWireOptions> = {},
  room: Partial<FramesOptions> = {},
): {
  readonly wire: RdmaWire;
  readonly a: Side;
  readonly b: Side;
  readonly run: (side: Side, request: SendRequest) => WorkCompletion;
} {
  const clock = new VirtualClock();
  const wire = new RdmaWire({ clock, ...bad });
  const [a, b] = [side(wire, 1, room), side(wire, 2, room)];
  a.pair.connect({ peer: 2, peerNumber: b.pair.number });
  b.pair.connect({ peer: 1, peerNumber: a.pair.number });
  const run = ({ pair, queue }: Side, request: SendRequest): WorkCompletion => {
    pair.send(request);
    for (;;) {
      const done = queue.poll();
      if (done) return done;
      if (!clock.step()) throw new Error(`no answer to ${request.work}`);
    }
  };
  return { wire, a, b, run };
}
