/**
 * Kernel messages in, facts out: asks the readers of each driver's lines in turn, and keeps what none of them knows.
 *
 * Idea: most lines are nobody's, so one search for a few words sends them on; what is left is asked one by one. A fact whose lines are
 * spread (a fault and the walk of the tables behind it) comes out when it is complete, or when {@link KernelMessages.settle} is called.
 * Promises: linear in the text; memory does not grow with it; a line about an IOMMU's trouble that nobody knows is handed on as such,
 * never dropped.
 */
import { AmdReader } from "./amd.ts";
import { BounceReader } from "./bounce.ts";
import { DmaApiReader } from "./dma-api.ts";
import { type FactSink, type MessageReader, shown } from "./facts.ts";
import { OtherUnitsReader } from "./other-units.ts";
import { SmmuV2Reader } from "./smmu-v2.ts";
import { SmmuV3Reader } from "./smmu-v3.ts";
import { VtdReader } from "./vtd.ts";

/** Characters of a message that are looked at; the kernel prints at most 1,024. */
const MOST_CHARACTERS = 4096;

const RELEVANT =
  /dmar|amd-vi|iommu|smmu|mmu[. :]|dart|dma-api|swiotlb|sw-iommu|dma addr|dma mask|io_page_fault|device=|callbacks suppressed|page fault|request device|fault: iova|iotval|hub\d?\]|l2_protection|utcl2|_faults:|_error: 0x/i;
const SUPPRESSED = /(?:^|\s)([\w.]{1,64}): (\d{1,12}) callbacks suppressed/;
/** Functions whose lines are read here. */
const OURS = /dmar|iommu|smmu|swiotlb|dart|sysmmu|ipmmu|tegra_mc|page_fault|gmc_v|gfxhub|mmhub/i;

const UNIT = /\b(?:dmar|amd-vi|(?:\w{1,16}[-_])?iommu|arm-smmu(?:-v3)?|smmu|sysmmu|ipmmu|dart|swiotlb|dma-api)\b/i;
const TROUBLE =
  /fault|error|fail|abort|time-?d? ?out|overflow|violation|illegal|blocked|denied|unhandled|unexpected|\binvalid\b|conflict|\bbad\b|refus/i;
/** What is printed when all is well, although it has such a word. */
const HARMLESS =
  /command line|IOMMU enabled|error recovery|default domain|fault_addr|Interrupt remapping|IR table|RMRR|no_fault|bypass|disabled by default|prefault|(?:en|dis)abl(?:ed|ing) .{0,40}(?:fault|error) (?:report|handl)|Firmware (?:Bug|First)|DRHD: handling|device tree/i;
/** A frame of a call chain, or a register dump: words of functions, not of the kernel. */
const FRAME =
  /\+0x[0-9a-f]{1,8}\/0x[0-9a-f]{1,8}|^\s*(?:RIP|RSP|Code|Modules linked in|Workqueue|Call Trace|CPU|Hardware name):/;

/** Messages of the kernel, line by line, into what they say of DMA. */
export class KernelMessages<At> {
  readonly #readers: readonly MessageReader<At>[];
  readonly #dmaApi: DmaApiReader<At>;
  readonly #emit: FactSink<At>;
  /** Messages looked at. */
  read = 0;
  /** Those that one of the readers had. */
  understood = 0;

  /** Facts go to `emit`, in the order in which they are complete. */
  constructor(emit: FactSink<At>) {
    this.#emit = emit;
    this.#dmaApi = new DmaApiReader(emit);
    this.#readers = [
      new VtdReader(emit),
      new AmdReader(emit),
      new SmmuV3Reader(emit),
      new SmmuV2Reader(emit),
      new OtherUnitsReader(emit),
      new BounceReader(emit),
      this.#dmaApi,
    ];
  }

  /** Takes one message, without the front of its line. */
  push(message: string, at: At): void {
    this.read++;
    const text = message.length > MOST_CHARACTERS ? message.slice(0, MOST_CHARACTERS) : message;
    if (!RELEVANT.test(text) && !FOLLOWS.test(text)) {
      this.#dmaApi.interrupt();
      return;
    }
    for (const reader of this.#readers)
      if (reader.read(text, at)) {
        this.understood++;
        return;
      }
    const suppressed = SUPPRESSED.exec(text);
    if (suppressed) {
      if (!OURS.test(suppressed[1]!)) return;
      this.understood++;
      this.#emit({ kind: "suppressed", by: suppressed[1]!, count: Number(suppressed[2]), at });
      return;
    }
    if (UNIT.test(text) && TROUBLE.test(text) && !HARMLESS.test(text) && !FRAME.test(text))
      this.#emit({ kind: "unknown", text: shown(text), at });
  }

  /** Hands on what waits for lines that may still come: at the end, or when too much time went by. */
  settle(): void {
    for (const reader of this.#readers) reader.settle();
  }
}

/** Lines that have none of the words, and belong to one before them: raw words, frames, walks. */
const FOLLOWS =
  /(?:^|\s)0x[0-9a-f]{16}\s*$|\+0x[0-9a-f]{1,8}\/0x[0-9a-f]{1,8}|Mapped at:|leaked entries|\bpriv |unpriv |GFSR |FSYNR0 |FSR {4}=/i;
