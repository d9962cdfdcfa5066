/** A machine with a network card whose functions can move, a guest behind an IOMMU, and everything that VFIO adds. */
import { type IovaPage, MiB, PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import {
  DeviceMigration,
  DmaLogging,
  NicCommands,
  NicDriver,
  type NicDriverOptions,
} from "../../src/consumers/vfio/index.ts";
import {
  NetworkCard,
  type NetworkCardOptions,
  type NicFunction,
  SimulatedHost,
  type SimulatedHostOptions,
  type SimulatedOpenDevice,
  type SimulatedPciDevice,
} from "../../src/hosts/simulated/index.ts";
import { PagingDomain } from "../../src/iommu/index.ts";
import { NIC_FUNCTION_REGISTER } from "../../src/layouts/nic/index.ts";
import { READ, type TableLayout, vtdSecondStage, WRITE } from "../../src/layouts/pagetable/index.ts";
import type { MigrationState } from "../../src/platform/index.ts";

export interface StandOptions {
  readonly card?: NetworkCardOptions;
  readonly driver?: Partial<NicDriverOptions>;
  readonly host?: Partial<SimulatedHostOptions>;
  /** Bytes of the guest's memory. Default 4 MiB. */
  readonly guestBytes?: number;
  /** Of the guest's domain. Default: VT-d second stage with all leaf sizes. */
  readonly layout?: TableLayout;
}

/** One function, as VFIO has it. */
export interface StandFunction {
  readonly model: NicFunction;
  readonly device: SimulatedPciDevice;
  readonly driver: NicDriver;
  readonly migration: DeviceMigration;
  readonly logging: DmaLogging;
  /** States it entered. */
  readonly steps: MigrationState[];
}

export interface Stand {
  readonly host: SimulatedHost;
  readonly card: NetworkCard;
  readonly physical: SimulatedOpenDevice;
  readonly commands: NicCommands;
  readonly functions: readonly StandFunction[];
  readonly first: StandFunction;
  /** The guest's memory: its first page on the host, and how the devices reach it. */
  readonly guestPage: PhysPage;
  readonly guestBytes: number;
  readonly domain: PagingDomain;
  /** Everything is given back; what is not is said. */
  close(): string[];
}

export function stand(options: StandOptions = {}): Stand {
  const { guestBytes = 4 * MiB, layout = vtdSecondStage() } = options;
  const host = new SimulatedHost({ memoryBytes: 1024 * MiB, iommu: { dirty: true }, ...options.host });
  const { machine } = host;
  const card = new NetworkCard(options.card);
  const [physicalDevice, ...devices] = host.plug("0.0", card, ...card.functions);
  const physical = host.openDevice(physicalDevice!.name);
  const before = machine.snapshot();
  const commands = new NicCommands(physical.device, physical.dma);

  const pages = guestBytes / PAGE_SIZE;
  const block = machine.ram.allocatePages(pages + 512)!;
  const guestPage = PhysPage.add(block, (512 - (block % 512)) % 512);
  const domain = new PagingDomain({ layout, unit: host.unit!, domainId: 100 });
  domain.map(0 as IovaPage, guestPage, pages, READ | WRITE);
  domain.sync(0 as IovaPage, pages);

  const functions = devices.map((device, number): StandFunction => {
    host.unit!.attach(device.requester, domain.tables);
    device.setBusMaster(true);
    const driver = new NicDriver({
      commands,
      number,
      dma: physical.dma,
      memory: machine.memory,
      pages: machine.pages,
      clock: machine.clock,
      ...options.driver,
    });
    const steps: MigrationState[] = [];
    const migration = new DeviceMigration(driver, { onStep: (state) => steps.push(state) });
    return { model: card.functions[number]!, device, driver, migration, logging: new DmaLogging(driver), steps };
  });

  return {
    host,
    card,
    physical,
    commands,
    functions,
    first: functions[0]!,
    guestPage,
    guestBytes,
    domain,
    close() {
      for (const { driver, migration } of functions) {
        migration.reset();
        driver.detach();
      }
      commands.close();
      machine.ram.freePages(block, pages + 512);
      const { iovaAllocations, iovaFrees, leavesWritten, leavesCleared } = physical.dma.counters;
      return [
        ...machine.leaks(before),
        ...(card.keys ? [`keys: ${card.keys}`] : []),
        ...(iovaAllocations === iovaFrees ? [] : [`ranges: ${iovaAllocations - iovaFrees}`]),
        ...(leavesWritten === leavesCleared ? [] : [`leaves: ${leavesWritten - leavesCleared}`]),
      ];
    },
  };
}

/** The guest's driver: packets go to a ring of `pages` pages from guest address `address` on. */
export function startReceiving({ device }: StandFunction, address = 0, pages = 16): void {
  const bar = device.bar(0)!;
  bar.write32(NIC_FUNCTION_REGISTER.RING_LOW, address);
  bar.write32(NIC_FUNCTION_REGISTER.RING_PAGES, pages);
  bar.write32(NIC_FUNCTION_REGISTER.CONTROL, 1);
}

/** A packet of `length` bytes that nobody mistakes for another. */
export function packet(number: number, length = 100): Uint8Array {
  const bytes = new Uint8Array(length).fill(number);
  for (let i = 0; i < Math.min(length, 16); i++) bytes[i] = (number * 31 + i * 7 + (number >> 8)) & 0xff;
  return bytes;
}

/** Everything that a function is, as one value: two that are equal are the same function. */
export const stateOf = ({ model }: StandFunction): object => ({
  registers: [...model.registers()],
  memory: Buffer.from(model.memory).toString("base64"),
});
