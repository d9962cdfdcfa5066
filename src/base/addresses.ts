/**
 * Addresses, by who understands them.
 *
 * Byte addresses are numbers (safe integers) and live in the driver-facing API. Page numbers are numbers and live
 * inside: 64 bits less 12 of offset is 52, exact in a double. bigint stays at the ABI's edge (uAPI structures, columns
 * of a trace, JSON as hex strings). Arithmetic drops the kind, so mixing two address spaces, or adding bytes to pages,
 * does not compile: use the named operations.
 */
declare const kind: unique symbol;

/** A number that may not be mixed up with another kind of number. */
export type Kind<T, K extends string> = T & { readonly [kind]: K };

/** Bytes. What a CPU puts on the memory bus: RAM or MMIO. At most 52 bits. */
export type PhysAddr = Kind<number, "PhysAddr">;
/** A {@link PhysAddr} / 4096. */
export type PhysPage = Kind<number, "PhysPage">;
/** Bytes. What a driver programs into a device: an {@link Iova}, a physical address, or a PCI bus address. */
export type DmaAddr = Kind<number, "DmaAddr">;
/** Bytes. A {@link DmaAddr} that an IOMMU translates. */
export type Iova = DmaAddr & {
  /** Only for the compiler: a plain DmaAddr is no Iova. No value has it. */
  readonly iova: true;
};
/** An {@link Iova} / 4096. */
export type IovaPage = Kind<number, "IovaPage">;

/**
 * Bytes of a *page*, everywhere in this project. Where it is used for each page, a file takes a copy of its own (`const PAGE = PAGE_SIZE`): the engine folds that into
 * the code, but loads an imported one at each use, and divides by it.
 */
export const PAGE_SIZE = 4096;
/** 1024 bytes. */
export const KiB = 1024;
/** 1024 KiB. */
export const MiB = 1_048_576;
/** 1024 MiB. */
export const GiB = 1_073_741_824;
/** 1024 GiB. */
export const TiB = 1_099_511_627_776;

/** Names a byte address; it must be a whole number that a double holds exactly. */
export const PhysAddr = (bytes: number): PhysAddr => bytes as PhysAddr;
/** Names a byte address that a device is given; a whole number that a double holds exactly, not checked. */
export const DmaAddr = (bytes: number): DmaAddr => bytes as DmaAddr;
/** Names a byte address that an IOMMU translates; a whole number that a double holds exactly, not checked. */
export const Iova = (bytes: number): Iova => bytes as Iova;

/** The page a physical byte address lies in, and back. */
export const PhysPage = {
  /** The number of the 4 KiB page that holds this byte address. */
  of: (address: PhysAddr): PhysPage => Math.floor(address / PAGE_SIZE) as PhysPage,
  /** The byte address of the first byte of a page. */
  start: (page: PhysPage): PhysAddr => (page * PAGE_SIZE) as PhysAddr,
  /** The page `pages` further on; a negative number goes back. Not checked. */
  add: (page: PhysPage, pages: number): PhysPage => (page + pages) as PhysPage,
};

/** The page an IOVA lies in, and back. */
export const IovaPage = {
  /** The number of the 4 KiB page that holds this IOVA. */
  of: (address: DmaAddr): IovaPage => Math.floor(address / PAGE_SIZE) as IovaPage,
  /** The IOVA of the first byte of a page. */
  start: (page: IovaPage): Iova => (page * PAGE_SIZE) as Iova,
  /** The page `pages` further on; a negative number goes back. Not checked. */
  add: (page: IovaPage, pages: number): IovaPage => (page + pages) as IovaPage,
};

/** `bytes` in whole pages, rounded up. Exact for every safe integer. */
export const pagesOf = (bytes: number): number => Math.ceil(bytes / PAGE_SIZE);

/** Pages that `length` bytes starting at `address` touch; 0 for a length of 0. */
export const pagesTouched = (address: number, length: number): number =>
  length === 0 ? 0 : Math.floor((address + length - 1) / PAGE_SIZE) - Math.floor(address / PAGE_SIZE) + 1;

/** `value` as people and JSON read addresses: `0x` and lower-case hex digits. */
export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
