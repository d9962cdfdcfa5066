/**
 * The kernel's own DMA checks (`DMA-API: …`): which misuse it found, of which device, and who had mapped.
 *
 * Idea: each check has one sentence, recognised by the words that only it has; the numbers stand behind in brackets. The call chain that
 * may follow ("Mapped at:") is gathered until a line is no frame.
 * Specified by: the sentences of Linux 2.6.30 to 7.2 (CONFIG_DMA_API_DEBUG).
 */
import { KERNEL_REPORTS } from "../../base/index.ts";
import { type DmaApiReport, type FactSink, type MessageReader, shown } from "./facts.ts";
import { decimal, deviceName, hexBits } from "./names.ts";

/** What the checks say of themselves when the kernel starts. */
const STARTING =
  /preallocated \d+ debug entries|debugging enabled by kernel config|debugging disabled on kernel command line|debugging enabled for driver|dma_debug_entry pool grown to|DMA-API: exceeded/i;
const LEAKED = /^\s*One of leaked entries details: /;
const FRAME = /^\s*(?:\[<[0-9a-f]{1,16}>\] )?(?:\? )?([\w.]{1,120})\+0x[0-9a-f]{1,8}\/0x[0-9a-f]{1,8}/;
const MOST_FRAMES = 32;

type Open<At> = { -readonly [Key in keyof DmaApiReport<At>]: DmaApiReport<At>[Key] } & { mappedAt: string[] };

export class DmaApiReader<At> implements MessageReader<At> {
  readonly #emit: FactSink<At>;
  #open: Open<At> | undefined;
  #inChain = false;

  constructor(emit: FactSink<At>) {
    this.#emit = emit;
  }

  read(message: string, at: At): boolean {
    const marker = message.indexOf("DMA-API:");
    if (marker < 0) return this.#follows(message);
    const text = message.slice(marker + "DMA-API:".length);
    if (/^\s*Mapped at:/.test(text)) {
      this.#inChain = this.#open !== undefined;
      return true;
    }
    if (STARTING.test(message)) return true;
    const sentence = KERNEL_REPORTS.find(([words]) => text.includes(words));
    if (!sentence) return this.#follows(text);
    this.settle();
    const words = text.slice(0, text.indexOf(sentence[0])).trim();
    const owner = /^(\S{1,64}) (\S{1,64}): /.exec(`${words} `);
    this.#open = {
      kind: "dma-api",
      misuse: sentence[1],
      driver: owner?.[1],
      device: owner ? deviceName(owner[2]!) : undefined,
      ...numbersOf(text),
      mappedAt: [],
      text: shown(message),
      at,
    };
    return true;
  }

  settle(): void {
    const open = this.#open;
    this.#open = undefined;
    this.#inChain = false;
    if (open) this.#emit(open);
  }

  /** A line of somebody else: what follows is no longer the call chain. */
  interrupt(): void {
    this.#inChain = false;
  }

  /** Lines behind a report that belong to it. */
  #follows(text: string): boolean {
    const open = this.#open;
    if (!open) return false;
    if (LEAKED.test(text)) {
      Object.assign(open, numbersOf(text));
      return true;
    }
    if (/^\s*Mapped at:/.test(text)) {
      this.#inChain = true;
      return true;
    }
    const frame = this.#inChain ? FRAME.exec(text) : undefined;
    if (frame && open.mappedAt.length < MOST_FRAMES) {
      open.mappedAt.push(frame[1]!);
      return true;
    }
    this.#inChain = false;
    return false;
  }
}

function numbersOf(text: string): Pick<DmaApiReport<never>, "address" | "size"> {
  const address = /\[(?:device )?(?:address|addr)=(?:0x)?(?:0x)?([0-9a-f]{1,16})\]/i.exec(text)?.[1];
  const size = /\[(?:size|map size|allocation size|len)=(\d{1,15})(?: bytes)?\]/i.exec(text)?.[1];
  return { address: address === undefined ? undefined : hexBits(address), size: decimal(size) };
}
