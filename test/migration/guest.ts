/** A guest for machines on the move: processors that write, a network that sends, and the machine around them. */
import { PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import {
  type ByteLink,
  DirtyBitmap,
  type DirtySource,
  deviceLogSource,
  type GuestProcessors,
  type GuestRam,
  iommuSource,
  type MovableMachine,
  RamLayout,
} from "../../src/consumers/vfio/index.ts";
import { packet, type Stand, startReceiving } from "./stand.ts";

/** Memory of a stand's guest. */
export function ramOf({ host, guestPage, guestBytes }: Stand): GuestRam {
  const { memory } = host.machine;
  const phys = (first: number) => PhysPage.start(PhysPage.add(guestPage, first));
  return {
    layout: new RamLayout([{ start: 0, length: guestBytes }]),
    read: (first, into) => memory.read(phys(first), into),
    write: (first, from) => memory.write(phys(first), from),
  };
}

/** Which pages the processors write is a function of how often they did: so two guests of one state go on alike. */
export class Processors implements GuestProcessors {
  /** Writes so far. */
  count = 0;
  isRunning = true;
  /** What was written since it was told last; undefined: nobody wants to know. */
  written: DirtyBitmap | undefined;
  readonly #ram: GuestRam;
  readonly #firstPage: number;

  /** They write to pages from `firstPage` on. */
  constructor(ram: GuestRam, firstPage: number) {
    this.#ram = ram;
    this.#firstPage = firstPage;
  }

  /** Writes `pages` pages; nothing while stopped. */
  work(pages: number): void {
    if (!this.isRunning) return;
    const { pageCount } = this.#ram.layout;
    for (let i = 0; i < pages; i++) {
      const page = this.#firstPage + ((Math.imul(++this.count, 0x9e3779b1) >>> 0) % (pageCount - this.#firstPage));
      this.#ram.write(page, new Uint8Array(PAGE_SIZE).fill(this.count % 251));
      this.written?.set(page, 1);
    }
  }

  /** The last thing they do is a write: nobody stops between two moments. */
  stop(): void {
    this.work(3);
    this.isRunning = false;
  }

  resume(): void {
    this.isRunning = true;
  }

  save(): Uint8Array {
    return new TextEncoder().encode(String(this.count));
  }

  load(state: Uint8Array): void {
    this.count = Number(new TextDecoder().decode(state));
  }

  /** What the monitor of a virtual machine knows of its processors. */
  get source(): DirtySource {
    return {
      name: "processors",
      start: () => {
        this.written = new DirtyBitmap(this.#ram.layout.pageCount);
      },
      stop: () => {
        this.written = undefined;
      },
      collect: (mark) => {
        for (let run = this.written!.takeRun(0, 1024); run; run = this.written!.takeRun(run.first, 1024))
          mark(run.first, run.count);
      },
    };
  }
}

export interface Guest {
  readonly place: Stand;
  readonly ram: GuestRam;
  readonly processors: Processors;
  readonly machine: MovableMachine;
  /** Packets from the network so far. */
  packets: number;
  /** A millisecond of work: so many pages by processors, and packets of a page by the network. */
  work(pages: number, packets: number): void;
}

/** Pages of the ring that the network card's function fills. */
export const RING_PAGES = 128;

/** The guest of a stand. `isNew`: its driver starts the card; else that comes with the state. */
export function guestOf(place: Stand, isNew: boolean, sources: readonly DirtySource[] = []): Guest {
  const ram = ramOf(place);
  const processors = new Processors(ram, RING_PAGES);
  const { first } = place;
  if (isNew) startReceiving(first, 0, RING_PAGES);
  const guest: Guest = {
    place,
    ram,
    processors,
    packets: 0,
    machine: {
      ram,
      processors,
      devices: [
        {
          name: "nic",
          migration: first.migration,
          reset: () => {
            void first.device.reset();
            first.migration.reset();
          },
        },
      ],
      dirty: [
        deviceLogSource("device log", first.logging, ram.layout),
        iommuSource("iommu", place.domain, ram.layout),
        processors.source,
        ...sources,
      ],
    },
    work(pages, packets) {
      processors.work(pages);
      for (let i = 0; i < packets; i++) first.model.receive(packet(guest.packets++, PAGE_SIZE));
    },
  };
  // The network does not wait until somebody looks: a packet comes with every step of the device.
  const take = first.driver.takeArc.bind(first.driver);
  first.driver.takeArc = (from, to) => {
    guest.work(0, 1);
    return take(from, to);
  };
  return guest;
}

/** What goes wrong on a link: it is cut before a byte, or a bit of a byte is changed. */
export interface Damage {
  readonly at: number;
  readonly kind: "cut" | "flip";
}

/** Two ends of a link in memory. `damage` is of what the first end sends, `damageBack` of what the second does. */
export function linkPair(damage?: Damage, damageBack?: Damage): [ByteLink, ByteLink] {
  const there = new Pipe(damage);
  const back = new Pipe(damageBack);
  const end = (out: Pipe, into: Pipe): ByteLink => ({
    send: async (bytes) => out.put(bytes),
    receive: () => into.take(),
    close: () => {
      out.end();
      into.stopReading();
    },
  });
  return [end(there, back), end(back, there)];
}

class Pipe {
  readonly #chunks: Uint8Array[] = [];
  readonly #damage: Damage | undefined;
  #sent = 0;
  #hasEnded = false;
  #isUnread = false;
  #wake: (() => void) | undefined;

  constructor(damage: Damage | undefined) {
    this.#damage = damage;
  }

  put(bytes: Uint8Array): void {
    if (this.#hasEnded || this.#isUnread) throw new Error("EPIPE");
    const at = this.#damage ? this.#damage.at - this.#sent : -1;
    this.#sent += bytes.length;
    const copy = bytes.slice();
    if (at < 0 || at >= bytes.length) this.#chunks.push(copy);
    else if (this.#damage!.kind === "flip") {
      copy[at]! ^= 1 << (at % 8);
      this.#chunks.push(copy);
    } else {
      this.#chunks.push(copy.subarray(0, at));
      this.#hasEnded = true;
    }
    this.#wake?.();
  }

  async take(): Promise<Uint8Array | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#hasEnded) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#chunks.shift();
  }

  end(): void {
    this.#hasEnded = true;
    this.#wake?.();
  }

  stopReading(): void {
    this.#isUnread = true;
  }
}

/** A link that takes time: `work` is done for each millisecond that its bytes take. */
export function slowLink(link: ByteLink, bytesPerMs: number, place: Stand, work: () => void): ByteLink {
  let left = 0;
  return {
    ...link,
    async send(bytes) {
      await link.send(bytes);
      for (left += bytes.length; left >= bytesPerMs; left -= bytesPerMs) {
        work();
        place.host.clock.advance(1);
      }
    },
  };
}
