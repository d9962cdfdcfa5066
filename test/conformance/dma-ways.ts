/**
 * The ways from a device to memory, one row each, for the suite that all must pass; and what a way cannot do, with its reason.
 */
import type { PhysAddr } from "../../src/base/index.ts";
import { Stand, type StandOptions } from "../dma/stand.ts";
import type { Format } from "./formats.ts";

export interface Way {
  readonly name: string;
  readonly options: StandOptions;
  /** What device and CPU must not share: bytes of a cache line, where devices do not look into the caches. */
  readonly line: number;
  /** When one side sees what the other wrote: at once, or by a sync. */
  readonly sees: "at once" | "by a sync";
  /** Why there are no two steps. */
  readonly noTwoSteps?: string;
  /** Why nothing keeps the device from memory that is not mapped. */
  readonly noRefusal?: string;
  /** Why a lazy unlink takes the memory away at once. */
  readonly noLazyUnlink?: string;
  /** A piece of memory that can never be mapped. */
  bad(stand: Stand): { phys: PhysAddr; length: number };
  /** The device must see nothing but its buffers, to the byte. */
  readonly isolates?: boolean;
  /** Where the machine's own pages are private. */
  readonly confidential?: boolean;
}

const NO_IOMMU = "without an IOMMU there is no address space to reserve";
const ALL_OF_IT = "without an IOMMU a device reaches all of memory";
const CARE = "what bounces or is cached has to be taken back at that moment";

const tooWide = ({ domain, granule }: Stand): { phys: PhysAddr; length: number } => ({
  phys: (2 ** domain!.table.layout.outputBits) as PhysAddr,
  length: granule,
});
const unreachable = (): { phys: PhysAddr; length: number } => ({ phys: (2 ** 45) as PhysAddr, length: 4096 });
const tooLong = (): { phys: PhysAddr; length: number } => ({ phys: 0x4000_0000 as PhysAddr, length: 262_145 });
const NARROW: StandOptions = { mask: 2 ** 40 - 1, slots: 0 };

/** Behind an IOMMU, whatever its format. */
export const translatedWays: readonly Way[] = [
  { name: "strict", options: {}, line: 1, sees: "at once", bad: tooWide },
  { name: "lazy", options: { mode: "lazy" }, line: 1, sees: "at once", bad: tooWide },
  {
    name: "bounced (untrusted)",
    options: { untrusted: true },
    isolates: true,
    line: 1,
    sees: "by a sync",
    noLazyUnlink: CARE,
    bad: tooWide,
  },
  {
    name: "non-coherent",
    options: { coherent: false },
    line: 64,
    sees: "by a sync",
    noLazyUnlink: CARE,
    bad: tooWide,
  },
  {
    name: "confidential",
    options: { confidential: "refused" },
    line: 1,
    sees: "at once",
    noLazyUnlink: CARE,
    confidential: true,
    bad: tooWide,
  },
];

/** Two or three of them at once, for a few formats. */
export const combinedWays: readonly Way[] = [
  {
    name: "bounced (untrusted), lazy",
    options: { untrusted: true, mode: "lazy" },
    line: 1,
    sees: "by a sync",
    isolates: true,
    noLazyUnlink: CARE,
    bad: tooWide,
  },
  {
    name: "bounced (untrusted), non-coherent",
    options: { untrusted: true, coherent: false },
    line: 64,
    sees: "by a sync",
    isolates: true,
    noLazyUnlink: CARE,
    bad: tooWide,
  },
  {
    name: "confidential, non-coherent, lazy",
    options: { confidential: "refused", coherent: false, mode: "lazy" },
    line: 64,
    sees: "by a sync",
    noLazyUnlink: CARE,
    confidential: true,
    bad: tooWide,
  },
  {
    name: "confidential, untrusted",
    options: { confidential: "ciphertext", untrusted: true },
    line: 1,
    sees: "by a sync",
    isolates: true,
    noLazyUnlink: CARE,
    confidential: true,
    bad: tooWide,
  },
  { name: "strict, caching mode", options: { cachingMode: true }, line: 1, sees: "at once", bad: tooWide },
];

/** Without an IOMMU. */
export const directWays: readonly Way[] = [
  { name: "direct", options: NARROW, line: 1, sees: "at once", bad: unreachable },
  { name: "direct, bounced", options: { forceBounce: true }, line: 1, sees: "by a sync", bad: tooLong },
  {
    name: "direct, non-coherent",
    options: { ...NARROW, coherent: false },
    line: 64,
    sees: "by a sync",
    bad: unreachable,
  },
  {
    name: "direct, bounced, non-coherent",
    options: { forceBounce: true, coherent: false },
    line: 64,
    sees: "by a sync",
    bad: tooLong,
  },
  {
    name: "direct, confidential",
    options: { confidential: "refused", mask: 2 ** 40 - 1 },
    line: 1,
    sees: "at once",
    confidential: true,
    bad: () => ({ phys: (2 ** 45) as PhysAddr, length: 262_145 }),
  },
].map((way) => ({ ...way, noTwoSteps: NO_IOMMU, noRefusal: ALL_OF_IT }) as Way);

export const build = (way: Way, format: Format | undefined, more: StandOptions = {}): Stand =>
  new Stand({ ...way.options, layout: format?.layout(), ...more });
