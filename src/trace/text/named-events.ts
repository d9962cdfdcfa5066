/**
 * The events of a text file by name, and the types of event that their lines turn out to have.
 *
 * Idea: a line tells its fields itself, so one name can have several types: one per print format, one per set of loose
 * fields. A type that bears a catalogued name and lacks what its meaning rests on is marked strange.
 */
import { isStrange } from "../catalogue.ts";
import type { EventField, EventType } from "../events.ts";
import { StringTable } from "../string-table.ts";
import { fieldOf, type LooseFields } from "./loose-fields.ts";
import { type Template, templatesOf } from "./print-formats.ts";

/** Different sets of fields that one event name may have before its lines are kept as text. */
const MOST_VARIANTS = 64;
/** Types of one file; a batch has 16 bits for them. */
const MOST_TYPES = 60_000;
/** Types that no name may use up: each name may still get its one of text. */
const MOST_LOOSE_TYPES = 30_000;

/** What is known of one event name. */
export interface NamedEvent {
  readonly system: string;
  readonly name: string;
  readonly templates: readonly Template[];
  /** A call chain of the event before, as an event of its own. */
  readonly isStack: boolean;
  /** Index into `types` by template; -1: no line of that form yet. */
  readonly templateTypes: number[];
  /** Index into `types` by the fields of a loose event; "": as text. */
  readonly variants: Map<string, number>;
}

const TEXT: readonly EventField[] = [{ name: "text", kind: "string" }];

export class NamedEvents {
  readonly #types: EventType[];
  readonly #names = new StringTable();
  readonly #events: (NamedEvent | undefined)[] = [];
  readonly #strange: boolean[] = [];
  #function = -1;

  constructor(types: EventType[]) {
    this.#types = types;
  }

  /** The event whose name is in bytes [from, to), with or without its system: `iommu:map`, `map`. */
  at(bytes: Uint8Array, from: number, to: number): NamedEvent {
    const index = this.#names.internBytes(bytes, from, to);
    return this.#events[index] ?? this.#add(index);
  }

  #add(index: number): NamedEvent {
    const full = this.#names.list[index]!;
    const colon = full.indexOf(":");
    const system = colon < 0 ? "" : full.slice(0, colon);
    const name = full.slice(colon + 1);
    const isOurs =
      system === "" || /^(?:dma|iommu|swiotlb|intel_iommu|probes|kprobes|fprobes|dmalink|dma_iova)$/.test(system);
    const templates = isOurs || name.startsWith("dma_iova_") ? templatesOf(name) : [];
    const event: NamedEvent = {
      system,
      name,
      templates,
      isStack: name === "kernel_stack" && (system === "" || system === "ftrace"),
      templateTypes: templates.map(() => -1),
      variants: new Map(),
    };
    this.#events[index] = event;
    return event;
  }

  /** The type of the lines that fit template `index`. */
  typeOf(event: NamedEvent, index: number): number {
    const known = event.templateTypes[index]!;
    if (known >= 0) return known;
    const type = this.#push(event, event.templates[index]!.fields);
    event.templateTypes[index] = type;
    return type;
  }

  /** The type that lines with these loose fields have, or that of text; -1: there are too many types. */
  looseType(event: NamedEvent, loose: LooseFields | undefined): number {
    const signature = loose?.fields.map(({ name, kind }) => `${name}=${kind}`).join(" ") ?? "";
    const known = event.variants.get(signature);
    if (known !== undefined) return known;
    const isText = !loose || event.variants.size >= MOST_VARIANTS || this.#types.length >= MOST_LOOSE_TYPES;
    const type = isText ? event.variants.get("") : undefined;
    if (type !== undefined) return type;
    if (this.#types.length >= MOST_TYPES) return -1;
    const added = this.#push(event, isText ? TEXT : loose.fields.map(fieldOf));
    event.variants.set(isText ? "" : signature, added);
    return added;
  }

  /** The type that such an event would have. */
  asType(event: NamedEvent, loose: LooseFields): EventType {
    return { id: -1, system: event.system, name: event.name, fields: loose.fields.map(fieldOf) };
  }

  /** Whether events of this type bear a catalogued name and are not understood. */
  isStrange(type: number): boolean {
    return this.#strange[type] ?? false;
  }

  /** Lines of the function tracer. */
  functionType(): number {
    if (this.#function < 0)
      this.#function = this.#types.push({ id: this.#types.length, system: "", name: "function", fields: TEXT }) - 1;
    return this.#function;
  }

  #push({ system, name }: NamedEvent, fields: readonly EventField[]): number {
    const id = this.#types.length;
    const type: EventType = { id, system, name, fields };
    this.#strange[id] = isStrange(type);
    return this.#types.push(type) - 1;
  }
}
