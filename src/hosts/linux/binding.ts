/**
 * Giving a device to vfio-pci, and back to the driver that had it.
 *
 * Idea: `driver_override` names one driver for one device, so nothing else on the machine changes. What the driver was is kept
 * in a file below /run, which a reboot forgets together with the binding.
 * Promises: a device that is in use (`uses.ts`) is refused before anything is changed, and nobody can begin to use one of its
 * disks meanwhile; where vfio-pci does not take the device, the old driver has it again.
 * Specified by: Linux 7.2 sysfs-bus-pci; docs/real-hardware.md.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { deviceInUse, noIommu, noSuchDevice, notBoundByUs, notTaken, noVfioPci, sysfsRefused } from "./errors.ts";
import { PCI_DEVICES, type PciFunction, type Sysfs } from "./sysfs.ts";
import { holdDisks, usesOf } from "./uses.ts";

const VFIO_PCI = "vfio-pci";
/** One file a device, with the name of the driver that had it. */
const KEPT = "/run/dmalink/bound";

/** What became of a device: its driver before and now. */
export interface Binding {
  /** `ssss:bb:dd.f` */
  readonly name: string;
  /** Its driver before; undefined: none. */
  readonly before: string | undefined;
  /** Its driver now; undefined: none. */
  readonly after: string | undefined;
}

/**
 * Gives the device to vfio-pci. If it has it already, nothing is done.
 *
 * @throws DmaError ERR_DMA_LINUX_DEVICE, ERR_DMA_LINUX_IOMMU, ERR_DMA_LINUX_VFIO (ENODEV), ERR_DMA_LINUX_BUSY (EBUSY),
 * ERR_DMA_LINUX_BIND (EACCES, EIO)
 */
export function bindToVfio(sysfs: Sysfs, name: string): Binding {
  const pci = takeable(sysfs, name);
  if (pci.driver === VFIO_PCI) return { name: pci.name, before: VFIO_PCI, after: VFIO_PCI };
  using disks = holdDisks(sysfs, pci.name); // until it is bound: who asks for a disk in between gets EBUSY
  if (disks.uses.length > 0) throw deviceInUse(pci.name, disks.uses);
  keep(sysfs, pci.name, pci.driver ?? "");
  move(sysfs, pci, VFIO_PCI);
  const after = sysfs.pciFunction(pci.name)?.driver;
  if (after === VFIO_PCI) return { name: pci.name, before: pci.driver, after };
  move(sysfs, { ...pci, driver: after }, undefined);
  forget(sysfs, pci.name);
  throw notTaken(pci.name, VFIO_PCI, after);
}

/** The device, if {@link bindToVfio} would take it. Changes nothing. @throws DmaError as there */
export function bindableFunction(sysfs: Sysfs, name: string): PciFunction {
  const pci = takeable(sysfs, name);
  if (pci.driver === VFIO_PCI) return pci;
  using disks = holdDisks(sysfs, pci.name);
  if (disks.uses.length > 0) throw deviceInUse(pci.name, disks.uses);
  return pci;
}

/** As far as the kernel's files tell. */
function takeable(sysfs: Sysfs, name: string): PciFunction {
  const pci = functionOf(sysfs, name);
  if (pci.driver === VFIO_PCI) return pci;
  if (pci.group === undefined) throw noIommu(pci.name);
  if (!sysfs.exists(`/sys/bus/pci/drivers/${VFIO_PCI}`)) throw noVfioPci();
  const uses = usesOf(sysfs, pci.name);
  if (uses.length > 0) throw deviceInUse(pci.name, uses);
  return pci;
}

/**
 * Gives the device back to the driver that had it.
 *
 * @throws DmaError ERR_DMA_LINUX_DEVICE, ERR_DMA_LINUX_BIND (EINVAL: vfio-pci has not got it; EACCES, EIO)
 */
export function unbindFromVfio(sysfs: Sysfs, name: string): Binding {
  const pci = functionOf(sysfs, name);
  if (pci.driver !== VFIO_PCI) throw notBoundByUs(pci.name, pci.driver);
  const before = sysfs.read(`${KEPT}/${pci.name}`);
  move(sysfs, pci, undefined);
  forget(sysfs, pci.name);
  const after = sysfs.pciFunction(pci.name)?.driver;
  if (before !== undefined && before !== "" && after !== before) throw notTaken(pci.name, before, after);
  return { name: pci.name, before: pci.driver, after };
}

/** The commands that do by hand what {@link bindToVfio} does. */
export function bindCommands({ name, driver }: PciFunction): string[] {
  const at = `${PCI_DEVICES}/${name}`;
  return [
    "modprobe vfio-pci",
    `echo ${VFIO_PCI} > ${at}/driver_override`,
    ...(driver === undefined ? [] : [`echo ${name} > ${at}/driver/unbind`]),
    `echo ${name} > /sys/bus/pci/drivers_probe`,
  ];
}

function functionOf(sysfs: Sysfs, name: string): PciFunction {
  const pci = sysfs.pciFunction(name);
  if (pci === undefined) throw noSuchDevice(name);
  return pci;
}

/** From its driver to `driver`, or to whichever of the system's takes it. */
function move(sysfs: Sysfs, { name, driver }: PciFunction, to: string | undefined): void {
  const at = `${PCI_DEVICES}/${name}`;
  write(sysfs, `${at}/driver_override`, to ?? "\n");
  if (driver !== undefined) write(sysfs, `${at}/driver/unbind`, name);
  write(sysfs, "/sys/bus/pci/drivers_probe", name);
}

function write(sysfs: Sysfs, path: string, text: string): void {
  try {
    sysfs.write(path, text);
  } catch (error) {
    throw sysfsRefused(path, text.trim(), error as NodeJS.ErrnoException);
  }
}

function keep(sysfs: Sysfs, name: string, driver: string): void {
  try {
    mkdirSync(join(sysfs.root, KEPT), { recursive: true });
    sysfs.write(`${KEPT}/${name}`, driver);
  } catch (error) {
    throw sysfsRefused(`${KEPT}/${name}`, driver, error as NodeJS.ErrnoException);
  }
}

function forget(sysfs: Sysfs, name: string): void {
  rmSync(join(sysfs.root, KEPT, name), { force: true });
}
