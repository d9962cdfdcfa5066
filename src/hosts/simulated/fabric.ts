/**
 * The way of a device's request through a simulated machine: up the tree, perhaps turned around, else through the IOMMU.
 *
 * Idea: a port sees the bus address of a request that comes up. If the memory of another device below it has that address,
 * and no port of the way redirects peer traffic, the request is turned around there, and no IOMMU ever sees it. Everything
 * else arrives at the root complex: there an address is translated, or taken for a physical one on a machine without an
 * IOMMU; RAM answers, or the memory of a device if the root complex passes peer requests on.
 * Promises: a request that may not go on is refused, as a device sees an aborted transfer, and the reason is kept; nothing
 * throws. What lies before the refused page has been moved.
 * Specified by: PCI Express base specification, 6.12 (access control services).
 */
import { type DmaAddr, IovaPage, PAGE_SIZE, PhysAddr, PhysPage } from "../../base/index.ts";
import { ACS } from "../../layouts/pci/index.ts";
import type { DeviceAccess, PciBar, PhysicalMemory, Requester } from "../../platform/index.ts";
import type { SimulatedEncryption } from "./encryption.ts";
import type { SimulatedHostBridge, SimulatedPciNode } from "./pci.ts";

/** Where an IOMMU sends a request, as far as devices see it. */
export interface RequestTranslator {
  /** The page of memory behind `page`; -1 if the access is refused. `pasid` -1: without. */
  translate(requester: Requester, page: IovaPage, access: "read" | "write", pasid?: number): PhysPage | -1;
}

/** Why a request did not get through. */
export type RefusalReason =
  /** The device was pulled out, or may not start requests. */
  | "removed"
  | "not-master"
  /** The IOMMU refused; its own fault says why. */
  | "translation"
  /** Private memory, and the device is outside the trust boundary. */
  | "private"
  /** The memory of a peer, which this root complex does not pass requests on to. */
  | "no-route"
  /** Nothing is at that address. */
  | "nothing-there"
  /** The interface of the device, or of the peer, does not let it pass. */
  | "interface"
  /** There is no secure stream for it. */
  | "stream"
  /** Memory of another guest, or not accepted by its own. */
  | "owner"
  /** Private memory reached as shared, or shared memory as private. */
  | "sharing";

/** Where a request with the T bit goes: a page, and how its guest maps it. */
export interface TrustedPage {
  /** Where it leads. */
  readonly page: PhysPage;
  /** The guest maps it as shared. */
  readonly shared: boolean;
}

/** How a request leaves its device. */
export interface Departure {
  /** The T bit. */
  readonly trusted: boolean;
  /** Its address on the bus. */
  readonly address: DmaAddr;
}

/** A request that has arrived at memory. */
export interface Arrival {
  /** Who sent it. */
  readonly node: SimulatedPciNode;
  /** The T bit: it claims to be inside a guest's trust. */
  readonly trusted: boolean;
  /** The guest's table says that the page is shared; undefined where no table of a guest was asked. */
  readonly shared: boolean | undefined;
  /** Where it has arrived, bytes. */
  readonly phys: PhysAddr;
  /** Seen from the device: `read` takes bytes out of memory. */
  readonly access: "read" | "write";
  /** Whose memory it is, if it is a device's. */
  readonly peer:
    | {
        /** The device. */
        readonly owner: SimulatedPciNode;
        /** Which of its BARs. */
        readonly bar: PciBar;
      }
    | undefined;
}

/**
 * What a machine with trusted devices asks of every request, besides its way: with which T bit it leaves, whether it may reach
 * what it found, and what the wire shows of it.
 */
export interface RequestGate {
  /** A request leaves its device: with which T bit and to which address, or why it does not leave. */
  depart(node: SimulatedPciNode, address: DmaAddr, access: "read" | "write"): Departure | RefusalReason;
  /** Through the tables of the guest that the device is bound to; undefined if they do not have the page. */
  translate(node: SimulatedPciNode, page: IovaPage, access: "read" | "write"): TrustedPage | undefined;
  /** May it? */
  arrive(arrival: Arrival): RefusalReason | undefined;
  /** Takes the bytes over the wire around `move`, which moves them from or to memory. */
  carry(arrival: Arrival, bytes: Uint8Array, move: (bytes: Uint8Array) => void): RefusalReason | undefined;
}

/** A request that came to nothing. */
export interface Refusal {
  /** Who asked: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: Requester;
  /** What the device put on the bus, bytes. */
  readonly address: DmaAddr;
  /** Seen from the device: `read` takes bytes out of memory. */
  readonly access: "read" | "write";
  /** What stood in the way. */
  readonly reason: RefusalReason;
}

/** Refusals that are kept until somebody reads them. */
const REFUSAL_LIMIT = 1024;

/** What lies at the end of the way. */
export interface FabricOptions {
  /** Memory as devices see it. */
  readonly memory: PhysicalMemory;
  /** True for pages that are RAM; others are answered by a device, or by nothing. */
  readonly isRam: (page: PhysPage) => boolean;
  /** Without it addresses are physical. */
  readonly translator?: RequestTranslator;
  /** On a machine with private memory: what devices outside the trust see of it. */
  readonly encryption?: SimulatedEncryption;
}

interface Window {
  readonly owner: SimulatedPciNode;
  readonly bar: PciBar;
}

type Access = "read" | "write";
const REDIRECTS = ACS.requestRedirect | ACS.completionRedirect | ACS.egressControl;

/**
 * The way of a request: up the PCI tree, turned around by a switch where access control lets it, through the IOMMU, to
 * memory or to a peer. What is refused is noted, never thrown.
 */
export class Fabric {
  /** Oldest first. */
  readonly refusals: Refusal[] = [];
  /** Refusals that were not kept, because so many wait to be read already. */
  refusalsLost = 0;
  /** Pieces of requests, at most a page each, refused ones too. */
  pieces = 0;
  /** Of those, turned around by a port below the root. */
  turnedAround = 0;
  /** Of those, passed on from one root port to another. */
  passedOn = 0;
  /** Told of every piece of a request without PASID once it is over: `debug.accessed`, for one. Must not throw. */
  onAccess: ((access: DeviceAccess) => void) | undefined;
  /** Root complexes with a unit of their own. */
  readonly translators: Map<SimulatedHostBridge, RequestTranslator> = new Map();
  /** For the others. */
  translator: RequestTranslator | undefined;
  /** The rules of trusted devices, on a machine that has them. */
  gate: RequestGate | undefined;
  readonly #memory: PhysicalMemory;
  readonly #isRam: (page: PhysPage) => boolean;
  readonly #encryption: SimulatedEncryption | undefined;
  readonly #windows: Window[] = [];

  /** No windows, no IOMMU yet. Made by {@link SimulatedMachine}. */
  constructor(options: FabricOptions) {
    this.#memory = options.memory;
    this.#isRam = options.isRam;
    this.translator = options.translator;
    this.#encryption = options.encryption;
  }

  /** The memory of a device is there for peers, as long as the device is. */
  addWindow(owner: SimulatedPciNode, bar: PciBar): void {
    this.#windows.push({ owner, bar });
  }

  /** The device is gone: requests to its memory reach nothing from here on. */
  removeWindows(owner: SimulatedPciNode): void {
    for (let i = this.#windows.length - 1; i >= 0; i--)
      if (this.#windows[i]!.owner === owner) this.#windows.splice(i, 1);
  }

  /** `node` reads [address, + into.length); false if a page was refused. `pasid` -1: without. */
  read(node: SimulatedPciNode, address: DmaAddr, into: Uint8Array, pasid = -1): boolean {
    return this.#transfer(node, address, into, "read", pasid);
  }

  /** `node` writes [address, + from.length); false if a page was refused. */
  write(node: SimulatedPciNode, address: DmaAddr, from: Uint8Array, pasid = -1): boolean {
    return this.#transfer(node, address, from, "write", pasid);
  }

  #transfer(node: SimulatedPciNode, address: DmaAddr, bytes: Uint8Array, access: Access, pasid: number): boolean {
    for (let at = 0; at < bytes.length; ) {
      const here = (address + at) as DmaAddr;
      const length = Math.min(PAGE_SIZE - (here % PAGE_SIZE), bytes.length - at);
      this.pieces++;
      const problem = this.#piece(node, here, bytes.subarray(at, at + length), access, pasid);
      const wentThrough = problem === undefined;
      if (pasid < 0) this.onAccess?.({ requester: node.requester, address: here, length, access, wentThrough });
      if (problem !== undefined) {
        if (this.refusals.length < REFUSAL_LIMIT)
          this.refusals.push({ requester: node.requester, address: here, access, reason: problem });
        else this.refusalsLost++;
        return false;
      }
      at += length;
    }
    return true;
  }

  /** Moves a piece that lies in one page, or says why not. */
  #piece(
    node: SimulatedPciNode,
    address: DmaAddr,
    bytes: Uint8Array,
    access: Access,
    pasid: number,
  ): RefusalReason | undefined {
    if (!node.present) return "removed";
    if (!node.busMaster) return "not-master";
    if (this.gate) return this.#throughGate(this.gate, node, address, bytes, access);
    // A request with a PASID carries an address that only the IOMMU can know.
    const peer = pasid < 0 ? this.#windowOnBus(node.hostBridge, address) : undefined;
    if (peer && turnsAround(node, peer.owner)) {
      this.turnedAround++;
      return this.#answer(node, PhysAddr(peer.bar.phys + address - peer.bar.busAddress), bytes, access);
    }
    let page = PhysPage.of(address as unknown as PhysAddr);
    const translator = this.translators.get(node.hostBridge) ?? this.translator;
    if (translator) {
      const found = translator.translate(node.requester, IovaPage.of(address), access, pasid);
      if (found < 0) return "translation";
      page = found as PhysPage;
    }
    return this.#atRoot(node, page, address % PAGE_SIZE, bytes, access);
  }

  /** The same way, with a T bit, and with the rules that come with it. */
  #throughGate(
    gate: RequestGate,
    node: SimulatedPciNode,
    from: DmaAddr,
    bytes: Uint8Array,
    access: Access,
  ): RefusalReason | undefined {
    const departure = gate.depart(node, from, access);
    if (typeof departure === "string") return departure;
    const { trusted, address } = departure;
    const below = this.#windowOnBus(node.hostBridge, address);
    if (below && turnsAround(node, below.owner)) {
      this.turnedAround++;
      const phys = PhysAddr(below.bar.phys + address - below.bar.busAddress);
      return this.#pass(gate, { node, trusted, shared: undefined, phys, access, peer: below }, bytes);
    }
    let page = PhysPage.of(address as unknown as PhysAddr);
    let shared: boolean | undefined;
    const translator = this.translators.get(node.hostBridge) ?? this.translator;
    if (trusted) {
      const found = gate.translate(node, IovaPage.of(address), access);
      if (!found) return "translation";
      ({ page, shared } = found);
    } else if (translator) {
      const found = translator.translate(node.requester, IovaPage.of(address), access);
      if (found < 0) return "translation";
      page = found as PhysPage;
    }
    const phys = PhysAddr(page * PAGE_SIZE + (address % PAGE_SIZE));
    const peer = this.#isRam(page) ? undefined : this.#windowAt(phys);
    if (!this.#isRam(page)) {
      if (!peer) return "nothing-there";
      if (!node.hostBridge.routesPeers || !peer.owner.hostBridge.routesPeers) return "no-route";
      this.passedOn++;
    }
    return this.#pass(gate, { node, trusted, shared, phys, access, peer }, bytes);
  }

  #pass(gate: RequestGate, arrival: Arrival, bytes: Uint8Array): RefusalReason | undefined {
    const { phys, access } = arrival;
    return gate.arrive(arrival) ?? gate.carry(arrival, bytes, (moved) => this.#move(phys, moved, access));
  }

  /** The root complex has a physical address. */
  #atRoot(
    node: SimulatedPciNode,
    page: PhysPage,
    offset: number,
    bytes: Uint8Array,
    access: Access,
  ): RefusalReason | undefined {
    const phys = PhysAddr(page * PAGE_SIZE + offset);
    if (!this.#isRam(page)) {
      const window = this.#windowAt(phys);
      if (!window) return "nothing-there";
      if (!node.hostBridge.routesPeers || !window.owner.hostBridge.routesPeers) return "no-route";
      this.passedOn++;
    }
    return this.#answer(node, phys, bytes, access);
  }

  /** Memory of any kind has been reached, and answers if it may. */
  #answer(node: SimulatedPciNode, phys: PhysAddr, bytes: Uint8Array, access: Access): RefusalReason | undefined {
    const encryption = this.#encryption;
    const page = PhysPage.of(phys);
    if (!encryption || node.trusted || !encryption.isPrivate(page)) {
      this.#move(phys, bytes, access);
      return undefined;
    }
    if (!encryption.touched(node.requester, page, access)) return "private";
    const raw = access === "write" ? bytes.slice() : bytes;
    if (access === "write") encryption.cipher(phys, raw);
    this.#move(phys, raw, access);
    if (access === "read") encryption.cipher(phys, raw);
    return undefined;
  }

  #move(phys: PhysAddr, bytes: Uint8Array, access: Access): void {
    if (access === "read") this.#memory.read(phys, bytes);
    else this.#memory.write(phys, bytes);
  }

  #windowAt(phys: PhysAddr): Window | undefined {
    return this.#windows.find(({ bar }) => phys >= bar.phys && phys < bar.phys + bar.length);
  }

  #windowOnBus(hostBridge: SimulatedHostBridge, address: number): Window | undefined {
    for (const window of this.#windows) {
      const { busAddress, length } = window.bar;
      if (address >= busAddress && address < busAddress + length && window.owner.hostBridge === hostBridge)
        return window;
    }
    return undefined;
  }
}

/** Does a request of `from` for the memory of `to` stay below the root? */
function turnsAround(from: SimulatedPciNode, to: SimulatedPciNode): boolean {
  const above = new Set<SimulatedPciNode>();
  for (let node: SimulatedPciNode | undefined = from; node; node = node.parent) above.add(node);
  let meeting: SimulatedPciNode | undefined = to;
  while (meeting && !above.has(meeting)) meeting = meeting.parent;
  if (!meeting) return false;
  const way: SimulatedPciNode[] = [meeting];
  for (const end of [from, to])
    for (let node: SimulatedPciNode = end; node !== meeting; node = node.parent!) way.push(node);
  return way.every(({ acsControl }) => (acsControl & REDIRECTS) === 0);
}
