/**
 * The manager's side of an interface that a guest has: TDISP with the device, and what the guest asks in between.
 *
 * Idea: each step is one message to the device in its session, and one change of what hardware lets pass. The nonce of LOCK
 * stays here. Evidence goes to the guest through the host; what the manager saw of it, by its digests, goes directly.
 * Promises: what a device refuses changes nothing on this side; stop undoes all of it, also when the device does not answer.
 */
import { type PhysAddr, PhysPage, pagesOf } from "../../../base/index.ts";
import { PROTOCOL } from "../../../layouts/spdm/index.ts";
import {
  decodeReport,
  decodeResponse,
  encodeRequest,
  functionId,
  LOCK_FLAG,
  RANGE_ATTRIBUTE,
  TDI_STATE,
  type TdiState,
  type TdispRequest,
  type TdispResponse,
} from "../../../layouts/tdisp/index.ts";
import type { DeviceEvidence, TranslationTables, TrustedInterface, TrustLoss } from "../../../platform/index.ts";
import type { InterfaceErrorCause } from "./device-interface.ts";
import { sha256 } from "./digest.ts";
import { badReport, interfaceRefused, memoryNotReported, notLocked, peerRefused } from "./errors.ts";
import type { TrustGate } from "./gate.ts";
import type { GuestPages } from "./guest-pages.ts";
import type { SecureFunction } from "./secure-device.ts";
import type { SpdmRequester } from "./spdm-requester.ts";
import type { Tvm } from "./tvm.ts";

interface GuestInterfaceOptions {
  readonly fn: SecureFunction;
  readonly vm: Tvm;
  /** Number of the interface in the guest. */
  readonly id: number;
  readonly stream: number;
  readonly spdm: SpdmRequester;
  readonly gate: TrustGate;
  readonly pages: GuestPages;
  /** Ends the stream from the manager's side, without the device. */
  readonly cutOff: () => void;
}

/** What an interface's error is to its guest. */
const LOSS: Readonly<Partial<Record<InterfaceErrorCause, TrustLoss>>> = {
  "stream insecure": "stream",
  "session ended": "gone",
};

/** Bytes of a report that are asked for at once. */
const PORTION_BYTES = 128;

/** A guest's interface, by TDISP with its device. */
export class GuestInterface implements TrustedInterface {
  /** Its number in the guest. */
  readonly id: number;
  /** Which function it is of. */
  readonly fn: SecureFunction;
  readonly #options: GuestInterfaceOptions;
  readonly #lost = new Set<(why: TrustLoss) => void>();
  readonly #accepted: { readonly page: PhysPage; readonly pages: number }[] = [];
  /** Added to addresses of the report: a host does not learn from it where a guest sees its device, nor a guest from the host. */
  readonly #offset: number;
  #nonce: Uint8Array | undefined;
  #report: Uint8Array | undefined;
  /** The device was asked to lock, and not to stop since. */
  #isEngaged = false;
  #isRevoked = false;
  readonly #forget: () => void;

  /** Made by the firmware when a function is bound to a guest; unlocked. */
  constructor(options: GuestInterfaceOptions) {
    const { fn, vm, id, gate } = options;
    this.#options = options;
    this.fn = fn;
    this.id = id;
    this.#offset = fn.device.options.random.fork(`reporting ${id}`).below(2 ** 20) * 4096;
    gate.assign(fn, { guest: vm.number, unit: vm.unit, onFault: () => this.#lose("fault") });
    fn.interface.onEvent = ({ what, cause }) => {
      if (what === "error") this.#lose(cause ? (LOSS[cause] ?? "interface") : "interface");
      if (what === "reset") this.#lose("interface");
    };
    this.#forget = fn.pci.onRemoved(() => this.#lose("gone"));
  }

  get name(): string {
    return this.fn.name;
  }

  get requester(): number {
    return this.fn.requester;
  }

  /** As the manager last saw it: what a host may know. */
  get stateNumber(): number {
    return TDI_STATE[this.fn.interface.state];
  }

  digest(bytes: Uint8Array): Uint8Array {
    return sha256(bytes);
  }

  async state(): Promise<TdiState> {
    const answer = await this.#ask({ type: "getInterfaceState" });
    if (answer.type !== "getInterfaceState") throw this.#refusal("getInterfaceState", answer);
    return answer.state;
  }

  async lock(): Promise<void> {
    const answer = await this.#ask({
      type: "lockInterface",
      flags: LOCK_FLAG.noFirmwareUpdate | LOCK_FLAG.lockMsix | LOCK_FLAG.bindP2p,
      defaultStream: this.#options.stream,
      mmioReportingOffset: this.#offset,
      p2pAddressMask: 0,
    });
    if (answer.type !== "lockInterface") throw this.#refusal("lockInterface", answer);
    this.#isEngaged = true;
    this.#nonce = answer.nonce;
  }

  async evidence(nonce: Uint8Array): Promise<Awaited<ReturnType<TrustedInterface["evidence"]>>> {
    const report = await this.#readReport();
    if (!decodeReport(report)) throw badReport(this.name);
    const { record: measurements } = await this.#options.spdm.measure(nonce);
    const { chain: certificates } = this.#options.spdm;
    this.#report = report;
    const seen: DeviceEvidence = { report, measurements, certificates };
    const digests: DeviceEvidence = {
      report: sha256(report),
      measurements: sha256(measurements),
      certificates: sha256(certificates),
    };
    return {
      evidence: this.#options.vm.deliver(this.fn, seen),
      endorsement: { digests, reportingOffset: this.#offset, nonce: nonce.slice() },
    };
  }

  acceptMemory(phys: PhysAddr, length: number): void {
    const { pages, vm } = this.#options;
    const report = this.#report && decodeReport(this.#report);
    const isReported = report?.ranges.some(({ firstPage, pages: count, attributes }) => {
      const start = firstPage - this.#offset;
      const isTee = (attributes & RANGE_ATTRIBUTE.nonTee) === 0;
      return isTee && phys >= start && phys + length <= start + count * 4096;
    });
    const page = PhysPage.of(phys);
    const count = pagesOf(length);
    if (!this.#isEngaged || !isReported || !pages.acceptMemory(vm.number, page, count))
      throw memoryNotReported(this.name, phys, length);
    this.#accepted.push({ page, pages: count });
  }

  returnMemory(phys: PhysAddr, length: number): void {
    this.#options.pages.returnMemory(this.#options.vm.number, PhysPage.of(phys), pagesOf(length));
  }

  attach(tables: TranslationTables): void {
    if (this.fn.interface.state !== "configLocked") throw notLocked(this.name);
    this.#options.vm.unit.attach(this.requester, tables);
  }

  detach(): void {
    this.#options.vm.unit.detach(this.requester);
  }

  async start(): Promise<void> {
    const nonce = this.#nonce ?? new Uint8Array(32);
    this.#nonce = undefined; // good for one try on this side too
    const answer = await this.#ask({ type: "startInterface", nonce });
    if (answer.type !== "startInterface") throw this.#refusal("startInterface", answer);
  }

  async stop(): Promise<void> {
    this.#nonce = undefined;
    if (this.#isEngaged) {
      this.#isEngaged = false;
      // A device that does not answer is cut off: what it has not scrubbed it cannot send either.
      await this.#ask({ type: "stopInterface" }).catch(() => this.#options.cutOff());
    }
    this.detach();
    const { pages, vm } = this.#options;
    for (const { page, pages: count } of this.#accepted.splice(0)) pages.returnMemory(vm.number, page, count);
  }

  async bindPeer(other: TrustedInterface): Promise<void> {
    await this.#withPeer("bindP2pStream", other);
  }

  async unbindPeer(other: TrustedInterface): Promise<void> {
    await this.#withPeer("unbindP2pStream", other);
  }

  reachesPeer(other: TrustedInterface): boolean {
    if (!(other instanceof GuestInterface)) return false;
    const isRunning = this.fn.interface.state === "run" && other.fn.interface.state === "run";
    return isRunning && this.#options.gate.reachesPeer(this.fn, other.fn);
  }

  onLost(callback: (why: TrustLoss) => void): () => void {
    const own = (why: TrustLoss): void => callback(why);
    this.#lost.add(own);
    return () => void this.#lost.delete(own);
  }

  /** The host takes the interface away. Cannot fail. */
  async revoke(): Promise<void> {
    if (this.#isRevoked) return;
    this.#isRevoked = true;
    await this.stop();
    this.#options.gate.assign(this.fn, undefined);
    this.fn.interface.onEvent = undefined;
    this.#forget();
    this.#lose("gone");
  }

  async #withPeer(type: "bindP2pStream" | "unbindP2pStream", other: TrustedInterface): Promise<void> {
    const peer = other instanceof GuestInterface ? other.fn.device.manager.requester : -1;
    const stream = this.fn.device.ide.streamFor(peer, -1, false);
    if (stream === undefined) throw peerRefused(this.name, other.name);
    const answer = await this.#ask({ type, stream });
    if (answer.type !== type) throw this.#refusal(type, answer);
  }

  async #readReport(): Promise<Uint8Array> {
    const report: number[] = [];
    for (;;) {
      const part = await this.#ask({ type: "getInterfaceReport", offset: report.length, length: PORTION_BYTES });
      if (part.type !== "getInterfaceReport") throw this.#refusal("getInterfaceReport", part);
      report.push(...part.portion);
      if (part.remainder === 0 || part.portion.length === 0) return Uint8Array.from(report);
    }
  }

  async #ask(request: TdispRequest): Promise<TdispResponse> {
    const id = functionId(this.requester);
    try {
      const answer = decodeResponse(await this.#options.spdm.send(PROTOCOL.tdisp, encodeRequest(id, request)));
      if (answer?.functionId !== id) throw badReport(this.name);
      return answer.response;
    } catch (error) {
      this.#lose("gone");
      throw error;
    }
  }

  #refusal(asked: string, answer: TdispResponse): Error {
    return interfaceRefused(this.name, asked, answer.type === "error" ? answer.error : answer.type);
  }

  #lose(why: TrustLoss): void {
    for (const callback of [...this.#lost]) callback(why);
  }
}
