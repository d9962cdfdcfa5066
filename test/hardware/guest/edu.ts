/**
 * QEMU's `edu` device: the smallest thing that does DMA. It copies up to 4 KiB from memory into itself, or back.
 *
 * Specified by: QEMU documentation, "EDU device". It has 28 address bits, and says when it is done by a bit, or by MSI.
 */
import type { LinuxDevice, Sysfs } from "../../../src/hosts/linux/index.ts";
import type { Registers } from "../../../src/platform/index.ts";

export const EDU_MASK: number = 2 ** 28 - 1;
const REGISTER = {
  identity: 0x00,
  raise: 0x60,
  acknowledge: 0x64,
  source: 0x80,
  target: 0x88,
  count: 0x90,
  command: 0x98,
};
const COMMAND = { start: 1, toMemory: 2 };
/** Where its own 4 KiB lie, as it sees them. */
const BUFFER = 0x40000;

export class Edu {
  readonly #registers: Registers;

  constructor(device: LinuxDevice) {
    this.#registers = device.bar(0)!;
    device.setBusMaster(true);
  }

  /** 0xRRrr00ed: its version. */
  get identity(): number {
    return this.#registers.read32(REGISTER.identity);
  }

  /** Reads memory into itself. */
  async read(address: number, length: number): Promise<void> {
    await this.#run(address, BUFFER, length, 0);
  }

  /** Writes what it has to memory. */
  async write(address: number, length: number): Promise<void> {
    await this.#run(BUFFER, address, length, COMMAND.toMemory);
  }

  raise(bits: number): void {
    this.#registers.write32(REGISTER.raise, bits);
  }

  acknowledge(bits: number): void {
    this.#registers.write32(REGISTER.acknowledge, bits);
  }

  async #run(source: number, target: number, length: number, direction: number): Promise<void> {
    const registers = this.#registers;
    registers.write32(REGISTER.source, source);
    registers.write32(REGISTER.target, target);
    registers.write32(REGISTER.count, length);
    registers.write32(REGISTER.command, COMMAND.start | direction);
    for (let i = 0; i < 5000; i++) {
      if (!(registers.read32(REGISTER.command) & COMMAND.start)) return;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    throw new Error("the edu device does not finish");
  }
}

/**
 * True behind QEMU's virtio-iommu: as of 10.0 it looks a page's last byte up together with the byte after, and may take the mapping of
 * the next page.
 */
export function missesLastBytes(sysfs: Sysfs): boolean {
  return sysfs.pciFunctions().some(({ vendor, device }) => vendor === 0x1af4 && device === 0x1057);
}
