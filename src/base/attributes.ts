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

/** An attribute of the kernel: its bit, and what it is called. */
interface KernelAttribute {
  /** Number of the bit. */
  readonly bit: number;
  /** What the kernel's events print, the newest name first. */
  readonly printed: readonly string[];
  /** Its name here; absent for those that have no meaning in this stack. */
  readonly name?: keyof DmaAttributes;
}

/** Every attribute of Linux 7.2, by bit (`DMA_ATTR_*`, and the names in `trace/events/dma.h`). */
export const KERNEL_ATTRIBUTES: readonly KernelAttribute[] = [
  { bit: 1, printed: ["WEAK_ORDERING"] },
  { bit: 2, printed: ["WRITE_COMBINE"] },
  { bit: 4, printed: ["NO_KERNEL_MAPPING"], name: "noKernelMapping" },
  { bit: 5, printed: ["SKIP_CPU_SYNC"], name: "skipCpuSync" },
  { bit: 6, printed: ["FORCE_CONTIGUOUS"], name: "forceContiguous" },
  { bit: 7, printed: ["ALLOC_SINGLE_PAGES"], name: "allocSinglePages" },
  { bit: 8, printed: ["NO_WARN"], name: "noWarn" },
  { bit: 9, printed: ["PRIVILEGED"], name: "privileged" },
  { bit: 10, printed: ["MMIO"], name: "mmio" },
  { bit: 11, printed: ["CACHELINES_OVERLAP", "DEBUGGING_IGNORE_CACHELINES"], name: "ignoreCacheLines" },
  { bit: 12, printed: ["REQUIRE_COHERENT"], name: "requireCoherent" },
  { bit: 13, printed: ["CC_SHARED"], name: "shared" },
  { bit: 14, printed: ["ALLOC_CC_SHARED"] },
];

/** The kernel's bits of the attributes, as masks. */
export const ATTRIBUTE_BITS: Readonly<Record<keyof DmaAttributes, number>> = Object.fromEntries(
  KERNEL_ATTRIBUTES.flatMap(({ bit, name }) => (name ? [[name, 1 << bit]] : [])),
) as Record<keyof DmaAttributes, number>;

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
