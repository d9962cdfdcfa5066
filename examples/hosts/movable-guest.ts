/** A simulated host with a network card, and a guest that has one function of it: what examples of migration move. */
import { crc32 } from "node:zlib";
import { type IovaPage, PAGE_SIZE, PhysPage } from "dmalink";
import { PagingDomain, vtdSecondStage } from "dmalink/iommu";
import { NetworkCard, NIC_FUNCTION_REGISTER, type NicFunction, SimulatedHost, type VirtualClock } from "dmalink/sim";
import {
  DeviceMigration,
  DmaLogging,
  deviceLogSource,
  iommuSource,
  type MovableMachine,
  NicCommands,
  NicDriver,
  RamLayout,
} from "dmalink/vfio";

export interface MovableGuest {
  readonly machine: MovableMachine;
  /** The function: packets come to it by `receive`. */
  readonly card: NicFunction;
  readonly clock: VirtualClock;
  /** The guest's driver tells the card to receive, into its first 64 pages. */
  start(): void;
  /** All its memory and its device, as one number. */
  checksum(): number;
}

/** A guest with `bytes` of memory at guest addresses from 0 on. */
export function movableGuest(bytes: number): MovableGuest {
  const host = new SimulatedHost({ iommu: { dirty: true } });
  const card = new NetworkCard();
  const [physical, device] = host.plug("0.0", card, ...card.functions);
  const { dma } = host.openDevice(physical!.name);
  const { memory, pages, clock, ram: hostRam } = host.machine;

  // The guest's memory: one piece of the host's, which its devices reach at guest addresses.
  const count = bytes / PAGE_SIZE;
  const first = hostRam.allocatePages(count)!;
  const domain = new PagingDomain({ layout: vtdSecondStage({ leafSizes: [0] }), unit: host.unit!, domainId: 7 });
  domain.map(0 as IovaPage, first, count, 3);
  host.unit!.attach(device!.requester, domain.tables);
  device!.setBusMaster(true);

  const driver = new NicDriver({ commands: new NicCommands(physical!, dma), number: 0, dma, memory, pages, clock });
  const migration = new DeviceMigration(driver);
  const layout = new RamLayout([{ start: 0, length: bytes }]);
  const at = (page: number) => PhysPage.start(PhysPage.add(first, page));
  const ram = {
    layout,
    read: (page: number, into: Uint8Array) => memory.read(at(page), into),
    write: (page: number, from: Uint8Array) => memory.write(at(page), from),
  };
  const reset = (): void => {
    void device!.reset();
    migration.reset();
  };
  return {
    machine: {
      ram,
      devices: [{ name: "nic", migration, reset }],
      processors: { stop() {}, resume() {}, save: () => new Uint8Array(1), load() {} },
      dirty: [deviceLogSource("log", new DmaLogging(driver), layout), iommuSource("iommu", domain, layout)],
    },
    card: card.functions[0]!,
    clock,
    start() {
      const bar = device!.bar(0)!;
      bar.write32(NIC_FUNCTION_REGISTER.RING_PAGES, 64);
      bar.write32(NIC_FUNCTION_REGISTER.CONTROL, 1);
    },
    checksum() {
      const all = new Uint8Array(bytes);
      ram.read(0, all);
      return crc32(all, crc32(card.functions[0]!.memory));
    },
  };
}
