/**
 * Makes a device fault in the ways of drivers' mistakes, on a real kernel, while `dmalink record` records: run as its command. What was done
 * is the truth that the recording is judged by: a JSON line each on the file that is named.
 *
 * The mappings are a process's own (VFIO): `iommu:map` and `unmap` show them, and no `dma:*` event names their device.
 */
import { execFileSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import { PAGE_SIZE } from "../../../src/base/index.ts";
import { Dma, type DmaMapping } from "../../../src/dma/index.ts";
import { bindToVfio, LinuxHost, Sysfs, unbindFromVfio } from "../../../src/hosts/linux/index.ts";
import { EDU_MASK, Edu } from "./edu.ts";

const NAME = "0000:00:06.0";
const [, , truth = "/host/faults.jsonl"] = process.argv;

const sysfs = new Sysfs();
for (const module of ["vfio_iommu_type1", "vfio-pci"]) execFileSync("modprobe", ["-q", module]);
bindToVfio(sysfs, NAME);
const host = new LinuxHost();
const { device } = host.openDevice(NAME, { backEnd: "type1" });
const dma = new Dma({ domain: device.domain, name: NAME, machine: host.dmaMachine });
dma.setMask(EDU_MASK);
const edu = new Edu(device);

/** The kernel takes a fault out of its register before the next may come: QEMU merges those of one device. */
const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1000));
const tell = (relation: string, address: number, access: string, iova?: number): void =>
  appendFileSync(truth, `${JSON.stringify({ relation, device: NAME, address, access, iova, pid: process.pid })}\n`);

/** Maps a page for `body`; it is unmapped afterwards, if it was not (a second release does nothing). */
async function mapped(
  direction: "to-device" | "from-device",
  body: (mapping: DmaMapping) => Promise<void>,
): Promise<void> {
  using memory = host.memory.allocate(PAGE_SIZE);
  using mapping = dma.map(memory.phys, PAGE_SIZE, direction);
  await body(mapping);
}

await mapped("to-device", async ({ address }) => {
  // Not read first: QEMU drops a write to what its IOTLB has as read-only, and tells nobody.
  tell("live", address, "write", address);
  await edu.write(address, 512);
  await pause();
});
await mapped("from-device", async (mapping) => {
  const { address } = mapping;
  await edu.write(address, 512);
  mapping.unmap();
  await pause();
  tell("ended", address, "write", address);
  await edu.write(address, 512);
  await pause();
});
await mapped("from-device", async ({ address }) => {
  tell("near", address + PAGE_SIZE, "write", address);
  await edu.write(address + PAGE_SIZE - 32, 64); // half of it lies behind
  await pause();
});
tell("never", 0x0345_6000, "read");
await edu.read(0x0345_6000, 64);
await pause();
device.close();
host.close();
unbindFromVfio(sysfs, NAME);
