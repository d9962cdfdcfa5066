/**
 * Where an example runs: on a simulated machine, or with real devices (docs/real-hardware.md).
 *
 * `--host linux --device 0000:04:00.0` (once for each device) says the second; the driver's code is the same.
 */
import { parseArgs } from "node:util";
import { Dma } from "../../src/dma/index.ts";
import { LinuxHost } from "../../src/hosts/linux/index.ts";
import { P2pRouter } from "../../src/p2p/index.ts";
import type { Clock, HostMemory, PciBar, PciDevice } from "../../src/platform/index.ts";

/** A device, its mapping functions, and where its memory BARs are. */
export interface Seat {
  readonly device: PciDevice;
  readonly dma: Dma;
  barMemory(index: number): PciBar | undefined;
}

/** What drivers need of a host. A simulated clock is moved by hand, so `run` waits for work. */
export interface Place {
  readonly seats: readonly Seat[];
  readonly memory: HostMemory;
  readonly clock: Clock;
  run<T>(work: Promise<T>): Promise<T>;
  close(): void;
}

/** The place that the command line says, with `devices` of them. */
export function openPlace(devices: number, simulated: () => Place): Place {
  const { values } = parseArgs({
    options: { host: { type: "string", default: "simulated" }, device: { type: "string", multiple: true } },
  });
  const { host, device: names = [] } = values;
  if (host === "simulated" && names.length === 0) return simulated();
  if (host !== "linux" || names.length !== devices)
    throw new Error(`--host linux${" --device ssss:bb:dd.f".repeat(devices)}, or nothing for the simulated machine`);
  return linux(names);
}

function linux(names: readonly string[]): Place {
  const host = new LinuxHost();
  try {
    const seats = names.map((name) => {
      const device = host.openDevice(name);
      const machine = { ...host.machine, peers: new P2pRouter() }; // its own memory, by bus addresses
      const dma = new Dma({ domain: device.domain, name: device.name, node: device.node, machine });
      return { device, dma, barMemory: (index: number) => device.barMemory(index) };
    });
    return { seats, memory: host.memory, clock: host.clock, run: (work) => work, close: () => host.close() };
  } catch (error) {
    host.close();
    throw error;
  }
}
