/**
 * The contract that every host must keep: simulated machines (strict, lazy, non-coherent, without an IOMMU), and the Linux
 * host on a kernel made up. On a real kernel and a real device the same cases run in test/hardware.
 */
import { afterEach, describe, expect, test } from "vitest";
import { DmaAddr, PAGE_SIZE, PhysAddr, PhysPage } from "../../src/base/index.ts";
import { type BackEnd, LinuxHost } from "../../src/hosts/linux/index.ts";
import { DmaEngine, SimulatedHost } from "../../src/hosts/simulated/index.ts";
import { Stand, type StandOptions } from "../dma/stand.ts";
import { FakeKernel } from "../hardware/fake-kernel.ts";
import { DISK, FakeMachine } from "../hardware/fake-machine.ts";
import { type AnyHost, runCase, whyNot } from "./any-host.ts";
import { anyHostCases } from "./any-host-cases.ts";
import { anyLinuxHost } from "./any-linux-host.ts";
import { formats } from "./formats.ts";

const ONE_SHOT = "a one-shot mapping moves exactly its bytes, at any offset and of any length";

function simulated(options: StandOptions): AnyHost {
  const stand = new Stand({ ...options, bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{}, {}] }] });
  const { dma, engine, machine, host, granule } = stand;
  const within = new Uint8Array(4096); // of the device: a refused read changes nothing in it
  return {
    dma,
    capabilities: {
      bounce: true,
      cacheControl: true,
      peerRoutes: true,
      lazy: options.coherent ?? true, // what is in caches has to be taken back at once
      splits: true,
      physicalAddresses: true,
    },
    allocate(bytes) {
      const per = granule / PAGE_SIZE;
      const pages = Math.ceil(bytes / granule) * per + per - 1;
      const page = machine.ram.allocatePages(pages)!;
      return {
        phys: PhysPage.start((Math.ceil(page / per) * per) as PhysPage),
        free: () => machine.ram.freePages(page, pages),
      };
    },
    peerMemory() {
      const owner = machine.plug("0.1", new DmaEngine({ memoryBytes: granule }))[0]!;
      owner.writeConfig(4, 2, 2); // it answers for its memory
      host.peers.add(owner.node, owner.node.bars[0]!);
      return owner.node.bars[0]!.phys;
    },
    copy(from, to, length) {
      engine.read(DmaAddr(from), within.subarray(0, length));
      engine.write(DmaAddr(to), within.slice(0, length));
    },
    settle: () => stand.flush(),
    state: () => stand.state,
  };
}

/** A machine whose IOMMU keeps the mappings itself. */
function virtio(mode: "strict" | "lazy"): AnyHost {
  const host = new SimulatedHost({
    iommu: { unit: "virtio", mode },
    pool: { slots: 2048 },
    bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{}, {}] }],
  });
  const { machine, peers, capabilities } = host;
  const engine = new DmaEngine();
  host.plug("0.0", engine)[0]!.setBusMaster(true);
  const { dma } = host.openDevice(machine.devices[0]!.name);
  const within = new Uint8Array(4096);
  return {
    dma,
    capabilities: { ...capabilities, lazy: true },
    allocate(bytes) {
      const pages = Math.ceil(bytes / PAGE_SIZE);
      const page = machine.ram.allocatePages(pages)!;
      return { phys: PhysPage.start(page), free: () => machine.ram.freePages(page, pages) };
    },
    peerMemory() {
      const owner = host.plug("0.1", new DmaEngine({ memoryBytes: PAGE_SIZE }))[0]!;
      owner.writeConfig(4, 2, 2);
      peers.add(owner.node, owner.node.bars[0]!);
      return owner.node.bars[0]!.phys;
    },
    copy(from, to, length) {
      engine.read(DmaAddr(from), within.subarray(0, length));
      engine.write(DmaAddr(to), within.slice(0, length));
    },
    settle: () => host.clock.advance(1000),
    state: () => ({ ...machine.snapshot(), "peer providers": 0, mappings: host.virtio!.hardware.mappings }),
  };
}

const opened: LinuxHost[] = [];
afterEach(() => {
  for (const host of opened.splice(0)) host.close();
});

/** The Linux host on a kernel made up; the device goes byte by byte through what that kernel was told to map. */
function linux(backEnd: BackEnd, coalesce = false): AnyHost {
  using sysfs = new FakeMachine({ driver: "vfio-pci" });
  const kernel = new FakeKernel();
  const host = new LinuxHost({ sys: kernel, sysfs });
  opened.push(host);
  const within = new Uint8Array(4096);
  return anyLinuxHost(host, host.openDevice(DISK, { backEnd, coalesce }).device, 2 ** 28 - 1, (from, to, length) => {
    for (let i = 0; i < length; i++) {
      const source = kernel.reached(from + i, false);
      if (source) within[i] = source.bytes[source.at]!;
    }
    for (let i = 0; i < length; i++) {
      const target = kernel.reached(to + i, true);
      if (target) target.bytes[target.at] = within[i]!;
    }
  });
}

const layout = (name: string) => ({ layout: formats.find((each) => each.name === name)!.layout() });
const HOSTS: Readonly<Record<string, () => AnyHost>> = {
  "simulated, strict, VT-d second stage": () => simulated(layout("VT-d second stage, 4 levels")),
  "simulated, strict, x86-64, 4 KiB alone": () => simulated(layout("x86-64, 4 KiB alone")),
  "simulated, strict, AMD v1": () => simulated(layout("AMD v1")),
  "simulated, strict, non-coherent, AMD v1": () => simulated({ ...layout("AMD v1"), coherent: false }),
  "simulated, lazy, VT-d second stage": () => simulated({ ...layout("VT-d second stage, 4 levels"), mode: "lazy" }),
  "simulated, lazy, RISC-V Sv39": () => simulated({ ...layout("RISC-V Sv39"), mode: "lazy" }),
  "simulated, strict, virtio-iommu": () => virtio("strict"),
  "simulated, lazy, virtio-iommu": () => virtio("lazy"),
  "simulated, direct": () => simulated({}),
  "Linux, iommufd": () => linux("iommufd"),
  "Linux, type1": () => linux("type1"),
  "Linux, iommufd, links coalesced": () => linux("iommufd", true),
};

for (const [name, make] of Object.entries(HOSTS))
  describe(`any host: ${name}`, () => {
    const host = make();
    for (const each of anyHostCases) {
      const reason = whyNot(host, each);
      test(each.name, ({ skip }) => {
        skip(reason !== undefined, reason);
        return runCase(make(), each);
      });
    }
  });

describe("a host that breaks the contract is found out", () => {
  /** Names of the cases that a host fails which is like a good one, but for `lie`. */
  async function failed(make: () => AnyHost, lie: (host: AnyHost) => Partial<AnyHost>): Promise<string[]> {
    const names: string[] = [];
    for (const each of anyHostCases) {
      const good = make();
      const host = { ...good, ...lie(good) };
      if (whyNot(host, each) !== undefined) continue;
      await runCase(host, each).catch(() => names.push(each.name));
    }
    return names;
  }

  for (const [name, make] of Object.entries(HOSTS).filter(([name]) => name.includes("VT-d") || name.includes("Linux")))
    test(`${name}: as it is, it keeps it`, async () => {
      expect(await failed(make, () => ({}))).toEqual([]);
    });

  test("whose device writes one byte too many", async () => {
    const names = await failed(HOSTS["Linux, type1"]!, ({ copy }) => ({
      copy: (from, to, length) => copy(from, to, length < 4096 ? length + 1 : length),
    }));
    expect(names).toContain(ONE_SHOT);
    expect(names).toContain("links in any order, ragged at both ends, are one run for the device");
  });

  test("whose device still reaches what was unmapped", async () => {
    const names = await failed(HOSTS["simulated, strict, VT-d second stage"]!, ({ dma, copy }) => {
      const known = new Map<number, number>();
      const { memory } = dma.device.machine;
      return {
        copy(from, to, length) {
          const translate = (address: number): PhysAddr => {
            const page = Math.floor(address / PAGE_SIZE);
            const now = dma.domain!.lookup(page as never);
            if (now >= 0 && !known.has(page)) known.set(page, now);
            return PhysAddr((known.get(page) ?? -1) * PAGE_SIZE + (address % PAGE_SIZE));
          };
          const [source, target] = [translate(from), translate(to)];
          if (source < 0 || target < 0) return copy(from, to, length);
          const bytes = new Uint8Array(length);
          memory!.read(source, bytes);
          memory!.write(target, bytes);
        },
      };
    });
    expect(names).toContain("what was unmapped is out of the device's reach");
    expect(names).toContain("unlink takes a piece away at once, and only it; what is linked there next is reached");
    expect(names).toContain(
      "after a lazy unlink and a flush, a link or the end, nothing is reached; neighbours are until the end",
    );
  });

  test("that claims what it cannot do", async () => {
    const all = { bounce: true, lazy: true, splits: true, physicalAddresses: true, cacheControl: true };
    const names = await failed(HOSTS["Linux, iommufd"]!, ({ capabilities }) => ({
      capabilities: { ...capabilities, ...all },
    }));
    for (const name of [
      "the capabilities are those of the machine that mapping works with",
      "an untrusted device sees zeroes after its bytes",
      "a part of one link is unlinked, and only that",
      "any number of lazy unlinks is one invalidation",
      "memory that nobody allocated can be mapped: addresses are the machine's",
    ])
      expect(names).toContain(name);
  });
});
