/**
 * Memory of a device: a controller memory buffer for queues, for data, and between two disks, under a real kernel.
 *
 * Data in the controller's own buffer go by its bus address, and no IOMMU sees them. From another disk the same bytes are
 * reached through its IOMMU, by where this process has the BAR (the container) or by a dma-buf of it (iommufd).
 */
import { KiB, PhysAddr, Random } from "../../../src/base/index.ts";
import { type Cmb, Nvme, type PeerMemory } from "../../../src/consumers/nvme/index.ts";
import { Dma } from "../../../src/dma/index.ts";
import {
  type BackEnd,
  bindToVfio,
  type LinuxDevice,
  type LinuxHost,
  type Sysfs,
  unbindFromVfio,
} from "../../../src/hosts/linux/index.ts";
import { P2pRouter } from "../../../src/p2p/index.ts";
import { equal, expect, type Report, thrown } from "./report.ts";

const LENGTH = 64 * KiB;
const DEPTH = 16;
const NVME_WRITE = 1;
const NVME_READ = 2;

/** `name` is the disk with the buffer, `other` the one that shall reach it. */
export async function cmbCases(
  report: Report,
  host: LinuxHost,
  sysfs: Sysfs,
  [name, other]: readonly [string, string],
  backEnd: BackEnd,
): Promise<void> {
  const titled = (what: string): string => `${backEnd}: NVMe memory buffer: ${what}`;
  const { device } = host.openDevice(name, { backEnd });
  const peers = new P2pRouter();
  const dma = new Dma({ domain: device.domain, name, node: device.node, machine: { ...host.dmaMachine, peers } });
  try {
    const nvme = await Nvme.open(device, dma, { clock: host.clock, submissionQueuesInCmb: true });
    const { cmb } = nvme;
    if (cmb === undefined) report.skip(titled("everything"), "this controller has none");
    else {
      await report.test(titled("with submission queues in it, what was written is read back"), () =>
        inQueues(host, nvme, cmb),
      );
      const bar = device.barMemory(cmb.bar);
      const lent = bar && nvme.lendMemory(bar);
      if (lent === undefined)
        report.skip(
          titled("data in it"),
          bar ? `BAR ${cmb.bar} is mapped at ${bar.phys.toString(16)}: not whole 2 MiB` : "VFIO lets no BAR be mapped",
        );
      else {
        await report.test(titled("the disk itself reads and writes data in it, past the IOMMU"), () =>
          ownData(host, device, nvme, lent),
        );
        await peerCases(report, titled, { host, sysfs, other, backEnd, nvme, lent });
        lent[Symbol.dispose]();
      }
    }
    await nvme.close();
    await report.test(titled("closing it leaves nothing mapped"), () => equal(device.domain.areaCount, 0, "areas"));
    const bar = cmb && device.barMemory(cmb.bar);
    if (bar !== undefined && sysfs.pciFunction(other) !== undefined)
      await report.test(titled("what another disk has mapped of it ends whole, though its owner is closed"), () =>
        withOther({ host, sysfs, other, backEnd }, (second) => ownerGone(host, device, bar.phys, second)),
      );
  } finally {
    device.close();
  }
}

async function inQueues(host: LinuxHost, nvme: Nvme, cmb: Cmb): Promise<void> {
  expect(cmb.submissionQueues, "the controller does not take queues there");
  using written = host.memory.allocate(LENGTH * DEPTH);
  using read = host.memory.allocate(written.length);
  fill(written.bytes, 1);
  const blocks = LENGTH / nvme.disk.blockBytes;
  const vec = (phys: number, i: number) => [{ phys: PhysAddr(phys + i * LENGTH), length: LENGTH }];
  const pieces = Array.from({ length: DEPTH }, (_, i) => i);
  await Promise.all(pieces.map((i) => nvme.write(i * blocks, vec(written.phys, i))));
  await Promise.all(pieces.map((i) => nvme.read(i * blocks, vec(read.phys, i))));
  expect(Buffer.compare(written.bytes, read.bytes) === 0, "other bytes came back");
  const first = cmb.registers.read32(cmb.offset) & 0xff;
  expect(first === NVME_WRITE || first === NVME_READ, `opcode ${first} at its start: no queue lies there`);
}

/** Both ways, with the processor at the other end. */
async function ownData(host: LinuxHost, device: LinuxDevice, nvme: Nvme, lent: PeerMemory): Promise<void> {
  using memory = host.memory.allocate(LENGTH);
  const ram = [{ phys: memory.phys, length: LENGTH }];
  const inside = lent.vec(0, LENGTH);
  const { registers, bar, offset } = nvme.cmb!;
  const at = inside.phys - device.barMemory(bar)!.phys;
  expect(at >= offset, `byte ${at} of BAR ${bar} is not in the buffer`);
  const words = pattern(2);
  words.forEach((word, i) => {
    registers.write32(at + 4 * i, word);
  });
  const { maps } = device.domain.calls;
  await nvme.write(0, [inside]);
  equal(device.domain.calls.maps, maps, "calls to map");
  await nvme.read(0, ram);
  expect(same(memory.bytes, words), "what was written from it is something else");
  fill(memory.bytes, 3);
  await nvme.write(0, ram);
  await nvme.read(0, [inside]);
  const found = words.map((_, i) => registers.read32(at + 4 * i));
  expect(same(memory.bytes, found), "what was read into it is something else");
}

/** The disk without a buffer, and how it is opened. */
interface Other {
  readonly host: LinuxHost;
  readonly sysfs: Sysfs;
  readonly other: string;
  readonly backEnd: BackEnd;
}

interface Peers extends Other {
  /** The disk with one, and what it lends. */
  readonly nvme: Nvme;
  readonly lent: PeerMemory;
}

async function peerCases(report: Report, titled: (what: string) => string, peers: Peers): Promise<void> {
  const { host, sysfs, other } = peers;
  const what = titled("from disk to disk through it, both ways");
  if (sysfs.pciFunction(other) === undefined) report.skip(what, `there is no ${other}`);
  else
    await report.test(what, () =>
      withOther(peers, (device) =>
        diskToDisk(device, new Dma({ domain: device.domain, name: other, machine: host.dmaMachine }), peers),
      ),
    );
}

/** The other disk in our hands, and back in its driver's. */
async function withOther(
  { host, sysfs, other, backEnd }: Other,
  work: (device: LinuxDevice) => Promise<void>,
): Promise<void> {
  const had = bindToVfio(sysfs, other).before;
  const { device } = host.openDevice(other, { backEnd });
  try {
    await work(device);
  } finally {
    device.close();
    equal(unbindFromVfio(sysfs, other).after, had, `driver of ${other}`);
  }
}

async function ownerGone(host: LinuxHost, owner: LinuxDevice, phys: PhysAddr, device: LinuxDevice): Promise<void> {
  const dma = new Dma({ domain: device.domain, name: device.name, machine: host.dmaMachine });
  dma.map(phys, LENGTH, "bidirectional").unmap();
  const acrossReset = dma.map(phys, LENGTH, "bidirectional");
  await owner.reset();
  acrossReset.unmap();
  const mapping = dma.map(phys, LENGTH, "bidirectional");
  owner.close();
  mapping.unmap();
  equal(device.domain.areaCount, 0, "areas");
  const { code, errno } = await thrown(() => dma.map(phys, LENGTH, "bidirectional"));
  equal([code, errno], ["ERR_DMA_SYSCALL", "EFAULT"], "mapped again");
}

/** The first disk takes the vector by its own bus address, the second as memory that the IOMMU leads to. */
async function diskToDisk(device: LinuxDevice, dma: Dma, { host, nvme, lent }: Peers): Promise<void> {
  const second = await Nvme.open(device, dma, { clock: host.clock });
  using memory = host.memory.allocate(LENGTH);
  const ram = [{ phys: memory.phys, length: LENGTH }];
  const between = [lent.vec(0, LENGTH)];
  for (const [from, to, seed] of [
    [nvme, second, 4],
    [second, nvme, 5],
  ] as const) {
    await to.write(0, ram); // what is there before must not be the answer
    fill(memory.bytes, seed);
    const wanted = memory.bytes.slice();
    await from.write(0, ram);
    await from.read(0, between);
    await to.write(0, between);
    memory.bytes.fill(0);
    await to.read(0, ram);
    expect(Buffer.compare(memory.bytes, wanted) === 0, `${from.device.name} to ${to.device.name}: other bytes`);
  }
  await second.close();
  equal(device.domain.areaCount, 0, "areas of the second disk");
}

function fill(bytes: Uint8Array, seed: number): void {
  const random = Random.fromSeed(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.below(256);
}

function pattern(seed: number): number[] {
  const random = Random.fromSeed(seed);
  return Array.from({ length: LENGTH / 4 }, () => random.below(2 ** 31));
}

function same(bytes: Uint8Array, words: readonly number[]): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return words.every((word, i) => view.getUint32(4 * i, true) === word >>> 0);
}
