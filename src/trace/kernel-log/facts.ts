/**
 * What a kernel says of DMA in its log, as plain values: faults of the IOMMU, what was kept back, and its own verdicts.
 *
 * Idea: each driver prints its own sentence; a fact is what the sentence means, decoded, with nothing added. `At` is where the
 * line stood (a line of a log, an event of a trace): the reader of messages carries it and never looks inside.
 * Not for: judging. Who had the address is the analysis's to find (src/analysis/faults).
 */
import type { MisuseCode } from "../../base/index.ts";

/** What the device tried; `unknown` where the line does not say. */
export type Access = "read" | "write" | "unknown";

/** The families of IOMMUs whose lines are read; `gpu` is a device's own page tables, not the IOMMU's. */
export type UnitKind =
  | "vtd"
  | "amd"
  | "smmu-v2"
  | "smmu-v3"
  | "virtio"
  | "rockchip"
  | "mediatek"
  | "exynos"
  | "tegra"
  | "dart"
  | "ipmmu"
  | "sun50i"
  | "omap"
  | "riscv"
  | "gpu";

/** What the tables held for the address when the fault was printed, where the kernel printed that too. */
export type TableEntry = "absent" | "read-only" | "write-only" | "read-write";

/** A device's request that the IOMMU refused. */
export interface IommuFault<At> {
  /** Tells it from other facts. */
  readonly kind: "fault";
  /** `undefined`: told by a trace event, which does not say. */
  readonly unit: UnitKind | undefined;
  /** The unit's own name, such as "70c00000.iommu"; `undefined` where the line has none. */
  readonly unitName: string | undefined;
  /** The device as the kernel names devices ("0000:00:06.0"); `undefined` where the line has only a number for it. */
  readonly device: string | undefined;
  /** The number by which the unit knows the device: stream, endpoint, master. */
  readonly stream: number | undefined;
  /** Exact, all 64 bits. VT-d gives the page, the others the byte. */
  readonly address: bigint | undefined;
  /** What the device wanted there, as far as the line says. */
  readonly access: Access;
  /** The cause that the hardware gives, in words. */
  readonly reason: string;
  /** The number that the reason was decoded from, where there is one. */
  readonly reasonCode: number | undefined;
  /** Process address space, where the request had one. */
  readonly pasid: number | undefined;
  /** Number of the domain, as the unit counts. */
  readonly domain: number | undefined;
  /** What the tables held for the address, where the kernel printed that too. */
  readonly entry: TableEntry | undefined;
  /** The unit has no tables for the device at all: it is attached to nothing. */
  readonly detached: boolean;
  /** The permission was at fault, not that nothing is mapped; `undefined` where that is not said. */
  readonly permission: boolean | undefined;
  /** The line, without its front; cut at {@link SHOWN_CHARACTERS}. */
  readonly text: string;
  /** Where the line stood. */
  readonly at: At;
}

/** Lines that the kernel kept back, by its rate limit. */
export interface SuppressedLines<At> {
  /** Tells it from other facts. */
  readonly kind: "suppressed";
  /** The function whose lines were kept back. */
  readonly by: string;
  /** Lines. */
  readonly count: number;
  /** Where the line that says so stood. */
  readonly at: At;
}

/** What the kernel's own DMA checks (CONFIG_DMA_API_DEBUG) found. */
export interface DmaApiReport<At> {
  /** Tells it from other facts. */
  readonly kind: "dma-api";
  /** Which rule was broken. */
  readonly misuse: MisuseCode;
  /** Of the device, where the line says. */
  readonly driver: string | undefined;
  /** As the kernel names devices, where the line says. */
  readonly device: string | undefined;
  /** That was mapped, unmapped or synced, where the line says; exact, all 64 bits. */
  readonly address: bigint | undefined;
  /** Bytes. */
  readonly size: number | undefined;
  /** Who mapped, innermost first, where "Mapped at:" follows. */
  readonly mappedAt: readonly string[];
  /** The line, without its front; cut at {@link SHOWN_CHARACTERS}. */
  readonly text: string;
  /** Where the line stood. */
  readonly at: At;
}

/** The pool of bounce buffers had no room, or the address would not have reached the device. */
export interface BouncePoolFull<At> {
  /** Tells it from other facts. */
  readonly kind: "bounce-full";
  /** Of the device, where the line says. */
  readonly driver: string | undefined;
  /** As the kernel names devices, where the line says. */
  readonly device: string | undefined;
  /** Bytes that were asked for. */
  readonly size: number;
  /** Slots of {@link BOUNCE_SLOT_BYTES}, where the line says. */
  readonly totalSlots: number | undefined;
  /** Of those, in use; where the line says. */
  readonly usedSlots: number | undefined;
  /** The line, without its front; cut at {@link SHOWN_CHARACTERS}. */
  readonly text: string;
  /** Where the line stood. */
  readonly at: At;
}

/** A direct mapping that the device cannot reach: its address is wider than the mask. */
export interface MaskOverflow<At> {
  /** Tells it from other facts. */
  readonly kind: "mask-overflow";
  /** Of the device, where the line says. */
  readonly driver: string | undefined;
  /** As the kernel names devices, where the line says. */
  readonly device: string | undefined;
  /** Where the mapping would begin for the device. */
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
  /** The highest address that the device can emit. */
  readonly mask: bigint;
  /** The line, without its front; cut at {@link SHOWN_CHARACTERS}. */
  readonly text: string;
  /** Where the line stood. */
  readonly at: At;
}

/** A line that speaks of an IOMMU's trouble in words that are not known here. */
export interface UnknownLine<At> {
  /** Tells it from other facts. */
  readonly kind: "unknown";
  /** The line, without its front; cut at {@link SHOWN_CHARACTERS}. */
  readonly text: string;
  /** Where the line stood. */
  readonly at: At;
}

/** Something that the kernel said of DMA: a fault, a verdict of its debugging, a full bounce pool. */
export type KernelFact<At> =
  | IommuFault<At>
  | SuppressedLines<At>
  | DmaApiReport<At>
  | BouncePoolFull<At>
  | MaskOverflow<At>
  | UnknownLine<At>;

/** Bytes of a slot of the bounce pool. Source: Linux's IO_TLB_SIZE. */
export const BOUNCE_SLOT_BYTES = 2048;
/** Bytes of the largest piece that can be bounced: 128 slots. Source: Linux's IO_TLB_SEGSIZE. */
export const BOUNCE_PIECE_BYTES: number = 128 * BOUNCE_SLOT_BYTES;

/** Characters of a line that a fact keeps. */
export const SHOWN_CHARACTERS = 400;

/** A line for people: one line, bounded, without control characters. */
export const shown = (text: string): string => {
  const cut = text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
  // A tab is the kernel's indentation; everything else below a space would be the terminal's.
  return cut.replace(/\p{Cc}+/gu, " ").trim();
};

/** One kind of sentence. Readers are asked in turn; the first that answers true had it. */
export interface MessageReader<At> {
  /** Takes the message of one line; false: it is none of this reader's sentences. */
  read(message: string, at: At): boolean;
  /** Hands on what still waited for a line that completes it. */
  settle(): void;
}

/** Takes the facts, in the order in which they are complete. */
export type FactSink<At> = (fact: KernelFact<At>) => void;
