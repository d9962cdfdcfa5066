/** What to do when a system call fails: the advice by call and errno. Only what is likely is said. */
import type { Errno } from "../../base/index.ts";

const MEMLOCK =
  "The limit of locked memory is reached (DMA pins every page): raise it, ulimit -l unlimited as root or " +
  "LimitMEMLOCK=infinity of a service; dmalink doctor shows it";
const UNSAFE =
  "The IOMMU does not remap interrupts here, so a device could forge them. In a virtual machine of your own: boot with " +
  "iommufd.allow_unsafe_interrupts=1 or vfio_iommu_type1.allow_unsafe_interrupts=1";

/** By call, errno, and both. The first that fits. */
const CURES: readonly (readonly [call: RegExp, errno: readonly Errno[], cure: string])[] = [
  [/^(IOMMU_IOAS_MAP|VFIO_IOMMU_MAP_DMA)$/, ["ENOMEM"], MEMLOCK],
  [/^mlock$/, ["ENOMEM", "EPERM"], MEMLOCK],
  [
    /^VFIO_IOMMU_MAP_DMA$/,
    ["ENOSPC"],
    "The container has no mapping entries left (65535 unless vfio_iommu_type1.dma_entry_limit says otherwise): map larger " +
      "pieces, turn coalescing on, or use iommufd, which has no such limit",
  ],
  [/^(IOMMU_IOAS_MAP|VFIO_IOMMU_MAP_DMA)$/, ["EEXIST"], "Something is mapped there already"],
  [
    /^(IOMMU_IOAS_MAP|VFIO_IOMMU_MAP_DMA)$/,
    ["EINVAL"],
    "Addresses and length must be whole pages inside the ranges that the IOMMU can translate: dmalink doctor shows what is reserved",
  ],
  [/^VFIO_IOMMU_MAP_DMA$/, ["EFAULT"], "The memory is not mapped in this process"],
  [
    /^IOMMU_IOAS_MAP$/,
    ["EFAULT"],
    "The memory is not mapped in this process, or it is a device's and this kernel makes no dma-buf of it (Linux 7.2 does, with " +
      "CONFIG_VFIO_PCI_DMABUF): open the device with the back end type1",
  ],
  [
    /^IOMMU_IOAS_MAP_FILE$/,
    ["ENODEV", "EINVAL"],
    "The memory's owner is being reset, has its memory switched off, or is closed: map it again when it is there",
  ],
  [/^open$/, ["EACCES", "EPERM"], "Run as root, or give your user the device node: dmalink doctor shows which"],
  [
    /^open$/,
    ["ENOENT"],
    "A kernel module is missing, or the device is not bound to vfio-pci: dmalink doctor says which",
  ],
  [/^open$/, ["EBUSY"], "Another process has it open: only one can drive a device"],
  [/^open$/, ["ENODEV"], "The device went away, or its group is not bound to vfio-pci"],
  [/^VFIO_DEVICE_BIND_IOMMUFD$/, ["EPERM"], UNSAFE],
  [/^VFIO_DEVICE_BIND_IOMMUFD$/, ["EINVAL"], "The device is bound already, or its IOMMU does not keep caches coherent"],
  [/^(VFIO_DEVICE_BIND_IOMMUFD|VFIO_GROUP_SET_CONTAINER)$/, ["EBUSY"], "Somebody else drives this device or its group"],
  [/^VFIO_SET_IOMMU$/, ["EPERM"], UNSAFE],
  [
    /^VFIO_SET_IOMMU$/,
    ["ENODEV"],
    "No group is in the container, or vfio_iommu_type1 is not loaded: modprobe vfio_iommu_type1",
  ],
  [/^VFIO_GROUP_GET_DEVICE_FD$/, ["ENODEV"], "The device is not in that group, or not bound to vfio-pci"],
  [/^mmap$/, ["ENOMEM"], "Not enough memory; for huge pages set some aside first: echo 64 > /proc/sys/vm/nr_hugepages"],
  [/^eventfd$/, ["EMFILE", "ENFILE"], "Too many open files: ulimit -n shows the limit"],
];

export function adviceFor(syscall: string, errno: Errno): string | undefined {
  return CURES.find(([call, errnos]) => call.test(syscall) && errnos.includes(errno))?.[2];
}
