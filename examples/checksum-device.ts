/** A device of one's own and its driver: registers, DMA, an interrupt. The device adds up the bytes of memory that it is pointed to. */

import { type Dma, type DmaAddr, PhysAddr, type PhysVec } from "dmalink";
import { type DeviceModel, type DevicePort, registerTarget, SimulatedHost } from "dmalink/sim";

// What driver and device share, and nothing else: the layout.
const REGISTER = { addressLow: 0, addressHigh: 4, length: 8, status: 12, sum: 16 } as const;
const STATUS = { idle: 0, done: 1, fault: 2 } as const;
const ALL_ONES = 0xffff_ffff;

/** The device. A write of a length starts it; when it is done it says so in its status, and interrupts. */
class ChecksumDevice implements DeviceModel {
  readonly vendorId = 0x1234;
  readonly deviceId = 0x00c5;
  readonly classCode = 0xff_0000;
  readonly vectors = 1;
  readonly bars = [{ index: 0, length: 4096, target: registerTarget(this) }];
  #port: DevicePort | undefined;
  readonly #values = new Map<number, number>();

  plugged(port: DevicePort): void {
    this.#port = port;
  }

  reset(): void {
    this.#values.clear();
  }

  read32(offset: number): number {
    return this.#values.get(offset) ?? 0;
  }

  write32(offset: number, value: number): void {
    this.#values.set(offset, value);
    if (offset === REGISTER.length) this.#port?.clock.after(1, () => this.#run(value));
  }

  #run(length: number): void {
    const bytes = new Uint8Array(length);
    const address = this.read32(REGISTER.addressHigh) * 2 ** 32 + this.read32(REGISTER.addressLow);
    const ok = this.#port?.read(address as DmaAddr, bytes) ?? false; // through the IOMMU, like everything that a device does
    this.#values.set(REGISTER.sum, bytes.reduce((sum, byte) => sum + byte, this.read32(REGISTER.sum)) >>> 0);
    this.#values.set(REGISTER.status, ok ? STATUS.done : STATUS.fault);
    this.#port?.interrupt(0);
  }
}

const host = new SimulatedHost({ iommu: {}, bridges: [{ rootPorts: [{}] }] });
const [plugged] = host.plug("0.0", new ChecksumDevice());
const { device, dma } = host.openDevice(plugged!.name);

// The driver. A device that is gone answers all ones.
const registers = device.bar(0);
if (!registers || registers.read32(REGISTER.status) === ALL_ONES) throw new Error(`${device.name}: nobody is there`);
device.setBusMaster(true);

/** Has the device read [address, address + length), and waits for its interrupt. */
function run(address: number, length: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = device.onInterrupt(0, () => {
      stop();
      const status = registers!.read32(REGISTER.status);
      if (status === STATUS.done) resolve();
      else reject(new Error(`${device.name}: status ${status}`));
    });
    registers!.write32(REGISTER.addressLow, address % 2 ** 32);
    registers!.write32(REGISTER.addressHigh, Math.floor(address / 2 ** 32));
    registers!.write32(REGISTER.length, length); // starts it
  });
}

/** Adds up scattered memory: one run of addresses where there is an IOMMU, piece by piece where there is none. */
async function checksum(dma: Dma, vecs: readonly PhysVec[]): Promise<number> {
  const length = vecs.reduce((sum, vec) => sum + vec.length, 0);
  const range = dma.tryReserveIova({ length, physOffset: vecs[0]!.phys }); // step 1: addresses, nothing reachable
  if (range) {
    let at = 0;
    for (const vec of vecs) {
      range.link(at, vec.phys, vec.length, "to-device"); // step 2: memory in them
      at += vec.length;
    }
    range.sync(); // now the device may look
    await run(range.address, length).finally(() => range.destroy());
  } else
    for (const vec of vecs) {
      const address = dma.mapPhys(vec.phys, vec.length, "to-device");
      await run(address, vec.length).finally(() => dma.unmapPhys(address, vec.length, "to-device"));
    }
  return registers!.read32(REGISTER.sum);
}

const buffer = host.memory.allocate(8 * 4096);
buffer.bytes.fill(3);
const vecs = [5, 1, 6].map((page) => ({ phys: PhysAddr(buffer.phys + page * 4096), length: 4096 }));
const sum = await host.run(checksum(dma, vecs));
console.log(`${device.name} added up ${vecs.length} scattered pages: ${sum}`);
if (sum !== 3 * 3 * 4096) throw new Error("it read other bytes");
console.log(`entries still mapped: ${dma.counters.leavesWritten - dma.counters.leavesCleared}`);
