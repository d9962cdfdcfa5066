/** What a virtio-iommu refuses, and what its driver does. */
import { DmaError, type Errno, hex, PAGE_SIZE } from "../../base/index.ts";
import { STATUS } from "../../layouts/virtio-iommu/index.ts";

const MEANINGS: Readonly<Record<number, readonly [errno: Errno, meaning: string]>> = {
  [STATUS.ioError]: ["EIO", "the device or its queue is out of order"],
  [STATUS.unsupported]: ["EOPNOTSUPP", "the device does not know this request"],
  [STATUS.deviceError]: ["EIO", "the device failed"],
  [STATUS.invalid]: ["EINVAL", "the device takes it for wrong: something may be mapped there"],
  [STATUS.range]: ["ERANGE", "an address lies outside what the device translates"],
  [STATUS.noEntry]: ["ENOENT", "the device knows no such domain or endpoint"],
  [STATUS.fault]: ["EFAULT", "the device could not read the request"],
  [STATUS.noMemory]: ["ENOMEM", "the device has no memory left for mappings"],
};

/** What a status means. */
export const meaningOf = (status: number): readonly [errno: Errno, meaning: string] =>
  MEANINGS[status] ?? ["EIO", `the device answered ${status}, which is no status`];

/** An endpoint could not be attached. */
export function attachRefused(requester: number, domainId: number, status: number): DmaError {
  const [errno, meaning] = meaningOf(status);
  return new DmaError(
    "ERR_DMA_VIRTIO_ATTACH",
    errno,
    `endpoint ${hex(requester)} cannot be attached to domain ${domainId}: ${meaning}`,
    { requester, domainId, status },
  );
}

/** The device took a mapping back, or never had it. */
export function mapRefusedByDevice(page: number, phys: number, pages: number, status: number): DmaError {
  const [errno, meaning] = meaningOf(status);
  return new DmaError(
    "ERR_DMA_MAP",
    errno,
    `cannot map ${pages} pages at IOVA ${hex(page * PAGE_SIZE)} to ${hex(phys * PAGE_SIZE)}: ${meaning}; ` +
      "everything that the sync was for is undone",
    { page, phys, pages, status },
  );
}

/** Part of what one request mapped is to go. */
export const partOfMapping = (page: number, pages: number, mapping: { page: number; pages: number }): DmaError =>
  new DmaError(
    "ERR_DMA_SPLIT",
    "EOPNOTSUPP",
    `cannot unmap ${pages} pages at IOVA ${hex(page * PAGE_SIZE)} alone: a virtio-iommu does not split the mapping of ` +
      `${mapping.pages} pages at ${hex(mapping.page * PAGE_SIZE)}; unmap all of it`,
    { page, pages, mapped: mapping.pages },
  );

/** A domain number that the device does not have. */
export const badDomainId = (domainId: number, first: number, last: number): DmaError =>
  new DmaError(
    "ERR_DMA_DOMAIN",
    "EINVAL",
    `a domain number of ${domainId}: the device knows those from ${first} to ${last}`,
    { domainId, first, last },
  );
