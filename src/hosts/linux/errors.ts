/**
 * What a Linux host refuses: one function per error.
 *
 * A system call that fails is one kind; what to do about it depends on the call, and is in `advice.ts`.
 */
import { DmaError, ERRNO, type Errno, given, hex } from "../../base/index.ts";
import { adviceFor } from "./advice.ts";
import type { Purpose } from "./syscalls.ts";

/** Errno numbers by name, and back. */
function errnoName(number: number): Errno {
  return (Object.keys(ERRNO) as Errno[]).find((name) => ERRNO[name] === number) ?? "EIO";
}

/** A system call answered with an errno. */
export function callFailed(syscall: string, number: number, purpose: Purpose): DmaError {
  const errno = errnoName(number);
  const said = ERRNO[errno] === number ? errno : `errno ${number}`;
  const what = typeof purpose === "string" ? purpose : purpose();
  const cure = adviceFor(syscall, errno);
  return new DmaError(
    "ERR_DMA_SYSCALL",
    errno,
    `${syscall} failed with ${said}: could not ${what}${cure === undefined ? "" : `. ${cure}`}`,
    { syscall, number, purpose: what },
  );
}

export const libraryMissing = (reason: string): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_LIBRARY",
    "ENOSYS",
    `real devices need the package koffi, which makes system calls from JavaScript, and it cannot be loaded (${reason}): ` +
      "npm install koffi@3",
    { reason },
  );

export const notLinux = (platform: string): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_PLATFORM",
    "ENOSYS",
    `real devices need Linux, and this is ${platform}: use the simulated machine (dmalink/sim)`,
    { platform },
  );

export const noSuchDevice = (name: string): DmaError =>
  new DmaError("ERR_DMA_LINUX_DEVICE", "ENODEV", `no PCI device ${name} on this machine: "dmalink doctor" lists them`, {
    name,
  });

export const wrongDriver = (name: string, driver: string | undefined): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_DRIVER",
    driver === undefined ? "ENODEV" : "EBUSY",
    `${name} is ${driver === undefined ? "bound to no driver" : `in the hands of the driver ${driver}`}, and vfio-pci is needed: ` +
      `dmalink bind ${name} --yes`,
    { name, driver },
  );

export const noIommu = (name: string): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_IOMMU",
    "ENODEV",
    `${name} is in no IOMMU group: the machine has no IOMMU or it is off. Turn it on in the firmware (VT-d, AMD-Vi), and boot ` +
      "with intel_iommu=on on Intel machines",
    { name },
  );

export const noBackEnd = (reasons: readonly string[]): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_VFIO",
    "ENODEV",
    `no way to this device: ${reasons.join("; ")}. "dmalink doctor" says more`,
    {
      reasons,
    },
  );

export const groupNotViable = (group: string, others: readonly string[]): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_GROUP",
    "EPERM",
    `IOMMU group ${group} cannot be used: other devices of it have drivers of the kernel (${others.join(", ")}). Bind all of ` +
      "them to vfio-pci, or unbind them",
    { group, others },
  );

export const openAlready = (name: string): DmaError =>
  new DmaError("ERR_DMA_LINUX_OPEN", "EBUSY", `${name} is open already: use that, or close it first`, { name });

/** What devices of one group share cannot be two things. */
export const openedOtherwise = (name: string, group: string, others: readonly string[], what: string): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_SHARED",
    "EBUSY",
    `${name} shares IOMMU group ${group}, and so one address space, with ${others.join(", ")}, which was opened with another ` +
      `${what}: open all of them with the same, or close ${others.length === 1 ? "that one" : "those"} first`,
    { name, group, others, what },
  );

export const wrongVersion = (version: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_VERSION",
    "EINVAL",
    `VFIO says interface version ${version}, and only 0 is known: the kernel is newer than this program`,
    { version },
  );

export const noType1v2 = (): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_TYPE1",
    "ENODEV",
    "VFIO has no type1 v2 IOMMU back end here: modprobe vfio_iommu_type1",
    {},
  );

/** Somebody unmapped behind our back, or the kernel kept some of it. */
export const shortUnmap = (iova: number, length: number, unmapped: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_SHORT_UNMAP",
    "EIO",
    `${length} bytes at IOVA ${hex(iova)} were to be unmapped, and the kernel says ${unmapped}: the rest may still be reachable, ` +
      "so these addresses are not given out again",
    { iova, length, unmapped },
  );

export const splitRefused = (iova: number, length: number, area: { iova: number; length: number }): DmaError =>
  new DmaError(
    "ERR_DMA_SPLIT",
    "EOPNOTSUPP",
    `${length} bytes at IOVA ${hex(iova)} are part of ${area.length} bytes that were mapped together from ${hex(area.iova)} on, and ` +
      "Linux unmaps a mapping only as a whole: unlink all of it, link smaller pieces, or turn coalescing off",
    { iova, length, area },
  );

export const overlaps = (iova: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_MAP",
    "EADDRINUSE",
    `cannot map ${length} bytes at IOVA ${hex(iova)}: something is mapped there; unmap it first`,
    { iova, length },
  );

export const noMappings = (): DmaError =>
  new DmaError("ERR_DMA_LINUX_CLOSED", "ENODEV", "the device was closed: nothing can be mapped for it any more", {});

export const hostClosed = (name: string): DmaError =>
  new DmaError("ERR_DMA_LINUX_CLOSED", "ENODEV", `${name} cannot be opened: the host was closed; make another`, {
    name,
  });

export const bufferFreed = (): DmaError =>
  new DmaError("ERR_DMA_LINUX_FREED", "EFAULT", "this memory was freed: take its bytes before, or allocate again", {});

export const badLength = (length: number): DmaError =>
  new DmaError(
    "ERR_DMA_LENGTH",
    "EINVAL",
    `${given(length)} bytes cannot be allocated: a whole number from 1 on is needed`,
    {
      length,
    },
  );

export const badHugePage = (hugePage: unknown, sizes: readonly string[]): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_HUGE_PAGE",
    "EINVAL",
    `huge pages of ${given(hugePage)}: ${sizes.map((size) => JSON.stringify(size)).join(" or ")} is needed`,
    { hugePage, sizes },
  );

export const memoryClosed = (length: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_CLOSED",
    "ENODEV",
    `${length} bytes cannot be allocated: the host was closed; make another`,
    { length },
  );

export const noReset = (name: string): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_RESET",
    "EOPNOTSUPP",
    `${name} cannot be reset by VFIO: neither the function nor its slot offers it`,
    { name },
  );

export const badVector = (name: string, vector: number, vectors: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_VECTOR",
    "EINVAL",
    vectors === 0
      ? `${name} has no MSI-X or MSI: it must be polled`
      : `${name} has interrupt vectors 0 to ${vectors - 1}, not ${vector}`,
    { name, vector, vectors },
  );

export const noVfioPci = (): DmaError =>
  new DmaError("ERR_DMA_LINUX_VFIO", "ENODEV", "the driver vfio-pci is not loaded: modprobe vfio-pci", {});

export const deviceInUse = (name: string, uses: readonly string[]): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_BUSY",
    "EBUSY",
    `${name} is in use, and taking it away would break that: ${uses.join("; ")}. End it first (umount, swapoff, ip link set ` +
      "NAME down, or stop what holds it)",
    { name, uses },
  );

/** Whether a disk is in use could not be found out, and a guess may cost what is on it. */
export const noAnswer = (name: string, disk: string, code: string): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_BUSY",
    code in ERRNO ? (code as Errno) : "EIO",
    `${name} is not taken: whether ${disk} is in use only the kernel knows, and opening it failed with ${code}. ` +
      (code === "EACCES" || code === "EPERM" ? "This needs root" : "See that the node is there, as udev makes it"),
    { name, disk, code },
  );

export const notTaken = (name: string, driver: string, has: string | undefined): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_BIND",
    "EIO",
    `${driver} did not take ${name}, which ${has === undefined ? "has no driver now" : `${has} has now`}: dmesg says why`,
    { name, driver, has },
  );

export const notBoundByUs = (name: string, driver: string | undefined): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_BIND",
    "EINVAL",
    `${name} is not bound to vfio-pci but to ${driver ?? "no driver"}: there is nothing to give back`,
    { name, driver },
  );

export const sysfsRefused = (path: string, text: string, error: NodeJS.ErrnoException): DmaError =>
  new DmaError(
    "ERR_DMA_LINUX_BIND",
    error.code !== undefined && error.code in ERRNO ? (error.code as Errno) : "EIO",
    `writing "${text}" to ${path} failed with ${error.code}${error.code === "EACCES" || error.code === "EPERM" ? ": run as root" : ""}`,
    { path, text },
  );
