/**
 * Figures from inside the guest. Everything runs under emulation, so only ratios within one run mean anything: our driver
 * against the kernel's (fio, io_uring), calls to the kernel per request in three ways of mapping, our mapping against bare calls.
 */
import { spawnSync } from "node:child_process";
import { DmaAddr, type Iova, KiB, PhysAddr } from "../../../src/base/index.ts";
import { type DmaOps, type RequestRange, TwoStepOps } from "../../../src/consumers/block/index.ts";
import { Nvme } from "../../../src/consumers/nvme/index.ts";
import { Dma } from "../../../src/dma/index.ts";
import { DeviceMemory } from "../../../src/hosts/linux/device-memory.ts";
import { type BackEnd, type LinuxDevice, type LinuxHost, Sysfs, systemCalls } from "../../../src/hosts/linux/index.ts";
import { IommufdSpace } from "../../../src/hosts/linux/iommufd.ts";
import type { Report } from "./report.ts";

const SECONDS = 3;
const DEPTHS = [1, 32] as const;
const BLOCK = 4 * KiB;

/** The kernel's own driver: random reads of 4 KiB. */
export function kernelFigures(report: Report): void {
  for (const depth of DEPTHS) {
    const arguments_ = ["--name=reads", "--filename=/dev/nvme0n1", "--rw=randread", "--bs=4k", "--ioengine=io_uring"];
    const more = ["--direct=1", `--iodepth=${depth}`, "--time_based", `--runtime=${SECONDS}`, "--size=64M"];
    const run = spawnSync("fio", [...arguments_, ...more, "--output-format=json"], { encoding: "utf8" });
    const iops = JSON.parse(run.stdout.slice(run.stdout.indexOf("{")))?.jobs?.[0]?.read?.iops;
    report.figure(`kernel driver, fio, 4 KiB reads, ${depth} at once: requests a second`, Math.round(iops));
  }
}

/** One mapping for the whole run: addresses are arithmetic. For requests of contiguous memory inside it. */
class LongLivedDoor extends TwoStepOps {
  readonly #phys: number;
  readonly #address: number;

  constructor(dma: Dma, phys: PhysAddr, length: number) {
    super(dma);
    this.#phys = phys;
    this.#address = dma.mapPhys(phys, length, "bidirectional");
  }

  override tryReserveIova(length: number, phys: number): RequestRange {
    const address = (this.#address + phys - this.#phys) as Iova;
    return { address, length, link: () => {}, sync: () => {}, destroy: () => {} };
  }

  override mapPhys(phys: PhysAddr): DmaAddr {
    return DmaAddr(this.#address + phys - this.#phys);
  }

  override unmapPhys(): void {}
}

type Way = "mapping for each request" | "one mapping for long" | "one mapping for long, polled";

export async function figures(report: Report, host: LinuxHost, name: string, backEnd: BackEnd): Promise<void> {
  const ways: Way[] = ["mapping for each request", "one mapping for long", "one mapping for long, polled"];
  for (const way of ways)
    for (const depth of DEPTHS) {
      const { device } = host.openDevice(name, { backEnd, polled: way.endsWith("polled") });
      try {
        await reads(report, host, device, way, depth, `${backEnd}, ${way}`);
      } finally {
        device.close();
      }
    }
  for (const coalesce of [false, true]) {
    const { device } = host.openDevice(name, { backEnd, coalesce });
    linksOfARequest(report, host, device, `${backEnd}${coalesce ? ", coalesced" : ""}`);
    device.close();
  }
  if (backEnd === "iommufd") overRawCalls(report, host, name);
}

async function reads(
  report: Report,
  host: LinuxHost,
  device: LinuxDevice,
  way: Way,
  depth: number,
  what: string,
): Promise<void> {
  const dma = new Dma({ domain: device.domain, name: device.name, machine: host.dmaMachine });
  using buffer = host.memory.allocate(depth * BLOCK);
  const door: DmaOps | undefined = way.startsWith("one mapping")
    ? new LongLivedDoor(dma, buffer.phys, buffer.length)
    : undefined;
  const nvme = await Nvme.open(device, dma, { clock: host.clock, ...(door && { door }) });
  const calls = { ...device.domain.calls };
  let done = 0;
  const end = performance.now() + SECONDS * 1000;
  const reader = async (i: number): Promise<void> => {
    const vecs = [{ phys: PhysAddr(buffer.phys + i * BLOCK), length: BLOCK }];
    while (performance.now() < end) {
      await nvme.read(((done * 7919) % 16_384) * 8, vecs);
      done++;
    }
  };
  await Promise.all(Array.from({ length: depth }, (_, i) => reader(i)));
  const { maps, unmaps } = device.domain.calls;
  const perRequest = ((maps - calls.maps + unmaps - calls.unmaps) / done).toFixed(2);
  report.figure(`${what}, 4 KiB reads, ${depth} at once: requests a second`, Math.round(done / SECONDS));
  report.figure(`${what}, 4 KiB reads, ${depth} at once: calls to map and unmap a request`, perRequest);
  await nvme.close();
}

/** Calls for a request of 128 KiB that comes as 32 pages in a row. */
function linksOfARequest(report: Report, host: LinuxHost, { domain, name }: LinuxDevice, what: string): void {
  const dma = new Dma({ domain, name, machine: host.dmaMachine });
  using buffer = host.memory.allocate(128 * KiB);
  const before = { ...domain.calls };
  using range = dma.tryReserveIova({ length: 128 * KiB })!;
  for (let at = 0; at < 128 * KiB; at += 4096) range.link(at, PhysAddr(buffer.phys + at), 4096, "from-device");
  range.sync();
  range.destroy();
  const calls = domain.calls.maps + domain.calls.unmaps - before.maps - before.unmaps;
  report.figure(`${what}, 128 KiB of 32 pages in a row: calls to map and unmap`, calls);
}

/** A page mapped and unmapped through the DMA API, and by the two calls alone. */
function overRawCalls(report: Report, host: LinuxHost, name: string): void {
  const { device } = host.openDevice(name, { backEnd: "iommufd" });
  const dma = new Dma({ domain: device.domain, name, machine: host.dmaMachine });
  using buffer = host.memory.allocate(4096);
  const rounds = 3000;
  const nsOf = (work: () => void): number => {
    for (let i = 0; i < rounds; i++) work();
    const start = performance.now();
    for (let i = 0; i < rounds; i++) work();
    return ((performance.now() - start) * 1e6) / rounds;
  };
  const ours = nsOf(() => dma.unmapPhys(dma.mapPhys(buffer.phys, 4096, "to-device"), 4096, "to-device"));
  device.close();
  const space = new IommufdSpace(systemCalls(), new Sysfs().pciFunction(name)!.node!, name, new DeviceMemory());
  const raw = nsOf(() => {
    space.map(0x100_0000, buffer.phys, 4096, 1);
    space.unmap(0x100_0000, 4096);
  });
  space.close();
  report.figure("iommufd: mapping and unmapping a page, ours over the bare calls", (ours / raw).toFixed(2));
}
