/** Shared buffers: who may attach, what a map gives in which topology, and what is refused. */
import { describe, expect, test } from "vitest";
import {
  fillPage,
  pageValues,
  type SharingDevice,
  sharingMachine,
  untilItWaits,
} from "../../../test/models/sharing-machine.ts";
import { DmaError, KiB, MiB, PhysAddr } from "../../base/index.ts";
import { Dma } from "../../dma/index.ts";
import { SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { Frames, SimulatedFile } from "../../hosts/simulated/process/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { ACS } from "../../layouts/pci/index.ts";
import { P2pRouter } from "../../p2p/index.ts";
import { finish } from "../../platform/index.ts";
import {
  type Attachment,
  BarPages,
  checkVectors,
  classOf,
  DmaBuf,
  Fence,
  type Importer,
  type ImporterOps,
  LONGEST_RANGE,
  matchTypes,
  PhysList,
  peerVectors,
  SystemHeap,
  sliceOf,
  UserMemoryBuffers,
  VfioDeviceMemory,
} from "./index.ts";

const codeOf = (call: () => unknown): string => {
  try {
    call();
  } catch (error) {
    if (error instanceof DmaError) return `${error.code} ${error.errno}`;
    throw error;
  }
  return "done";
};

const DYNAMIC: ImporterOps = { peerToPeer: true, invalidated: () => {} };
const importer = ({ name, open }: SharingDevice, ops?: ImporterOps): Importer => ({
  name,
  dma: open.dma,
  ...(ops && { ops }),
});
const map = (buffer: DmaBuf, attachment: Attachment) =>
  buffer.reservation.locked(() => attachment.map("bidirectional"));
const unmap = (buffer: DmaBuf, attachment: Attachment) => buffer.reservation.locked(() => attachment.unmap());

/** Parts of the owner's memory through VFIO: page i of all is filled with i + 1. */
function vfio(machine: ReturnType<typeof sharingMachine>, parts: readonly (readonly [number, number])[]) {
  const { owner, host } = machine;
  const { provider } = owner;
  const device = new VfioDeviceMemory(owner.name, new Map([[0, { lengthBytes: provider.bar.length, provider }]]));
  const ranges = parts.map(([offset, length]) => ({ offset: BigInt(offset), length: BigInt(length) }));
  const { buffer } = device.export({ region: 0, openFlags: 2, flags: 0, ranges });
  let page = 0;
  for (const { phys, length } of buffer.exporter.vectors())
    for (let at = 0; at < length; at += 4096) fillPage(host, PhysAddr(phys + at), ++page);
  return { device, buffer };
}

describe("the way to a peer's memory is", () => {
  const cases = [
    ["its own, for the same function", "owner", true, 0, "bus"],
    ["the bus, below the same switch", "near", true, 0, "bus"],
    ["the host bridge, below the same switch with redirection", "near", true, ACS.requestRedirect, "translated"],
    ["the host bridge, below another root port", "far", true, 0, "translated"],
    ["none, where the host bridge does not route", "far", false, 0, "ERR_DMA_BUF_UNREACHABLE EINVAL"],
    [
      "none, with redirection where the host bridge does not route",
      "near",
      false,
      ACS.requestRedirect,
      "ERR_DMA_BUF_UNREACHABLE EINVAL",
    ],
  ] as const;
  test.each(cases)("%s", (_title, client, amd, acs, expected) => {
    const machine = sharingMachine({ amd, peers: { followAcs: true } });
    const { buffer } = vfio(machine, [[0, 8192]]);
    const device = machine[client];
    if (acs) (device.open.device.node.parent as { acsControl: number }).acsControl = acs;
    const attachment = buffer.attach(importer(device, DYNAMIC));
    const before = device.open.dma.counters.snapshot();
    if (expected.startsWith("ERR")) {
      expect(codeOf(() => map(buffer, attachment))).toBe(expected);
      return;
    }
    const { ranges } = map(buffer, attachment);
    expect(ranges.map(({ bus }) => (bus ? "bus" : "translated"))).toEqual([expected]);
    const { leavesWritten, mapSyncs, iovaAllocations } = device.open.dma.counters.since(before);
    expect([leavesWritten, mapSyncs, iovaAllocations]).toEqual(expected === "bus" ? [0, 0, 0] : [2, 1, 1]);
    if (client !== "owner") expect(pageValues(device.read(ranges))).toEqual([1, 2]);
    unmap(buffer, attachment);
    expect(device.open.domain?.table.lookup(0 as never)).toBe(-1);
  });
});

describe("a mapping", () => {
  test("of three vectors is one run of addresses, each part where it belongs, and leaves no entry", () => {
    const machine = sharingMachine();
    const { buffer } = vfio(machine, [
      [0, 8192],
      [64 * KiB, 4096],
      [32 * KiB, 12_288],
    ]);
    const attachment = buffer.attach(importer(machine.far, DYNAMIC));
    const { ranges, tableEntries } = map(buffer, attachment);
    expect([ranges.length, ranges[0]?.length, tableEntries]).toEqual([1, 24_576, 0]);
    expect(pageValues(machine.far.read(ranges))).toEqual([1, 2, 3, 4, 5, 6]);
    unmap(buffer, attachment);
    const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = machine.counters(machine.far);
    expect([leavesWritten - leavesCleared, iovaAllocations - iovaFrees]).toEqual([0, 0]);
    expect(machine.far.read(ranges)).toBeUndefined();
  });

  test("of three vectors fails as Linux's does where the device is compatible, and loses what was not linked", () => {
    const machine = sharingMachine({ far: { linuxCompatible: true, refusesMisuse: false } });
    const { buffer } = vfio(machine, [
      [0, 8192],
      [64 * KiB, 4096],
    ]);
    const { dma } = machine.far.open;
    const attachment = buffer.attach(importer(machine.far, DYNAMIC));
    expect(codeOf(() => map(buffer, attachment))).toBe("ERR_DMA_MAP EADDRINUSE");
    const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = dma.counters;
    expect([leavesWritten - leavesCleared, iovaAllocations, iovaFrees]).toEqual([0, 1, 1]);
    // Of three pages two came back, and they are given out as if they were all there was.
    expect(dma.tryReserveIova({ length: 12_288 })!.address).not.toBe(dma.tryReserveIova({ length: 12_288 })!.address);
    expect(buffer.liveMaps).toBe(0);
  });

  test.each([
    [8 * 2 ** 30, [LONGEST_RANGE, LONGEST_RANGE, 8192]],
    [4 * 2 ** 30, [LONGEST_RANGE, 4096]],
    [LONGEST_RANGE, [LONGEST_RANGE]],
  ])("of a BAR of %i bytes has entries of at most 4 GiB less a page", (length, lengths) => {
    const bridge = { segment: 0, vendorId: 0, deviceId: 0, cpu: { vendor: "AMD", family: 0x19 } };
    const node = (requester: number) =>
      ({
        requester,
        kind: "root-endpoint",
        parent: undefined,
        hostBridge: bridge,
        acsControl: 0,
        present: true,
        externalFacing: false,
      }) as const;
    const peers = new P2pRouter();
    const provider = peers.add(node(1), {
      index: 0,
      phys: PhysAddr(2 ** 40),
      length: 8 * 2 ** 30,
      busAddress: 2 ** 40,
    });
    const domain = new DmaDomain({
      layout: vtdSecondStage(),
      unit: new SimulatedUnit(),
      clock: new VirtualClock(),
      mode: "strict",
    });
    const dma = new Dma({ domain, node: node(2), machine: { peers }, mask: 2 ** 64 });
    const buffer = new DmaBuf(peerVectors({ name: "big", provider, parts: [{ offset: 0, length }] }));
    const attachment = buffer.attach({ name: "importer", dma, ops: DYNAMIC });
    expect(map(buffer, attachment).ranges.map((range) => range.length)).toEqual(lengths);
    expect(buffer.counts.entries).toBe(lengths.length);
    buffer.reservation.locked(() => attachment.unmap());
  });

  test("through a bus address never uses the CPU's address", () => {
    const bridge = { segment: 0, vendorId: 0, deviceId: 0, cpu: { vendor: "AMD", family: 0x19 } };
    const parent = {
      requester: 8,
      kind: "root-port",
      parent: undefined,
      hostBridge: bridge,
      acsControl: 0,
      present: true,
      externalFacing: false,
    } as const;
    const node = (requester: number) => ({ ...parent, requester, kind: "endpoint", parent }) as const;
    const peers = new P2pRouter();
    const bar = { index: 0, phys: PhysAddr(2 ** 40), length: MiB, busAddress: 2 ** 32 };
    const provider = peers.add(node(1), bar);
    const buffer = new DmaBuf(peerVectors({ name: "peer", provider, parts: [{ offset: 4096, length: 4096 }] }));
    const attachment = buffer.attach({
      name: "importer",
      dma: new Dma({ node: node(2), machine: { peers } }),
      ops: DYNAMIC,
    });
    expect(map(buffer, attachment).ranges).toEqual([{ address: 2 ** 32 + 4096, length: 4096, bus: true }]);
  });

  test("without an IOMMU uses the CPU's address through the host bridge, entry by entry", () => {
    const machine = sharingMachine({ iommu: undefined });
    const { buffer } = vfio(machine, [
      [0, 4096],
      [8192, 4096],
    ]);
    const attachment = buffer.attach(importer(machine.far, DYNAMIC));
    const { ranges } = map(buffer, attachment);
    expect(ranges.map(({ length }) => length)).toEqual([4096, 4096]);
    expect(pageValues(machine.far.read(ranges))).toEqual([1, 2]);
  });

  test("of peer memory for a device that would have to bounce is refused, and leaves nothing", () => {
    const machine = sharingMachine({ iommu: undefined, pool: { slots: 1024 }, far: { forceBounce: true } });
    const { buffer } = vfio(machine, [[0, 4096]]);
    const attachment = buffer.attach(importer(machine.far, DYNAMIC));
    expect(codeOf(() => map(buffer, attachment))).toBe("ERR_DMA_BUF_MAP ENOMEM");
    expect([buffer.liveMaps, attachment.mapping]).toEqual([0, undefined]);
  });
});

describe("importers", () => {
  const classes = [
    ["static", undefined, "static"],
    ["pinned", { peerToPeer: true }, "pinned"],
    ["dynamic", DYNAMIC, "dynamic"],
  ] as const;
  test.each(classes)("without promises and with: %s", (_name, ops, expected) => {
    const { dma } = sharingMachine().near.open;
    expect(classOf({ name: "one", dma, ...(ops && { ops }) })).toBe(expected);
  });

  test.each([
    ["static", undefined, "ERR_DMA_BUF_IMPORTER EOPNOTSUPP"],
    ["pinned, which cannot lose it", { peerToPeer: true }, "ERR_DMA_BUF_IMPORTER EOPNOTSUPP"],
    ["dynamic, without a way to peers", { ...DYNAMIC, peerToPeer: false }, "ERR_DMA_BUF_IMPORTER EOPNOTSUPP"],
    ["dynamic", DYNAMIC, "done"],
  ] as const)("of the memory of a VFIO device: %s", (_name, ops, expected) => {
    const machine = sharingMachine();
    const { buffer } = vfio(machine, [[0, 4096]]);
    expect(codeOf(() => buffer.attach(importer(machine.far, ops)))).toBe(expected);
  });

  test("that are static pin the storage with their mapping, and unpin it when it fails", () => {
    const machine = sharingMachine();
    let pins = 0;
    let refusal: DmaError | undefined;
    const exporter = peerVectors({
      name: "own",
      provider: machine.owner.provider,
      parts: [{ offset: 0, length: 4096 }],
      pin: () => {
        pins++;
        return refusal;
      },
    });
    const buffer = new DmaBuf(exporter);
    const attachment = buffer.attach(importer(machine.far));
    map(buffer, attachment);
    expect([pins, buffer.pins]).toEqual([1, 1]);
    unmap(buffer, attachment);
    expect(buffer.pins).toBe(0);
    refusal = new DmaError("ERR_DMA_BUF_PIN", "EBUSY", "no");
    expect(codeOf(() => map(buffer, attachment))).toBe("ERR_DMA_BUF_PIN EBUSY");
    const dynamic = buffer.attach(importer(machine.other, DYNAMIC));
    expect(codeOf(() => buffer.reservation.locked(() => dynamic.pin()))).toBe("ERR_DMA_BUF_PIN EBUSY");
    expect(codeOf(() => map(buffer, dynamic))).toBe("done");
    expect(buffer.pins).toBe(0);
  });
});

describe("what is misused is refused, and nothing is left", () => {
  function shared() {
    const machine = sharingMachine();
    const { buffer, device } = vfio(machine, [[0, 4096]]);
    return { machine, buffer, device, attachment: buffer.attach(importer(machine.far, DYNAMIC)) };
  }

  test("calls that need the lock, without it", () => {
    const { buffer, attachment } = shared();
    for (const call of [
      () => attachment.map("to-device"),
      () => attachment.unmap(),
      () => attachment.pin(),
      () => attachment.unpin(),
    ])
      expect(codeOf(call)).toBe("ERR_DMA_BUF_UNLOCKED EINVAL");
    expect(codeOf(() => buffer.slice(0, 4096))).toBe("ERR_DMA_BUF_UNLOCKED EINVAL");
    expect(codeOf(() => buffer.reservation.release())).toBe("ERR_DMA_BUF_UNLOCKED EINVAL");
    expect(codeOf(() => buffer.reservation.addFence(new Fence("f"), "read"))).toBe("ERR_DMA_BUF_UNLOCKED EINVAL");
  });

  test("calls that take the lock, with it", () => {
    const { buffer, attachment, machine } = shared();
    for (const call of [
      () => attachment.detach(),
      () => buffer.attach(importer(machine.other, DYNAMIC)),
      () => buffer.reservation.locked(() => {}),
    ])
      expect(codeOf(() => buffer.reservation.locked(call))).toBe("ERR_DMA_BUF_DEADLOCK EBUSY");
    expect([buffer.attachments.length, buffer.reservation.isHeld]).toEqual([1, false]);
  });

  test("a second map, a second unmap, another direction, an unpin too many", () => {
    const { buffer, attachment } = shared();
    map(buffer, attachment);
    expect(codeOf(() => map(buffer, attachment))).toBe("ERR_DMA_BUF_MAPPED EEXIST");
    expect(codeOf(() => buffer.reservation.locked(() => attachment.unmap("to-device")))).toBe(
      "ERR_DMA_BUF_DIRECTION EINVAL",
    );
    expect(attachment.mapping).toBeDefined();
    unmap(buffer, attachment);
    expect(codeOf(() => unmap(buffer, attachment))).toBe("ERR_DMA_BUF_NOT_MAPPED EINVAL");
    expect(codeOf(() => buffer.reservation.locked(() => attachment.unpin()))).toBe("ERR_DMA_BUF_NOT_PINNED EINVAL");
  });

  test("attach and map after a revocation, and after the attachment ended", () => {
    const { buffer, attachment, device, machine } = shared();
    finish(device.writeCommand(0));
    expect(codeOf(() => map(buffer, attachment))).toBe("ERR_DMA_BUF_REVOKED ENODEV");
    expect(codeOf(() => buffer.attach(importer(machine.other, DYNAMIC)))).toBe("ERR_DMA_BUF_REVOKED ENODEV");
    finish(device.writeCommand(2));
    attachment.detach();
    attachment.detach();
    expect(codeOf(() => map(buffer, attachment))).toBe("ERR_DMA_BUF_DETACHED EINVAL");
  });

  test("a device without a direction", () => {
    const { buffer, attachment, machine } = shared();
    const before = machine.counters(machine.far).snapshot();
    expect(codeOf(() => buffer.reservation.locked(() => attachment.map("none" as never)))).toBe(
      "ERR_DMA_DIRECTION EINVAL",
    );
    const { iovaAllocations, iovaFrees } = machine.counters(machine.far).since(before);
    expect(iovaAllocations).toBe(iovaFrees);
  });

  test("the close of a device with a live map waits until it is gone", () => {
    const { buffer, attachment, device } = shared();
    map(buffer, attachment);
    const closing = device.close();
    untilItWaits(closing);
    expect(buffer.stuck).toEqual([attachment.importer.name]);
    unmap(buffer, attachment);
    expect(closing.next().done).toBe(true);
    expect(buffer.liveMaps).toBe(0);
    expect(codeOf(() => device.export({ region: 0, openFlags: 0, flags: 0, ranges: [] }))).toBe(
      "ERR_DMA_BUF_DEVICE_GONE ENODEV",
    );
  });
});

describe("vectors", () => {
  const vec = (phys: number, length: number) => ({ phys: PhysAddr(phys), length });
  test.each([
    ["none", [], "ERR_DMA_BUF_VECTORS EINVAL"],
    ["of no bytes", [vec(4096, 0)], "ERR_DMA_BUF_VECTORS EINVAL"],
    ["not of whole pages", [vec(4096, 100)], "ERR_DMA_BUF_VECTORS EINVAL"],
    ["not on a page", [{ phys: 4097 as PhysAddr, length: 4096 }], "ERR_DMA_BUF_VECTORS EINVAL"],
    ["too long together", [vec(0, 2 ** 53), vec(0, 2 ** 53)], "ERR_DMA_BUF_VECTORS EINVAL"],
    ["the same twice", [vec(4096, 4096), vec(4096, 4096)], "done"],
  ])("%s", (_name, vecs, expected) => {
    expect(codeOf(() => checkVectors(vecs))).toBe(expected);
  });

  test("that are not the buffer are refused at the map, and only a compatible device takes them", () => {
    const limits = { linuxCompatible: true, refusesMisuse: false };
    for (const [far, expected] of [
      [{}, "ERR_DMA_BUF_VECTORS EINVAL"],
      [limits, "done"],
    ] as const) {
      const machine = sharingMachine({ far });
      const { provider } = machine.owner;
      const parts = [{ offset: 0, length: 8192 }];
      const buffer = new DmaBuf(peerVectors({ name: "own", provider, parts, lengthBytes: 16_384 }));
      const attachment = buffer.attach(importer(machine.far, DYNAMIC));
      expect(codeOf(() => map(buffer, attachment))).toBe(expected);
      attachment.detach();
      const none = new DmaBuf(peerVectors({ name: "own", provider, parts: [] }));
      expect(codeOf(() => map(none, none.attach(importer(machine.far, DYNAMIC))))).toBe("ERR_DMA_BUF_VECTORS EINVAL");
    }
  });

  test("have slices by offset and length, in whole pages", () => {
    const vecs = [vec(0x10_000, 8192), vec(0x40_000, 12_288)];
    expect(sliceOf(vecs, 4096, 8192)).toEqual([vec(0x11_000, 4096), vec(0x40_000, 4096)]);
    expect(sliceOf(vecs, 8192, 12_288)).toEqual([vec(0x40_000, 12_288)]);
    for (const [offset, length] of [
      [1, 4096],
      [-4096, 4096],
      [20_480, 4096],
      [0, 0],
      [0, 100],
      [16_384, 8192],
    ] as const)
      expect(codeOf(() => sliceOf(vecs, offset, length))).toBe("ERR_DMA_BUF_ARGUMENT EINVAL");
  });

  const page = 4096n;
  const bar = BigInt(MiB);
  test.each([
    ["the last page of the BAR", [[bar - page, page]], 0, 0, "done"],
    ["one page beyond", [[bar, page]], 0, 0, "ERR_DMA_BUF_RANGE EINVAL"],
    ["an end beyond", [[bar - page, 2n * page]], 0, 0, "ERR_DMA_BUF_RANGE EINVAL"],
    ["an end past 64 bits", [[2n ** 64n - page, page]], 0, 0, "ERR_DMA_BUF_RANGE EOVERFLOW"],
    ["no bytes", [[0n, 0n]], 0, 0, "ERR_DMA_BUF_VECTORS EINVAL"],
    ["no whole page", [[0n, 4095n]], 0, 0, "ERR_DMA_BUF_VECTORS EINVAL"],
    ["no page", [[1n, page]], 0, 0, "ERR_DMA_BUF_VECTORS EINVAL"],
    ["a sum with the top bit", [[0n, 2n ** 63n]], 0, 0, "ERR_DMA_BUF_VECTORS EINVAL"],
    [
      "a sum past 64 bits",
      [
        [0n, 2n ** 62n],
        [0n, 2n ** 62n],
      ],
      0,
      0,
      "ERR_DMA_BUF_VECTORS EINVAL",
    ],
    ["none", [], 0, 0, "ERR_DMA_BUF_VECTORS EINVAL"],
    [
      "overlapping ones",
      [
        [0n, 2n * page],
        [page, 2n * page],
      ],
      0,
      0,
      "done",
    ],
    ["flags", [[0n, page]], 0, 1, "ERR_DMA_BUF_ARGUMENT EINVAL"],
    ["a region that is no BAR", [[0n, page]], 1, 0, "ERR_DMA_BUF_REGION ENODEV"],
    ["a BAR of ports", [[0n, page]], 2, 0, "ERR_DMA_BUF_PROVIDER EINVAL"],
  ] as const)("of a VFIO device: %s", (_name, ranges, region, flags, expected) => {
    const { owner } = sharingMachine();
    const { provider } = owner;
    const regions = new Map([
      [0, { lengthBytes: MiB, provider }],
      [2, { lengthBytes: 4096, provider: undefined }],
    ]);
    const device = new VfioDeviceMemory("device", regions);
    const call = { region, openFlags: 0, flags, ranges: ranges.map(([offset, length]) => ({ offset, length })) };
    expect(codeOf(() => device.export(call))).toBe(expected);
  });
});

describe("a form is agreed on", () => {
  const link = (id: string) => ({ kind: "private-link", id }) as const;
  test("the first offer that is taken", () => {
    const offers = [link("x"), { kind: "phys-list" }, { kind: "dma-list" }] as const;
    expect(matchTypes(offers, [{ kind: "dma-list" }, { kind: "phys-list" }])).toEqual({ kind: "phys-list" });
    expect(matchTypes(offers, [link("x")])).toEqual(link("x"));
    expect(matchTypes(offers)).toEqual({ kind: "dma-list" });
    expect(matchTypes(undefined, [{ kind: "phys-list" }])).toEqual({ kind: "phys-list" });
    expect(codeOf(() => matchTypes(offers, [link("y")]))).toBe("ERR_DMA_BUF_TYPE EOPNOTSUPP");
    expect(codeOf(() => matchTypes([{ kind: "dma-list" }], [{ kind: "phys-list" }]))).toBe(
      "ERR_DMA_BUF_TYPE EOPNOTSUPP",
    );
  });

  test("physical runs are void once they are let go, or lost", () => {
    const machine = sharingMachine();
    const { buffer, device } = vfio(machine, [
      [0, 4096],
      [8192, 4096],
    ]);
    const ops = { peerToPeer: true, invalidated: () => attachment.mapping && attachment.unmap() };
    const attachment: Attachment = buffer.attach({ ...importer(machine.far, ops), accepts: [{ kind: "phys-list" }] });
    const list = map(buffer, attachment);
    if (!(list instanceof PhysList)) throw new Error("another form");
    expect(list.vecs.map(({ phys }) => phys - machine.owner.provider.bar.phys)).toEqual([0, 8192]);
    expect(machine.counters(machine.far).iovaAllocations).toBe(0);
    finish(device.reset());
    expect(list.isVoid).toBe(true);
    expect(codeOf(() => list.vecs)).toBe("ERR_DMA_BUF_STALE EBUSY");
    const again = map(buffer, attachment) as PhysList;
    expect(again.generation).toBeGreaterThan(list.generation);
  });
});

describe("a buffer lives", () => {
  const orders = [
    ["device", "descriptor", "importer"],
    ["device", "importer", "descriptor"],
    ["descriptor", "device", "importer"],
    ["descriptor", "importer", "device"],
    ["importer", "device", "descriptor"],
    ["importer", "descriptor", "device"],
  ] as const;
  test.each(
    orders.flatMap(
      (order) =>
        [
          [...order, true],
          [...order, false],
        ] as const,
    ),
  )("until the last holder is gone: %s, %s, %s (mapped: %s)", (...all) => {
    const machine = sharingMachine();
    const { owner, far } = machine;
    const device = new VfioDeviceMemory("device", new Map([[0, { lengthBytes: MiB, provider: owner.provider }]]));
    const descriptor = device.export({ region: 0, openFlags: 0, flags: 0, ranges: [{ offset: 0n, length: 4096n }] });
    const { buffer } = descriptor;
    const ops = { peerToPeer: true, invalidated: () => attachment.mapping && attachment.unmap() };
    const attachment: Attachment = buffer.attach(importer(far, ops));
    if (all[3]) map(buffer, attachment);
    const end = {
      device: () => finish(device.close()),
      descriptor: () => descriptor.close(),
      importer: () => attachment.detach(),
    };
    for (const who of all.slice(0, 3) as (keyof typeof end)[]) end[who]();
    for (const who of all.slice(0, 3) as (keyof typeof end)[]) end[who](); // a second time does nothing
    expect([buffer.liveMaps, buffer.attachments.length, device.buffers.length]).toEqual([0, 0, 0]);
    expect(codeOf(() => buffer.acquire())).toBe("ERR_DMA_BUF_GONE EBADF");
    const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = machine.counters(far);
    expect([leavesWritten - leavesCleared, iovaAllocations - iovaFrees]).toEqual([0, 0]);
  });
});

describe("the system heap", () => {
  test.each(["vectors", "scatter-table"] as const)(
    "shares RAM with several devices, as %s, and the CPU between",
    (form) => {
      const machine = sharingMachine();
      const heap = new SystemHeap({ pages: machine.host.machine.pages, form });
      const descriptor = heap.allocate({ lengthBytes: 70_000 });
      const { buffer } = descriptor;
      expect(buffer.lengthBytes).toBe(73_728);
      const attachments = [machine.near, machine.far].map((device) => buffer.attach(importer(device)));
      const [one, two] = attachments.map((attachment) => map(buffer, attachment));
      expect([one!.tableEntries, two!.tableEntries]).toEqual(form === "vectors" ? [0, 0] : [3, 3]);
      descriptor.sync(2);
      fillPage(machine.host, buffer.exporter.vectors()[0]!.phys, 7);
      descriptor.sync(2 + 4);
      expect(machine.near.write([{ ...one!.ranges[0]!, length: 10 }], new Uint8Array(10).fill(9))).toBe(true);
      expect([...machine.far.read(two!.ranges)!.subarray(8, 12)]).toEqual([9, 9, 7, 7]);
      for (const attachment of attachments) attachment.detach();
      descriptor.close();
      expect(machine.host.machine.leaks().filter((leak) => leak.includes("RAM"))).toEqual([]);
    },
  );

  test("counts 16 bytes a vector less than the table of 32 an entry", () => {
    const { near, host } = sharingMachine();
    const { buffer } = new SystemHeap({ pages: host.machine.pages, form: "scatter-table" }).allocate({
      lengthBytes: 5 * MiB,
    });
    map(buffer, buffer.attach(importer(near)));
    expect(near.open.dma.counters.metadataBytes).toBe(5 * 32);
  });

  test("gives everything back when memory runs out, whatever was there", () => {
    const given = new Set<number>();
    let left = 20;
    const pages = {
      allocatePages: (count: number) => {
        if (count > 16 || left < count) return undefined;
        left -= count;
        given.add(left);
        return (4096 + left) as never;
      },
      freePages: (page: number, count: number) => {
        given.delete(page - 4096);
        left += count;
      },
    };
    const heap = new SystemHeap({ pages });
    expect(codeOf(() => heap.allocate({ lengthBytes: 2 * MiB }))).toBe("ERR_DMA_BUF_NO_MEMORY ENOMEM");
    expect([left, given.size]).toEqual([20, 0]);
  });
});

describe("the pages of a device's memory", () => {
  test("are given out lowest first, and joined when they come back, in any order", () => {
    const { provider } = sharingMachine().owner;
    const pages = new BarPages(provider);
    const first = provider.bar.phys / 4096;
    const out = [8, 4, 8].map((count) => pages.allocatePages(count)!);
    expect(out.map((page) => page - first)).toEqual([0, 8, 12]);
    pages.freePages(out[1]!, 4);
    expect(pages.allocatePages(5)! - first).toBe(20);
    expect(pages.allocatePages(4)).toBe(out[1]);
    expect(pages.allocatePages(4096)).toBeUndefined();
    for (const [page, count] of [
      [out[2]!, 8],
      [out[0]!, 8],
      [out[1]!, 4],
      [(first + 20) as never, 5],
    ] as const)
      pages.freePages(page, count);
    expect(pages.freePageCount).toBe(256);
    expect(pages.allocatePages(256)).toBe(first);
    expect(pages.allocatePages(1)).toBeUndefined();
  });
});

describe("user memory", () => {
  function users() {
    const machine = sharingMachine();
    const frames = new Frames({ pages: machine.host.machine.pages, memory: machine.host.machine.memory });
    const dma = new Dma({ name: "udmabuf" });
    const buffers = new UserMemoryBuffers({ pages: frames, dma });
    const file = new SimulatedFile({ frames, name: "memfd", length: 64 * KiB });
    return { machine, frames, buffers, file };
  }

  test("is pinned as long as the buffer lives, and stays when the file loses it", () => {
    const { machine, frames, buffers, file } = users();
    file.seal("shrink");
    const descriptor = buffers.create([
      { file, offset: 4096, length: 8192 },
      { file, offset: 0, length: 4096 },
    ]);
    file.write(4096, new Uint8Array(4096).fill(5));
    file.write(0, new Uint8Array(4096).fill(6));
    const attachment = descriptor.buffer.attach(importer(machine.far));
    const { ranges } = map(descriptor.buffer, attachment);
    expect(pageValues(machine.far.read(ranges))).toEqual([5, 0, 6]);
    file.punch(4096, 8192);
    expect(pageValues(machine.far.read(ranges))).toEqual([5, 0, 6]);
    const { phys } = descriptor.buffer.exporter.vectors()[0]!;
    expect(frames.pinsOf((phys / 4096) as never)).toBe(1);
    attachment.detach();
    descriptor.close();
    expect(frames.inUse).toBe(file.cachedPages);
  });

  test("must be sealed against shrinking, and not against writing", () => {
    const { buffers, file } = users();
    const create = () => buffers.create([{ file, offset: 0, length: 4096 }]);
    expect(codeOf(create)).toBe("ERR_DMA_BUF_SEALS EINVAL");
    file.seal("shrink");
    expect(codeOf(create)).toBe("done");
    file.seal("future-write");
    expect(codeOf(create)).toBe("ERR_DMA_BUF_SEALS EINVAL");
  });

  test("an end of the CPU's access without a begin is refused", () => {
    const { buffers, file } = users();
    file.seal("shrink");
    const descriptor = buffers.create([{ file, offset: 0, length: 4096 }]);
    expect(codeOf(() => descriptor.sync(5))).toBe("ERR_DMA_BUF_ARGUMENT EINVAL");
    descriptor.sync(1);
    expect(codeOf(() => descriptor.sync(5))).toBe("done");
  });

  test("of a part that cannot be pinned leaves nothing pinned", () => {
    const { buffers, file, frames } = users();
    file.seal("shrink");
    const bad = {
      ...file,
      kind: "memory-file",
      medium: "memfd",
      seals: file.seals,
      length: 64 * KiB,
      pin: () => {
        throw new DmaError("ERR_DMA_USER_MEMORY", "ENOMEM", "no");
      },
    } as never;
    expect(
      codeOf(() =>
        buffers.create([
          { file, offset: 0, length: 4096 },
          { file: bad, offset: 0, length: 4096 },
        ]),
      ),
    ).toBe("ERR_DMA_USER_MEMORY ENOMEM");
    expect(frames.inUse).toBe(file.cachedPages);
    const page = file.peek(0)!.frame;
    expect(frames.pinsOf(page as never)).toBe(0);
  });
});

describe("fences", () => {
  test("of a class are waited for by those after it, and forgotten when they signal", () => {
    const { buffer } = vfio(sharingMachine(), [[0, 4096]]);
    const { reservation } = buffer;
    const fences = (["kernel", "write", "read", "bookkeep"] as const).map((use) => {
      const fence = new Fence(use);
      reservation.locked(() => reservation.addFence(fence, use));
      return fence;
    });
    const names = (use: "kernel" | "write" | "read" | "bookkeep") => reservation.pending(use).map(({ name }) => name);
    expect(names("kernel")).toEqual(["kernel"]);
    expect(names("read")).toEqual(["kernel", "write", "read"]);
    expect(names("bookkeep")).toHaveLength(4);
    fences[1]!.signal();
    fences[1]!.signal();
    expect(names("read")).toEqual(["kernel", "read"]);
    let called = 0;
    fences[0]!.onSignal(() => called++);
    fences[1]!.onSignal(() => called++);
    expect(called).toBe(1);
  });

  test("go out and come in as sync files", () => {
    const machine = sharingMachine();
    const descriptor = new SystemHeap({ pages: machine.host.machine.pages }).allocate({ lengthBytes: 4096 });
    const fence = new Fence("writer");
    descriptor.importSyncFile(2, fence);
    expect(descriptor.exportSyncFile(1)).toEqual([fence]);
    descriptor.importSyncFile(1, new Fence("reader"));
    expect(descriptor.exportSyncFile(1)).toHaveLength(1);
    expect(descriptor.exportSyncFile(2)).toHaveLength(2);
    expect(codeOf(() => descriptor.exportSyncFile(0))).toBe("ERR_DMA_BUF_ARGUMENT EINVAL");
  });
});
