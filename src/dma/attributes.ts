/** How one mapping may differ from another, by name and as the bits of the kernel. */

/** How a mapping differs from plain cacheable memory. All are off unless said. */
export interface DmaAttributes {
  /** The target is a device's memory, not RAM: no cache maintenance, no bounce. */
  readonly mmio?: boolean;
  /** Only privileged accesses of the device are allowed. */
  readonly privileged?: boolean;
  /** The caller moves ownership itself, with the sync calls: no cache maintenance, no copy out at the end. */
  readonly skipCpuSync?: boolean;
  /** Refuse rather than bounce or need syncs. */
  readonly requireCoherent?: boolean;
  /** Confidential guests: the memory is shared already. */
  readonly shared?: boolean;
  /** Coherent memory as one physical block. */
  readonly forceContiguous?: boolean;
  /** Coherent memory without large pages. */
  readonly allocSinglePages?: boolean;
  /** Coherent memory that the CPU does not touch. */
  readonly noKernelMapping?: boolean;
  /** Nothing is said about a failure. */
  readonly noWarn?: boolean;
  /** The caller knows that cache lines are mapped twice. */
  readonly ignoreCacheLines?: boolean;
}

/** The bits that Linux gives the attributes, for traces and comparisons. */
export const ATTRIBUTE_BITS: Readonly<Record<keyof DmaAttributes, number>> = {
  noKernelMapping: 1 << 4,
  skipCpuSync: 1 << 5,
  forceContiguous: 1 << 6,
  allocSinglePages: 1 << 7,
  noWarn: 1 << 8,
  privileged: 1 << 9,
  mmio: 1 << 10,
  ignoreCacheLines: 1 << 11,
  requireCoherent: 1 << 12,
  shared: 1 << 13,
};

/** Attributes as one number. */
export function attributeBits(attributes: DmaAttributes | undefined): number {
  if (attributes === undefined) return 0;
  let bits = 0;
  for (const name of Object.keys(attributes) as (keyof DmaAttributes)[])
    if (attributes[name]) bits |= ATTRIBUTE_BITS[name];
  return bits;
}

/** One number as attributes; bits without a name are left out. */
export function attributesOf(bits: number): DmaAttributes {
  const attributes: Partial<Record<keyof DmaAttributes, boolean>> = {};
  for (const name of Object.keys(ATTRIBUTE_BITS) as (keyof DmaAttributes)[])
    if ((bits & ATTRIBUTE_BITS[name]) !== 0) attributes[name] = true;
  return attributes;
}

/** No cache maintenance is due: the caller does it, or there is none for device memory. */
export const skipsMaintenance = (attributes: DmaAttributes | undefined): boolean =>
  attributes !== undefined && (attributes.skipCpuSync === true || attributes.mmio === true);
