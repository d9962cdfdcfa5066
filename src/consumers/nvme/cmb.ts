/**
 * The controller memory buffer: memory on the device, reached through one of its BARs.
 *
 * Idea: enabled once per controller start. Submission queues may lie in it; what is left may be lent to other devices as peer
 * memory, if the controller takes data there in both directions.
 * Specified by: NVM Express base specification 2.0, 8.5; behaviour of Linux 7.2 NVMe driver.
 */
import { CMB_CONTROL, COMMAND_BYTES, decodeCmb, REGISTER, write64 } from "../../layouts/nvme/index.ts";
import { barBusAddress } from "../../layouts/pci/index.ts";
import type { PciDevice, Registers } from "../../platform/index.ts";
import type { CommandRing } from "./queue-pair.ts";

/** A controller memory buffer: where it lies, and what it may hold (NVM Express base specification 2.0, 3.1.4.11). */
export interface Cmb {
  /** The BAR it is in. */
  readonly bar: number;
  /** Where it begins in that BAR, bytes. */
  readonly offset: number;
  /** Bytes, as far as they lie in the BAR. */
  readonly length: number;
  /** Its first byte on the bus. */
  readonly busAddress: number;
  /** Submission queues may lie in it (CMBSZ.SQS). */
  readonly submissionQueues: boolean;
  /** Data of both directions may lie in it: it may be lent to others. */
  readonly holdsData: boolean;
  /** The BAR, for who writes to the buffer. */
  readonly registers: Registers;
}

/** Enables the buffer, if there is one, and says where it is. */
export function enableCmb(device: PciDevice, registers: Registers): Cmb | undefined {
  write64(registers, REGISTER.cmbControl, CMB_CONTROL.readable);
  const size = registers.read32(REGISTER.cmbSize);
  if (size === 0) return undefined;
  const cmb = decodeCmb(registers.read32(REGISTER.cmbLocation), size);
  const memory = device.bar(cmb.bar);
  const offset = cmb.offsetUnits * cmb.unitBytes;
  if (!memory || offset >= memory.length) return undefined;
  const busAddress = barBusAddress(device, cmb.bar) + offset;
  // The high half first: the low half has the bits that make the address count.
  registers.write32(REGISTER.cmbControl + 4, Math.floor(busAddress / 2 ** 32));
  registers.write32(REGISTER.cmbControl, (busAddress | CMB_CONTROL.readable | CMB_CONTROL.enabled) >>> 0);
  return {
    bar: cmb.bar,
    offset,
    length: Math.min(cmb.sizeUnits * cmb.unitBytes, memory.length - offset),
    busAddress,
    submissionQueues: cmb.submissionQueues,
    holdsData: cmb.readData && cmb.writeData,
    registers: memory,
  };
}

/** A submission queue in the buffer, `at` bytes from its start. */
export function cmbRing(cmb: Cmb, at: number): CommandRing {
  return {
    address: cmb.busAddress + at,
    put: (index, command) => {
      const view = new DataView(command.buffer, command.byteOffset, COMMAND_BYTES);
      const base = cmb.offset + at + index * COMMAND_BYTES;
      for (let word = 0; word < COMMAND_BYTES; word += 4)
        cmb.registers.write32(base + word, view.getUint32(word, true));
    },
    free: () => {},
  };
}
