/** Reads a trace to its requests: each event the catalogue knows goes to the {@link RequestBuilder}, by its columns. */
import { PAGE_SIZE } from "../base/index.ts";
import {
  type EventBatch,
  fieldBigint,
  fieldNumber,
  fieldText,
  type KnownEvent,
  known,
  type Role,
  type Trace,
} from "../trace/index.ts";
import { type Direction, directionOf, RequestBuilder, type Requests, type Segment } from "./requests.ts";

/** What a consumer wants to see of each event beside the requests. */
export type EventVisitor = (batch: EventBatch, row: number) => void;

/**
 * Reads all of `trace`. Memory: proportional to its mappings, not to its events or bytes.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function readRequests(trace: Trace, visit?: EventVisitor): Promise<Requests> {
  const reader = new RequestReader(trace);
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      visit?.(batch, row);
      reader.event(batch, row);
    }
  return reader.finish();
}

/** The same event by event, for who reads the trace for something else as well. */
export class RequestReader {
  readonly #trace: Trace;
  readonly #builder = new RequestBuilder();
  readonly #types: (KnownEvent | undefined)[] = [];

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  event(batch: EventBatch, row: number): void {
    const types = this.#types;
    const typeId = batch.type[row]!;
    while (typeId >= types.length) types.push(known(this.#trace.types[types.length]!));
    const event = types[typeId];
    if (event) feed(this.#builder, this.#trace, batch, row, event);
  }

  finish(): Requests {
    return this.#builder.finish();
  }
}

function feed(builder: RequestBuilder, trace: Trace, batch: EventBatch, row: number, event: KnownEvent): void {
  const { fields } = event;
  const number = (role: Role): number => {
    const field = fields[role];
    return field === undefined ? 0 : fieldNumber(batch, row, field);
  };
  const text = (role: Role): string => {
    const field = fields[role];
    return field === undefined ? "" : fieldText(trace, batch, row, field);
  };
  const state = (): string => (fields.state === undefined ? "" : `${fieldBigint(batch, row, fields.state)}`);
  const direction = (): Direction | undefined =>
    fields.direction === undefined ? undefined : directionOf(fieldNumber(batch, row, fields.direction));
  const timeNs = batch.timeNs[row]!;
  const cpu = batch.cpu[row]!;
  const pages = (bytes: number): number => Math.ceil(bytes / PAGE_SIZE);
  switch (event.meaning) {
    case "iommu-map":
      builder.map(timeNs, cpu, number("iova") / PAGE_SIZE, number("physAddr"), pages(number("size")));
      break;
    case "iommu-unmap":
      // What was unmapped counts, not what was asked for.
      builder.unmap(timeNs, number("iova") / PAGE_SIZE, pages(number("unmappedSize") || number("size")));
      break;
    case "dma-map": {
      const iova = number("dmaAddr");
      if (iova >= FAILED) return;
      const segment: Segment = { phys: number("physAddr"), length: number("size"), iova };
      builder.mapped(timeNs, cpu, text("device"), segment, direction());
      break;
    }
    case "dma-alloc":
      if (number("dmaAddr") >= FAILED || number("size") === 0) return;
      builder.allocated(timeNs, cpu, text("device"), number("dmaAddr"), number("size"), direction());
      break;
    case "dma-map-list":
      builder.mappedList(timeNs, cpu, text("device"), listOf(batch, row, fields), direction());
      break;
    case "dma-unmap":
    case "dma-free":
      builder.unmapped(timeNs, text("device"), number("dmaAddr"), event.meaning === "dma-free");
      break;
    case "dma-unmap-list":
      builder.unmappedList(text("device"), firstPhys(batch, row, fields));
      break;
    case "range-reserve":
      if (number("ok") !== 0) builder.reserved(timeNs, text("device"), state());
      return;
    case "range-link": {
      const iova = number("dmaAddr") + number("offset");
      const segment: Segment = { phys: number("physAddr"), length: number("size"), iova };
      builder.linked(cpu, state(), segment, direction());
      break;
    }
    case "range-free":
    case "range-destroy":
      builder.released(timeNs, state());
      break;
    default:
  }
}

/** The first physical address of a `dma_unmap_sg`, by which it names its list; -1: none. */
function firstPhys(batch: EventBatch, row: number, { physAddrs }: KnownEvent["fields"]): number {
  if (physAddrs === undefined) return -1;
  const at = batch.start[row]! + physAddrs * 2;
  const first = batch.words[at]!;
  return batch.words[at + 1]! === 0 ? -1 : batch.words[first + 1]! * 2 ** 32 + batch.words[first]!;
}

/** The items of a `dma_map_sg`; the DMA lengths stand for the physical ones, which the event does not give. */
function listOf(batch: EventBatch, row: number, fields: KnownEvent["fields"]): Segment[] {
  const items = (role: "physAddrs" | "dmaAddrs" | "lengths"): number[] => {
    const field = fields[role];
    if (field === undefined) return [];
    const at = batch.start[row]! + field * 2;
    const first = batch.words[at]!;
    return Array.from(
      { length: batch.words[at + 1]! },
      (_, i) => batch.words[first + i * 2 + 1]! * 2 ** 32 + batch.words[first + i * 2]!,
    );
  };
  const [phys, dma, lengths] = [items("physAddrs"), items("dmaAddrs"), items("lengths")];
  return dma.map((iova, i) => ({ iova, phys: phys[i] ?? iova, length: lengths[i] ?? 0 }));
}

/** A mapping that failed: all ones, or what a 32-bit kernel prints of it. */
const FAILED = 2 ** 63;
