/** Who is charged where three parts of the kernel pin the same memory, and memory that nobody is charged for. */
import { describe, expect, test } from "vitest";
import { MiB, PAGE_SIZE, type PhysPage } from "../../src/base/index.ts";
import { Iommufd } from "../../src/consumers/iommufd/index.ts";
import { RdmaDevice } from "../../src/consumers/rdma/index.ts";
import { Type1Container } from "../../src/consumers/vfio/index.ts";
import { Rnic, SimulatedHost, VirtualClock, Wire } from "../../src/hosts/simulated/index.ts";
import { ACCESS } from "../../src/layouts/rdma/index.ts";
import { UserAddr } from "../../src/platform/index.ts";
import { Stand, VA } from "./stand.ts";

const RW = { read: true, write: true, mmio: false };
const G = 64;
const LENGTH = BigInt(G * PAGE_SIZE);
const GROUND = 0x4000_0000n;

describe("the same memory by a container, by iommufd and by an RDMA adapter", () => {
  /** A process whose memory all three may have; the adapter is in a host of its own, on the same frames. */
  function setUp() {
    const stand = new Stand();
    const process = stand.process();
    const va = stand.memory(process, G * PAGE_SIZE);
    const clock = new VirtualClock();
    const host = new SimulatedHost({ memoryBytes: 16 * MiB });
    const adapter = new Rnic({
      wire: new Wire({ clock, seed: 1, lost: 0, late: 0, doubled: 0, damaged: 0 }),
      address: 1,
    });
    const [pci] = host.plug("0.0", adapter);
    pci!.setBusMaster(true);
    const { dma } = host.openDevice(pci!.name);
    const rdma = new RdmaDevice({ adapter, dma, clock });
    const domain = rdma.allocateDomain();
    const container = new Type1Container({ v2: true });
    container.attach({ devices: [stand.device()] });
    const iommufd = new Iommufd();
    const ioas = iommufd.createIoas();
    iommufd.attach(iommufd.bind(stand.device()), ioas.id);
    const access = ACCESS.localWrite | ACCESS.remoteWrite;
    let key = 0;
    return {
      process,
      steps: {
        container: [() => container.map(process, va, GROUND, LENGTH, RW), () => container.unmapAll()],
        iommufd: [() => iommufd.map(ioas, process, va, { iova: GROUND, length: LENGTH }), () => ioas.unmapAll()],
        rdma: [
          () => {
            key = rdma.register(domain, { process, address: VA, length: G * PAGE_SIZE, access }).key;
          },
          () => rdma.deregister(key),
        ],
      } as const,
    };
  }

  test("is on three different accounts: the address space's, the user's, and what is pinned", () => {
    const { process, steps } = setUp();
    const accounts = (): number[] => [
      process.memory.locked.pages,
      process.user.locked.pages,
      process.memory.pinned.pages,
    ];
    steps.rdma[0]();
    expect(accounts()).toEqual([0, 0, G]); // not locked: RDMA has a counter of its own
    steps.container[0]();
    expect(accounts()).toEqual([G, 0, G]);
    steps.iommufd[0]();
    expect(accounts()).toEqual([G, G, 2 * G]); // iommufd tells what it pinned there too
    steps.rdma[1]();
    expect(accounts()).toEqual([G, G, G]);
    steps.container[1]();
    steps.iommufd[1]();
    expect(accounts()).toEqual([0, 0, 0]);
  });

  test.each([
    [["container", "iommufd", "rdma"]],
    [["rdma", "container", "iommufd"]],
    [["iommufd", "rdma", "container"]],
  ] as const)("is nobody's again when it goes in the order %j", (order) => {
    const { process, steps } = setUp();
    for (const who of ["rdma", "iommufd", "container"] as const) steps[who][0]();
    for (const who of order) steps[who][1]();
    expect([process.memory.locked.pages, process.user.locked.pages, process.memory.pinned.pages]).toEqual([0, 0, 0]);
  });

  test("is held to the limit by each on its own account", () => {
    const { process, steps } = setUp();
    process.memlockBytes = 1.5 * G * PAGE_SIZE;
    for (const who of ["container", "iommufd"] as const) steps[who][0]();
    expect(process.memory.pinned.pages).toBe(G);
    process.memlockBytes = 0.5 * G * PAGE_SIZE;
    expect(() => steps.rdma[0]()).toThrow();
    expect(process.memory.pinned.pages).toBe(G);
  });
});

describe("registers of a device that a process has mapped", () => {
  const REGISTERS = 0x8_0000 as PhysPage;

  /** Four pages of memory, four of registers, four of memory. */
  function setUp() {
    const stand = new Stand();
    const process = stand.process();
    const va = stand.memory(process, 4 * PAGE_SIZE);
    process.memory.map({ address: UserAddr(VA + 4 * PAGE_SIZE), length: 4 * PAGE_SIZE, io: REGISTERS, shared: true });
    stand.memory(process, 4 * PAGE_SIZE, VA + 8 * PAGE_SIZE);
    return { stand, process, va, device: stand.device() };
  }

  test("are followed by a container: reached, neither pinned nor charged; beside them memory is", () => {
    const { stand, process, va, device } = setUp();
    const container = new Type1Container({ v2: true });
    container.attach({ devices: [device] });
    container.map(process, va, GROUND, 12n * 4096n, RW);
    const reached = Array.from({ length: 12 }, (_, i) => stand.reach(device, Number(GROUND) + i * PAGE_SIZE));
    expect(reached.slice(4, 8)).toEqual([0, 1, 2, 3].map((i) => REGISTERS + i));
    expect(reached[0]).toBe(stand.pageOf(process.memory, VA));
    expect(reached[11]).toBe(stand.pageOf(process.memory, VA + 11 * PAGE_SIZE));
    expect(process.memory.locked.pages).toBe(8);
    expect(container.unmap(GROUND, 12n * 4096n)).toBe(12n * 4096n);
    expect([process.memory.locked.pages, ...stand.pins(process.memory, 4)]).toEqual([0, 0, 0, 0, 0]);
  });

  test("are read back for a second domain, and go with a part that is cut off", () => {
    const { stand, process, va, device } = setUp();
    const container = new Type1Container({ v2: true, unmapSplits: true });
    container.attach({ devices: [device] });
    container.map(process, va, GROUND, 12n * 4096n, RW);
    expect(container.unmap(GROUND + 6n * 4096n, 4n * 4096n)).toBe(4n * 4096n);
    expect(process.memory.locked.pages).toBe(6);
    expect(stand.reach(device, Number(GROUND) + 5 * PAGE_SIZE)).toBe(REGISTERS + 1);
    container.unmapAll();
    expect(process.memory.locked.pages).toBe(0);
  });

  test("are refused by iommufd, which leaves nothing behind", () => {
    const { stand, process, va, device } = setUp();
    const iommufd = new Iommufd();
    const ioas = iommufd.createIoas();
    iommufd.attach(iommufd.bind(device), ioas.id);
    expect(() => iommufd.map(ioas, process, va, { iova: GROUND, length: 12n * 4096n })).toThrow();
    expect([process.user.locked.pages, ...stand.pins(process.memory, 4)]).toEqual([0, 0, 0, 0, 0]);
    expect(stand.reach(device, Number(GROUND))).toBe(-1);
  });
});
