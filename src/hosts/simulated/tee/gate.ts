/**
 * The rules of the T bit: what a device may send, what may reach which memory, and what the wire shows of it.
 *
 * Idea: hardware decides, request by request, from states that no host can write: that of the interface, of its stream, and the
 * owner of the page. A request inside the trust (T = 1) goes through its guest's own tables and must find pages of that guest,
 * private where the table says private; one outside (T = 0) finds only shared ones. Whatever does not fit is refused, kept
 * with the number of its rule, and no byte moves.
 * Promises: refused is refused whole; a request inside the trust without a secure stream ends the trust.
 * Specified by: PCI Express base specification 6.1, 11.2 (T bit); sharing by an address bit, and guests' tables for T = 1,
 * are rules of this model.
 */
import { DmaAddr, type IovaPage, type PhysAddr, PhysPage } from "../../../base/index.ts";
import type { TeeRule } from "../../../platform/index.ts";
import type { Arrival, Departure, RefusalReason, RequestGate, TrustedPage } from "../fabric.ts";
import type { SimulatedPciNode } from "../pci.ts";
import type { SimulatedUnit } from "../units/tables-unit.ts";
import type { GuestNumber, GuestPages } from "./guest-pages.ts";
import type { IdeEnd } from "./ide-end.ts";
import type { SecureDevice, SecureFunction } from "./secure-device.ts";
import type { Wire, WirePort } from "./wire.ts";

/** The bit of an address that says that memory is shared. */
export const SHARED_BIT: number = 2 ** 51;
const SHARED_PAGE = SHARED_BIT / 4096;

/** An access that was refused. */
export interface RefusedAccess {
  /** Which rule it would have broken. */
  readonly rule: TeeRule;
  /** What stood in the way. */
  readonly reason: RefusalReason;
  /** Who asked: a requester, or 0 for the host's CPU. */
  readonly requester: number;
  /** Where it was to go, bytes: on the bus, or physical once it had arrived. */
  readonly address: number;
  /** Its T bit. */
  readonly trusted: boolean;
}

/** What is kept of refused accesses; all are counted. */
const REFUSED_LIMIT = 1024;

/** Requests outside the trust (T = 0) and inside (T = 1). */
interface TrafficCount {
  plain: number;
  trusted: number;
}

/** An interface that belongs to a guest. */
interface Assignment {
  readonly guest: GuestNumber;
  /** Tables of the guest, by its own unit. */
  readonly unit: SimulatedUnit;
  /** Something went wrong inside the trust: a request that its guest's tables refuse. */
  readonly onFault: () => void;
}

/** Decides for each request of a device, and each access to its memory, whether it passes. */
export class TrustGate implements RequestGate {
  /** Oldest first. */
  readonly refused: RefusedAccess[] = [];
  /** Requests that passed, by their T bit. */
  readonly passed: TrafficCount = { plain: 0, trusted: 0 };
  /** Requests that were refused, by their T bit. */
  readonly rejected: TrafficCount = { plain: 0, trusted: 0 };
  readonly #pages: GuestPages;
  readonly #wire: Wire;
  readonly #devices = new Map<SimulatedPciNode, SecureFunction>();
  readonly #assigned = new Map<SecureFunction, Assignment>();
  readonly #roots = new Map<SimulatedPciNode, IdeEnd>();

  /** Knows no device yet: requests of unknown ones are outside every trust. */
  constructor(options: { readonly pages: GuestPages; readonly wire: Wire }) {
    this.#pages = options.pages;
    this.#wire = options.wire;
  }

  /** A device that can be trusted is there. */
  addDevice(device: SecureDevice): void {
    for (const fn of device.functions) this.#devices.set(fn.node, fn);
  }

  /** The device is gone, and its functions belong to no guest. */
  removeDevice(device: SecureDevice): void {
    for (const fn of device.functions) {
      this.#devices.delete(fn.node);
      this.#assigned.delete(fn);
    }
  }

  /** A root port has IDE. */
  addRoot(node: SimulatedPciNode, ide: IdeEnd): void {
    this.#roots.set(node, ide);
  }

  /** A function belongs to a guest from here on; to nobody, if undefined. */
  assign(fn: SecureFunction, assignment: Assignment | undefined): void {
    if (assignment) this.#assigned.set(fn, assignment);
    else this.#assigned.delete(fn);
  }

  /** The guest that a function belongs to; 0 for the host. */
  guestOf(fn: SecureFunction): GuestNumber {
    return this.#assigned.get(fn)?.guest ?? 0;
  }

  // Requests of devices.

  depart(node: SimulatedPciNode, address: DmaAddr): Departure | RefusalReason {
    const fn = this.#devices.get(node);
    if (!fn) return { trusted: false, address };
    const isShared = fn.interface.state === "run" && address >= SHARED_BIT;
    const departure = fn.interface.departure(isShared);
    if (!departure) return this.#refuse(3, "interface", node.requester, address, false);
    const { trusted } = departure;
    if (trusted && !fn.device.ide.isSecure(fn.interface.stream!)) {
      fn.interface.fail("stream insecure");
      return this.#refuse(3, "stream", node.requester, address, true);
    }
    return { trusted, address: DmaAddr(isShared ? address - SHARED_BIT : address) };
  }

  translate(node: SimulatedPciNode, page: IovaPage, access: "read" | "write"): TrustedPage | undefined {
    const assigned = this.#assigned.get(this.#devices.get(node)!);
    const found = assigned?.unit.translate(node.requester, page, access) ?? -1;
    if (found < 0) {
      this.rejected.trusted++;
      assigned?.onFault();
      return undefined;
    }
    const shared = found >= SHARED_PAGE;
    return { page: (shared ? found - SHARED_PAGE : found) as PhysPage, shared };
  }

  arrive(arrival: Arrival): RefusalReason | undefined {
    const { node, trusted, phys, peer } = arrival;
    const found = peer ? this.#atPeer(arrival) : this.#atMemory(arrival);
    if (!found) return undefined;
    return this.#refuse(found.rule, found.reason, node.requester, phys, trusted);
  }

  carry(arrival: Arrival, bytes: Uint8Array, move: (bytes: Uint8Array) => void): RefusalReason | undefined {
    const { node, trusted, phys, access } = arrival;
    const ends = this.#endsOf(arrival);
    const refuse = (): RefusalReason => this.#refuse(3, "stream", node.requester, phys, trusted);
    if (trusted && ends.stream === undefined) return refuse();
    const { from, to, stream } = ends;
    const request = { kind: access === "write" ? ("posted" as const) : ("non-posted" as const), trusted, stream };
    const arrived = this.#wire.cross(from, to, request, access === "write" ? bytes : new Uint8Array(0));
    if (!arrived) return refuse();
    if (access === "write") move(arrived);
    else {
      const found = new Uint8Array(bytes.length);
      move(found);
      const back = this.#wire.cross(to, from, { kind: "completion", trusted, stream }, found);
      if (!back) return refuse();
      bytes.set(back);
    }
    this.#count(trusted);
    return undefined;
  }

  // Accesses of CPUs to device memory.

  /**
   * A CPU reads or writes memory of a device: for a guest inside the trust where its page is private, for everybody else
   * outside. False if it was refused: nothing is written, and what is read is all ones.
   */
  access(
    guest: GuestNumber,
    fn: SecureFunction,
    bar: number,
    offset: number,
    access: "read" | "write",
    bytes: Uint8Array,
  ): boolean {
    const place = fn.node.bars.find(({ index }) => index === bar);
    const target = fn.pci.model.bars.find(({ index }) => index === bar)?.target;
    if (!place || !target || fn.pci.removed || !fn.node.decodesMemory) {
      if (access === "read") bytes.fill(0xff);
      return false;
    }
    const phys = place.phys + offset;
    const state = this.#pages.at(PhysPage.of(phys as PhysAddr));
    const trusted = guest !== 0 && state.owner === guest && state.isPrivate;
    const isMine = state.owner === 0 || state.owner === guest;
    const done =
      isMine &&
      fn.interface.admits(bar, offset, access, trusted) &&
      this.#carryToDevice(fn, trusted, access, bytes, (moved) =>
        access === "read" ? target.read(offset, moved) : target.write(offset, moved),
      );
    if (done) return true;
    if (access === "read") bytes.fill(0xff);
    this.#refuse(4, "interface", guest === 0 ? 0 : fn.requester, phys, trusted);
    return false;
  }

  // What is not a device's: a board with an interposer.

  /**
   * A request that nobody's device sent, as somebody puts it on a wire: with any T bit, in the name of any function. It is on no
   * stream, so with the T bit it ends that function's trust. Undefined if it passed.
   */
  inject(
    node: SimulatedPciNode,
    phys: PhysAddr,
    access: "read" | "write",
    trusted: boolean,
  ): RefusalReason | undefined {
    const fn = this.#devices.get(node);
    if (trusted) {
      fn?.interface.fail("stream insecure");
      return this.#refuse(3, "stream", node.requester, phys, true);
    }
    return this.arrive({ node, trusted, shared: undefined, phys, access, peer: undefined });
  }

  #atMemory({ node, trusted, shared, phys }: Arrival): { rule: TeeRule; reason: RefusalReason } | undefined {
    const state = this.#pages.at(PhysPage.of(phys));
    if (!trusted) return state.isPrivate ? { rule: 4, reason: "private" } : undefined;
    const guest = this.#assigned.get(this.#devices.get(node)!)?.guest;
    if (state.owner !== guest) return { rule: 4, reason: "owner" };
    if (state.isPrivate === shared) return { rule: 7, reason: "sharing" };
    return state.isPrivate && !state.accepted ? { rule: 4, reason: "owner" } : undefined;
  }

  #atPeer({ node, trusted, phys, access, peer }: Arrival): { rule: TeeRule; reason: RefusalReason } | undefined {
    const { owner, bar } = peer!;
    const from = this.#devices.get(node);
    const to = this.#devices.get(owner);
    const offset = phys - bar.phys;
    if (!trusted) {
      // A device inside the trust has nothing to say to one outside.
      if (from?.interface.state === "run") return { rule: 12, reason: "interface" };
      const admits = to?.interface.admits(bar.index, offset, access, false) ?? true;
      return admits ? undefined : { rule: 12, reason: "interface" };
    }
    const state = this.#pages.at(PhysPage.of(phys));
    const guest = this.guestOf(from!);
    if (!to || this.guestOf(to) !== guest || state.owner !== guest || !state.isPrivate)
      return { rule: 12, reason: "owner" };
    if (!to.interface.admits(bar.index, offset, access, true)) return { rule: 12, reason: "interface" };
    return this.#peerStream(from!, to) === undefined ? { rule: 12, reason: "stream" } : undefined;
  }

  /** The stream that both functions are bound to for each other. */
  #peerStream(from: SecureFunction, to: SecureFunction): number | undefined {
    const stream = from.device.ide.streamFor(to.device.manager.requester, -1, false);
    const isBound =
      stream !== undefined && from.interface.peerStreams.has(stream) && to.interface.peerStreams.has(stream);
    return isBound ? stream : undefined;
  }

  /** Both run, and their streams to each other are bound. */
  reachesPeer(from: SecureFunction, to: SecureFunction): boolean {
    const stream = this.#peerStream(from, to);
    return stream !== undefined && from.device.ide.isSecure(stream) && to.device.ide.isSecure(stream);
  }

  #endsOf({ node, trusted, peer }: Arrival): { from: WirePort; to: WirePort; stream: number | undefined } {
    const fn = this.#devices.get(node);
    const from: WirePort = { requester: node.requester, ide: fn?.device.ide };
    if (peer) {
      const other = this.#devices.get(peer.owner);
      const stream = trusted ? this.#peerStream(fn!, other!) : undefined;
      return { from, to: { requester: peer.owner.requester, ide: other?.device.ide }, stream };
    }
    const root = rootOf(node);
    const to: WirePort = { requester: root?.requester ?? 0, ide: root && this.#roots.get(root) };
    return { from, to, stream: fn && streamOf(fn, trusted) };
  }

  #carryToDevice(
    fn: SecureFunction,
    trusted: boolean,
    access: "read" | "write",
    bytes: Uint8Array,
    move: (bytes: Uint8Array) => void,
  ): boolean {
    const root = rootOf(fn.node);
    const host: WirePort = { requester: root?.requester ?? 0, ide: root && this.#roots.get(root) };
    const device: WirePort = { requester: fn.requester, ide: fn.device.ide };
    const stream = streamOf(fn, trusted);
    if (trusted && (stream === undefined || !fn.device.ide.isSecure(stream))) return false;
    const request = { kind: access === "write" ? ("posted" as const) : ("non-posted" as const), trusted, stream };
    const arrived = this.#wire.cross(host, device, request, access === "write" ? bytes : new Uint8Array(0));
    if (!arrived) return false;
    if (access === "write") move(arrived);
    else {
      const found = new Uint8Array(bytes.length);
      move(found);
      const back = this.#wire.cross(device, host, { kind: "completion", trusted, stream }, found);
      if (!back) return false;
      bytes.set(back);
    }
    this.#count(trusted);
    return true;
  }

  #count(trusted: boolean): void {
    if (trusted) this.passed.trusted++;
    else this.passed.plain++;
  }

  #refuse(rule: TeeRule, reason: RefusalReason, requester: number, address: number, trusted: boolean): RefusalReason {
    if (trusted) this.rejected.trusted++;
    else this.rejected.plain++;
    if (this.refused.length < REFUSED_LIMIT) this.refused.push({ rule, reason, requester, address, trusted });
    return reason;
  }
}

/** The stream of a function's packets: the bound one inside the trust; outside the default one, if it is on and takes them. */
function streamOf(fn: SecureFunction, trusted: boolean): number | undefined {
  if (trusted) return fn.interface.stream;
  const { ide } = fn.device;
  const stream = ide.streamFor(fn.requester, -1, true);
  return stream === undefined || ide.isTeeLimited(stream) || !ide.isSecure(stream) ? undefined : stream;
}

/** The root port above a node; undefined for a device on a root bus. */
function rootOf(node: SimulatedPciNode): SimulatedPciNode | undefined {
  let above: SimulatedPciNode | undefined = node.parent;
  while (above?.parent) above = above.parent;
  return above;
}
