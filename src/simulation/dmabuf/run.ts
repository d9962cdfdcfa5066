/**
 * A run of shared buffers: one buffer that moves, goes and comes, and devices that use it as they are allowed to, and as not.
 *
 * The oracles: every device and the CPU always read what was written last, wherever the bytes are; no address that a device had leads
 * anywhere once its mapping is gone, in lazy mode too; refusals have a reason; and all is given back at the end.
 */
import { type DmaAddr, DmaError, PAGE_SIZE } from "../../base/index.ts";
import {
  type Attachment,
  BarPages,
  DeviceMemoryBuffers,
  type DmaBuf,
  type MigratingBuffer,
} from "../../consumers/dmabuf/index.ts";
import type { Dma } from "../../dma/index.ts";
import { DmaEngine, SimulatedHost } from "../../hosts/simulated/index.ts";
import type { P2pProvider } from "../../p2p/index.ts";
import { type Steps, WAITING } from "../../platform/index.ts";
import { pattern, poisoningPages, readPieces, writePieces } from "../bytes.ts";
import { Broken, type RunOptions, type RunResult, type Violation, violationOf } from "../scenario.ts";
import type { DmabufPlan, DmabufStep, SharerKind } from "./plan.ts";

/** Runs a plan. */
export function runDmabuf(plan: DmabufPlan, options: RunOptions = {}): RunResult {
  return new DmabufRun(plan, options).all();
}

/** Addresses as a device was given them. */
type Ranges = readonly { readonly address: DmaAddr; readonly length: number; readonly bus?: boolean }[];

/** A device that may share the buffer. */
interface Sharer {
  readonly engine: DmaEngine;
  readonly dma: Dma;
  attachment: Attachment | undefined;
  kind: SharerKind;
  /** It had pinned the buffer when that was revoked. */
  isLost: boolean;
  /** Addresses that it was given, at any time. */
  readonly had: Ranges[];
}

/** Bytes of memory that the owner has. */
const OWN_MEMORY = 2 ** 18;

class DmabufRun {
  readonly #plan: DmabufPlan;
  readonly #host: SimulatedHost;
  readonly #ownPages: BarPages;
  readonly #migrating: MigratingBuffer;
  readonly #sharers: readonly Sharer[];
  /** What the buffer holds. */
  readonly #content: Uint8Array;
  #events = 0;
  #bytes = 0;

  constructor(plan: DmabufPlan, { observer, parts }: RunOptions) {
    const { mode, routes, sharers, pages } = plan.config;
    this.#plan = plan;
    const slots = ["0.0.1", "0.1", "0.2", "0.3"].slice(0, sharers);
    this.#host = new SimulatedHost({
      seed: plan.seed,
      memoryBytes: 2 ** 24,
      bridges: [{ cpu: { vendor: "AMD", family: routes ? 0x19 : 0xf }, rootPorts: [{ switch: [{}, {}] }, {}, {}, {}] }],
      iommu: mode === "none" ? undefined : { mode },
      ...(observer && { observer }),
    });
    const { machine } = this.#host;
    const { provider, name } = this.#plugIn("0.0.0");
    this.#sharers = slots.map((slot) => {
      const { engine, name: its } = this.#plugIn(slot);
      const { dma } = this.#host.openDevice(its);
      dma.setMask(2 ** 64);
      return { engine, dma, attachment: undefined, kind: "static", isLost: false, had: [] };
    });
    machine.rebase();
    this.#ownPages = new BarPages(provider);
    const devicePages = poisoningPages(this.#ownPages, machine.memory);
    const systemPages = poisoningPages(machine.pages, machine.memory);
    const buffers = new DeviceMemoryBuffers({ name, provider, devicePages, systemPages, memory: machine.memory });
    this.#migrating = buffers.allocate(pages * PAGE_SIZE, "system");
    this.#content = new Uint8Array(pages * PAGE_SIZE);
    parts?.buffer?.(this.#migrating);
  }

  all(): RunResult {
    let step = 0;
    let violation: Violation | undefined;
    try {
      for (; step < this.#plan.steps.length; step++) this.#step(this.#plan.steps[step]!);
      this.#end();
    } catch (error) {
      violation = violationOf(error, step);
    }
    return { events: this.#events, violation, bytesMoved: this.#bytes };
  }

  get #buffer(): DmaBuf {
    return this.#migrating.buffer;
  }

  #step(step: DmabufStep): void {
    this.#events++;
    switch (step.do) {
      case "attach":
        this.#attach(this.#sharers[step.device]!, step.device, step.kind);
        return;
      case "detach":
        this.#sharers[step.device]!.attachment?.detach();
        this.#sharers[step.device]!.attachment = undefined;
        return;
      case "map":
      case "unmap":
      case "pin":
      case "unpin":
        this.#locked(this.#sharers[step.device]!, step.do);
        return;
      case "read":
      case "write":
        this.#transfer(this.#sharers[step.device]!, step);
        return;
      case "CPU reads":
      case "CPU writes":
        this.#cpu(step);
        return;
      case "migrate":
        this.#migrate(step);
        return;
      case "revoke":
        for (const sharer of this.#sharers)
          if ((sharer.attachment?.pins ?? 0) > 0 && !this.#buffer.isRevoked) sharer.isLost = true;
        this.#finish(this.#buffer.revoke());
        return;
      case "restore":
        if (this.#buffer.isRevoked) this.#finish(this.#buffer.restore());
        return;
      case "reach back":
        this.#reachBack(this.#sharers[step.device]!);
        return;
    }
  }

  #attach(sharer: Sharer, device: number, kind: SharerKind): void {
    if (sharer.attachment) return;
    const invalidated = ({ why }: { readonly why: string }): void => {
      if (kind === "maps again" || (kind === "in place" && why === "revoke"))
        if (sharer.attachment?.mapping) sharer.attachment.unmap();
    };
    const ops = {
      peerToPeer: true,
      ...(kind !== "pinned" && { invalidated }),
      ...(kind === "in place" && { movedInPlace: () => this.#note(sharer) }),
    };
    this.#refusing({ ERR_DMA_BUF_REVOKED: this.#buffer.isRevoked, ERR_DMA_BUF_IMPORTER: kind === "static" }, () => {
      const importer = { name: `device ${device}`, dma: sharer.dma, ...(kind !== "static" && { ops }) };
      sharer.attachment = this.#buffer.attach(importer);
      sharer.kind = kind;
      sharer.isLost = false;
    });
  }

  #locked(sharer: Sharer, what: "map" | "unmap" | "pin" | "unpin"): void {
    const { attachment } = sharer;
    if (!attachment) return;
    const reasons = {
      ERR_DMA_BUF_REVOKED: this.#buffer.isRevoked || sharer.isLost,
      ERR_DMA_BUF_MAPPED: attachment.mapping !== undefined,
      ERR_DMA_BUF_NOT_MAPPED: attachment.mapping === undefined,
      ERR_DMA_BUF_NOT_PINNED: attachment.pins === 0,
      ERR_DMA_BUF_UNREACHABLE: !this.#plan.config.routes,
    };
    this.#refusing(reasons, () =>
      this.#buffer.reservation.locked(() => {
        if (what === "map") attachment.map("bidirectional");
        else attachment[what]();
      }),
    );
    this.#note(sharer);
  }

  /** Remembers the addresses that it has now. */
  #note({ attachment, had }: Sharer): void {
    if (attachment?.mapping) had.push(attachment.mapping.ranges.map((range) => ({ ...range })));
  }

  #transfer(sharer: Sharer, step: { do: "read" | "write"; page: number; pages: number; seed: number }): void {
    const mapping = sharer.attachment?.mapping;
    if (!mapping) return;
    const offset = step.page * PAGE_SIZE;
    const length = step.pages * PAGE_SIZE;
    const part = rangesAt(mapping.ranges, offset, length);
    this.#bytes += length;
    if (step.do === "write") {
      const bytes = pattern(step.seed, length);
      if (!sharer.engine.scatter(part, bytes)) throw new Broken("bytes", "a mapped buffer refused a write");
      this.#content.set(bytes, offset);
      return;
    }
    const seen = sharer.engine.gather(part);
    if (!seen) throw new Broken("bytes", "a mapped buffer refused a read");
    this.#compare(seen, offset, "a device");
  }

  #cpu(step: { do: "CPU reads" | "CPU writes"; page: number; pages: number; seed: number }): void {
    const offset = step.page * PAGE_SIZE;
    const length = step.pages * PAGE_SIZE;
    const { memory } = this.#host.machine;
    const where = this.#buffer.reservation.locked(() => this.#buffer.slice(offset, length));
    const direction = step.do === "CPU reads" ? "from-device" : "to-device";
    this.#buffer.beginCpuAccess(direction);
    if (step.do === "CPU writes") {
      const bytes = pattern(step.seed, length);
      writePieces(memory, where, bytes);
      this.#content.set(bytes, offset);
    } else {
      const seen = new Uint8Array(length);
      readPieces(memory, where, seen);
      this.#compare(seen, offset, "the CPU");
    }
    this.#buffer.endCpuAccess(direction);
  }

  #migrate(step: { page: number; pages: number; to: "device" | "system" }): void {
    const attached = this.#sharers.filter(({ attachment }) => attachment !== undefined);
    const holds = attached.some(
      ({ attachment, kind }) =>
        attachment!.pins > 0 || (attachment!.mapping && (kind === "static" || kind === "pinned")),
    );
    const reasons = {
      ERR_DMA_BUF_PINNED: holds,
      ERR_DMA_BUF_REVOKED: this.#buffer.isRevoked,
      ERR_DMA_BUF_IMPORTER: attached.some(({ kind }) => kind === "static"),
      ERR_DMA_BUF_NO_MEMORY: step.to === "device",
    };
    this.#refusing(reasons, () =>
      this.#finish(this.#migrating.migrate(step.page * PAGE_SIZE, step.pages * PAGE_SIZE, step.to)),
    );
    for (const sharer of this.#sharers) this.#note(sharer);
  }

  /** What is not mapped any more leads nowhere. A bus address is the device's own affair, as are physical ones. */
  #reachBack({ engine, dma, attachment, had }: Sharer): void {
    if (!dma.domain) return;
    const live = attachment?.mapping?.ranges ?? [];
    for (const { address, length, bus } of had.flat()) {
      if (bus) continue;
      for (let at = 0; at < length; at += PAGE_SIZE) {
        const page = address + at;
        if (live.some((range) => !range.bus && page >= range.address && page < range.address + range.length)) continue;
        if (engine.gather([{ address: page as DmaAddr, length: 8 }]))
          throw new Broken("teardown", `an address that a device had, 0x${page.toString(16)}, still leads somewhere`);
      }
    }
    had.length = 0;
    if (attachment?.mapping) had.push(live.map((range) => ({ ...range })));
  }

  /** Those who hold a revocation up let go when it waits. */
  #finish(steps: Steps<void>): void {
    for (;;) {
      const { done, value } = steps.next();
      if (done) return;
      if (value !== WAITING) continue;
      const stuck = this.#sharers.filter(({ attachment }) => attachment?.mapping);
      if (stuck.length === 0) throw new Broken("teardown", "it waits for nobody");
      for (const { attachment } of stuck) this.#buffer.reservation.locked(() => attachment!.unmap());
    }
  }

  /** Errors must be among those that have a reason now. */
  #refusing(reasons: Readonly<Record<string, boolean>>, call: () => void): void {
    try {
      call();
    } catch (error) {
      if (!(error instanceof DmaError) || !reasons[error.code]) throw error;
    }
  }

  #compare(seen: Uint8Array, offset: number, who: string): void {
    const at = seen.findIndex((byte, i) => byte !== this.#content[offset + i]);
    if (at >= 0)
      throw new Broken(
        "bytes",
        `${who} reads ${seen[at]} at byte ${offset + at}, where ${this.#content[offset + at]} was written`,
      );
  }

  #end(): void {
    for (const sharer of this.#sharers) {
      sharer.attachment?.detach();
      sharer.attachment = undefined;
      this.#reachBack(sharer);
    }
    this.#buffer.release();
    for (const { dma } of this.#sharers) {
      const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = dma.counters;
      if (leavesWritten !== leavesCleared)
        throw new Broken("leak", `${leavesWritten - leavesCleared} entries are left`);
      if (iovaAllocations !== iovaFrees) throw new Broken("leak", `${iovaAllocations - iovaFrees} ranges are left`);
    }
    if (this.#ownPages.freePageCount !== OWN_MEMORY / PAGE_SIZE)
      throw new Broken("leak", "pages of the owner are left");
    const leaks = this.#host.machine.leaks().filter((leak) => leak.startsWith("pages"));
    if (leaks.length > 0) throw new Broken("leak", leaks.join("; "));
  }

  #plugIn(slot: string): { readonly engine: DmaEngine; readonly name: string; readonly provider: P2pProvider } {
    const engine = new DmaEngine({ memoryBytes: OWN_MEMORY });
    const [pci] = this.#host.plug(slot, engine);
    pci!.setBusMaster(true);
    return { engine, name: pci!.name, provider: this.#host.peers.add(pci!.node, pci!.node.bars[0]!) };
  }
}

/** The addresses of [offset, + length) of a buffer. */
function rangesAt(ranges: Ranges, offset: number, length: number): { address: DmaAddr; length: number }[] {
  const part: { address: DmaAddr; length: number }[] = [];
  let skip = offset;
  let left = length;
  for (const range of ranges) {
    const inside = Math.min(skip, range.length);
    const piece = Math.min(range.length - inside, left);
    if (piece > 0) part.push({ address: (range.address + inside) as DmaAddr, length: piece });
    skip -= inside;
    left -= piece;
  }
  return part;
}
