/** Two devices of one IOMMU group: the functions of a slot. They share an address space, because the IOMMU cannot keep them apart. */
import { PAGE_SIZE, PhysAddr } from "../../../src/base/index.ts";
import { Dma } from "../../../src/dma/index.ts";
import {
  type BackEnd,
  bindToVfio,
  type LinuxDevice,
  type LinuxHost,
  type Sysfs,
  unbindFromVfio,
} from "../../../src/hosts/linux/index.ts";
import { EDU_MASK, Edu } from "./edu.ts";
import { equal, type Report, thrown } from "./report.ts";

const FUNCTIONS = ["0000:00:09.0", "0000:00:09.1"] as const;

export async function sharingCase(report: Report, host: LinuxHost, sysfs: Sysfs, backEnd: BackEnd): Promise<void> {
  const what = `${backEnd}: two devices of one group share what they map, until the last is closed`;
  const [group, other] = FUNCTIONS.map((name) => sysfs.pciFunction(name)?.group);
  if (group === undefined || group !== other) {
    report.skip(what, `${FUNCTIONS.join(" and ")} are not there, or in groups of their own`);
    return;
  }
  await report.test(what, async () => {
    bindToVfio(sysfs, FUNCTIONS[0]);
    bindToVfio(sysfs, FUNCTIONS[1]);
    await share(
      host,
      host.openDevice(FUNCTIONS[0], { backEnd }).device,
      host.openDevice(FUNCTIONS[1], { backEnd }).device,
    );
    for (const name of FUNCTIONS) unbindFromVfio(sysfs, name);
  });
}

async function share(host: LinuxHost, first: LinuxDevice, second: LinuxDevice): Promise<void> {
  using memory = host.memory.allocate(2 * PAGE_SIZE);
  memory.bytes.fill(7, 0, PAGE_SIZE);
  const open = (device: LinuxDevice): Dma => {
    const dma = new Dma({ domain: device.domain, name: device.name, machine: host.dmaMachine });
    dma.setMask(EDU_MASK);
    return dma;
  };
  const from = open(first).map(memory.phys, PAGE_SIZE, "to-device");
  const to = open(second).map(PhysAddr(memory.phys + PAGE_SIZE), PAGE_SIZE, "from-device");
  equal(from.address === to.address, false, "the same address for both");
  const [one, two] = [new Edu(first), new Edu(second)];
  await two.read(from.address, 64); // what the first has mapped
  await two.write(to.address, 64);
  equal(memory.bytes[PAGE_SIZE + 63], 7, "a byte that the second moved");
  first.close();
  equal(one.identity, 0xffff_ffff, "a register of the closed device");
  await two.write(to.address + 64, 64);
  equal(memory.bytes[PAGE_SIZE + 127], 7, "a byte moved after the first was closed");
  equal((await thrown(() => host.openDevice(second.name))).code, "ERR_DMA_LINUX_OPEN", "opened again");
  from.unmap();
  to.unmap();
  equal(second.domain.areaCount, 0, "areas");
  second.close();
}
