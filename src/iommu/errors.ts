/** What an IOMMU domain refuses. */
import { DmaError, ERRNO, type Errno, given, hex, PAGE_SIZE } from "../base/index.ts";

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: "something is mapped there; unmap it first",
  EEXIST: "something is mapped there; unmap it first",
  ERANGE: "an address lies outside what this table can hold",
  ENXIO: "no page size fits: addresses and length must be multiples of the smallest page",
  EINVAL: "the table cannot express these permissions",
  ENOMEM: "no memory is left for page tables",
  EOVERFLOW: "the range wraps around the end of the address space",
};

/** `error` is the table's answer, a negative errno. */
export function mapRefused(
  error: number,
  asked: { page: number; phys: number; pages: number; mappedPages: number },
): DmaError {
  const errno = (Object.keys(ERRNO) as Errno[]).find((name) => ERRNO[name] === -error) ?? "EIO";
  return new DmaError(
    "ERR_DMA_MAP",
    errno,
    `cannot map ${asked.pages} pages at IOVA ${hex(asked.page * PAGE_SIZE)} to ${hex(asked.phys * PAGE_SIZE)}: ` +
      `${REASONS[errno] ?? errno}${asked.mappedPages ? ` (after ${asked.mappedPages} pages, undone)` : ""}`,
    asked,
  );
}

/** Part of a large leaf is to go, and the rest of it cannot be mapped by smaller ones. */
export function splitRefused(error: number, page: number): DmaError {
  const errno = (Object.keys(ERRNO) as Errno[]).find((name) => ERRNO[name] === -error) ?? "EIO";
  return new DmaError(
    "ERR_DMA_SPLIT",
    errno,
    `cannot split the leaf around IOVA ${hex(page * PAGE_SIZE)}: ${REASONS[errno] ?? errno}; unlink all that was linked with it`,
    { page },
  );
}

/** What a format, or the range asked for, does not let one know. */
export function dirtyRefused(error: number, page: number, pages: number, format: string): DmaError {
  const errno = (Object.keys(ERRNO) as Errno[]).find((name) => ERRNO[name] === -error) ?? "EIO";
  const why: Partial<Record<Errno, string>> = {
    EOPNOTSUPP: `entries of ${format} do not say what was written`,
    EINVAL: "there are no pages in it, or a hole",
    ERANGE: "it lies outside what the table can hold",
  };
  return new DmaError(
    "ERR_DMA_DIRTY",
    errno,
    `cannot read what was written in ${pages} pages at IOVA ${hex(page * PAGE_SIZE)}: ${why[errno] ?? errno}`,
    { page, pages },
  );
}

/** A mode that is none. */
export const badMode = (mode: unknown): DmaError =>
  new DmaError("ERR_DMA_DOMAIN", "EINVAL", `a mode of ${given(mode)}: "strict" or "lazy" is needed`, { mode });

/** A part that a domain cannot do without. */
export const domainLacks = (part: string, value: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_DOMAIN",
    "EINVAL",
    `${given(value)} as ${part} of a domain: a domain is made of { layout, unit, clock, mode }, and cannot do without one of them`,
    { part },
  );

/** A number that a domain cannot have. */
export const badDomainNumber = (name: string, value: unknown, least: number, most: number): DmaError =>
  new DmaError(
    "ERR_DMA_DOMAIN",
    "EINVAL",
    `a ${name} of ${given(value)}: a whole number from ${least} to ${most} is needed`,
    { name, value, least, most },
  );

/** The entry of this device and PASID is in use, or the device is not ready. */
export const pasidBusy = (requester: number, pasid: number, why: "attached" | "being recovered"): DmaError =>
  new DmaError(
    "ERR_DMA_PASID_BUSY",
    "EBUSY",
    `PASID ${pasid} of device ${hex(requester)} is ${why}: ${why === "attached" ? "detach it first" : "try again later"}`,
    { requester, pasid },
  );

/** This PASID of this device can never be attached. */
export const pasidRefused = (requester: number, pasid: number, errno: "ENODEV" | "EINVAL", why: string): DmaError =>
  new DmaError("ERR_DMA_PASID", errno, `PASID ${pasid} of device ${hex(requester)} cannot be attached: ${why}`, {
    requester,
    pasid,
  });

/** The unit attaches no PASIDs, in this mode or at all. */
export const pasidUnsupported = (requester: number, pasid: number): DmaError =>
  new DmaError(
    "ERR_DMA_PASID",
    "EOPNOTSUPP",
    `PASID ${pasid} of device ${hex(requester)} cannot be attached: a unit with PASIDs, in scalable mode, is needed`,
    { requester, pasid },
  );

/** All are given out. */
export const noPasidLeft = (limit: number): DmaError =>
  new DmaError("ERR_DMA_PASID_EXHAUSTED", "ENOSPC", `no PASID below ${limit} is free: free one first`, { limit });
