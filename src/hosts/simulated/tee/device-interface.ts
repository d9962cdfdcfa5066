/**
 * A device interface (TDI): one function of a device, and how far it is inside a guest's trust.
 *
 * Idea: four states and what leads from one to the next, without a byte of any message (tdisp-responder.ts has those). What the
 * interface was when it was locked is kept; whatever changes of it afterwards ends the trust, whoever changed it.
 * Promises: a refused request changes nothing; a nonce is good for one START, and a wrong one says nothing about the right one;
 * from ERROR only STOP and reset lead out; secrets are gone before the interface is unlocked again.
 * Specified by: TDISP (PCI Express base specification 6.1, chapter 11). After a reset it is unlocked: a rule of this model.
 */
import type { Random } from "../../../base/index.ts";
import {
  INTERFACE_INFO,
  type InterfaceReport,
  LOCK_FLAG,
  type LockParameters,
  type MmioRange,
  NONCE_BYTES,
  RANGE_ATTRIBUTE,
  type TdiState,
  type TdispErrorName,
} from "../../../layouts/tdisp/index.ts";
import { sameBytes } from "./digest.ts";
import { randomBytes } from "./keys.ts";

/** A part of a BAR, as the interface's report says it. */
export interface InterfaceRange {
  /** 0 to 5. */
  readonly bar: number;
  /** Bytes in the BAR, both multiples of 4096. */
  readonly offset: number;
  /** Bytes, a multiple of 4096. */
  readonly length: number;
  /** Bits: 1 MSI-X table, 2 pending bits, 4 not part of the trusted interface, 8 the guest may change that. Default 0: part of the trusted interface. */
  readonly attributes?: number;
  /** It holds secrets as soon as the interface is locked, not only when it runs. */
  readonly secret?: boolean;
}

/** What of a function's configuration is locked. */
export interface LockedConfiguration {
  /** segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** Memory space enable, of the command register. */
  readonly decodesMemory: boolean;
  /** Bus master enable, of the command register. */
  readonly busMaster: boolean;
  /** Where its BARs lie. */
  readonly bars: readonly {
    /** 0 to 5. */
    readonly index: number;
    /** First byte, as the CPU sees it. */
    readonly phys: number;
    /** Bytes. */
    readonly length: number;
  }[];
  /** Changes whenever the MSI-X table does. */
  readonly msixTable: number;
  /** How many are enabled. */
  readonly virtualFunctions: number;
}

/** What an interface asks of the function around it. */
export interface InterfaceHost {
  /** Where its nonces come from. */
  readonly random: Random;
  /** What the function is set to now: compared with what it was when the interface was locked. */
  configuration(): LockedConfiguration;
  /** No transfer of the function is under way or can begin by itself. */
  isQuiet(): boolean;
  /** The stream is on and has its keys. */
  isStreamSecure(stream: number): boolean;
  /** A stream to another device, for peers. */
  isPeerStream(stream: number): boolean;
  /** Stops all work and forgets everything that a guest brought. */
  scrub(): void;
  /** What of its BARs the report names. */
  readonly ranges: readonly InterfaceRange[];
}

/** Why an interface is in ERROR. */
export type InterfaceErrorCause = "configuration changed" | "stream insecure" | "session ended" | "internal fault";

/** Something that happened to an interface. */
export interface InterfaceEvent {
  /** What it became, or what was done to it. */
  readonly what: "locked" | "started" | "stopped" | "error" | "reset";
  /** Of an error: why. */
  readonly cause?: InterfaceErrorCause;
}

/** A refusal, by the name of its TDISP error. */
export interface Refused {
  /** The error that the answer names. */
  readonly error: TdispErrorName;
}
const refused = (error: TdispErrorName): Refused => ({ error });

/** One interface. */
export class DeviceInterface {
  /** Of its function: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** What happened, oldest first. */
  readonly events: InterfaceEvent[] = [];
  /** Told after each event. */
  onEvent: ((event: InterfaceEvent) => void) | undefined;
  /** It has no randomness to give nonces from. */
  lacksEntropy = false;
  readonly #host: InterfaceHost;
  #state: TdiState = "configUnlocked";
  #nonce: Uint8Array | undefined;
  #locked: { readonly parameters: LockParameters; readonly configuration: LockedConfiguration } | undefined;
  #attributes: number[];
  readonly #peerStreams = new Set<number>();

  /** Unlocked. */
  constructor(requester: number, host: InterfaceHost) {
    this.requester = requester;
    this.#host = host;
    this.#attributes = host.ranges.map(({ attributes = 0 }) => attributes);
  }

  /** Where it stands, in the words of TDISP. */
  get state(): TdiState {
    return this.#state;
  }

  /** The stream that its requests go on, from LOCK on. */
  get stream(): number | undefined {
    return this.#locked?.parameters.defaultStream;
  }

  /** Streams to peers that are bound. */
  get peerStreams(): ReadonlySet<number> {
    return this.#peerStreams;
  }

  // What a manager asks.

  /** Freezes the configuration, and gives the nonce for START. */
  lock(parameters: LockParameters):
    | {
        /** 32 bytes: START must bring them. */
        readonly nonce: Uint8Array;
      }
    | Refused {
    if (this.#state !== "configUnlocked") return refused("invalidInterfaceState");
    if ((parameters.flags & ~KNOWN_FLAGS) !== 0) return refused("invalidRequest");
    if (!this.#host.isQuiet()) return refused("busy");
    const configuration = this.#host.configuration();
    if (!configuration.decodesMemory || overlap(configuration.bars)) return refused("invalidDeviceConfiguration");
    if (!this.#host.isStreamSecure(parameters.defaultStream)) return refused("invalidDeviceConfiguration");
    if (this.lacksEntropy) return refused("insufficientEntropy");
    this.#nonce = randomBytes(this.#host.random, NONCE_BYTES);
    this.#locked = { parameters, configuration };
    this.#attributes = this.#host.ranges.map(({ attributes = 0 }) => attributes);
    this.#become("configLocked", { what: "locked" });
    return { nonce: this.#nonce.slice() };
  }

  /** What it says of itself, while it is locked or runs. */
  report():
    | {
        /** As TDISP has it. */
        readonly report: InterfaceReport;
      }
    | Refused {
    if (!this.#locked || (this.#state !== "configLocked" && this.#state !== "run"))
      return refused("invalidInterfaceState");
    const { parameters, configuration } = this.#locked;
    const ranges = this.#host.ranges.map((range, i): MmioRange => {
      const bar = configuration.bars.find(({ index }) => index === range.bar)!;
      return {
        firstPage: bar.phys + range.offset + parameters.mmioReportingOffset,
        pages: range.length / 4096,
        attributes: this.#attributes[i]!,
        id: range.bar,
      };
    });
    const noUpdate = (parameters.flags & LOCK_FLAG.noFirmwareUpdate) !== 0 ? INTERFACE_INFO.noFirmwareUpdate : 0;
    return {
      report: {
        interfaceInfo: INTERFACE_INFO.dmaWithoutPasid | noUpdate,
        msixControl: 0,
        lnrControl: 0,
        tphControl: 0,
        ranges,
        deviceInfo: new Uint8Array(0),
      },
    };
  }

  /** Lets it run, for the nonce that LOCK gave. A wrong one leaves it locked. */
  start(nonce: Uint8Array): Refused | undefined {
    if (this.#state !== "configLocked") return refused("invalidInterfaceState");
    if (!this.#nonce || !sameBytes(nonce, this.#nonce)) return refused("invalidNonce");
    this.#nonce = undefined;
    this.#become("run", { what: "started" });
    return undefined;
  }

  /** Quiet, without secrets, unlocked; from any state. */
  stop(): void {
    this.#unlock({ what: "stopped" });
  }

  /** Requests to a peer may go on this stream. */
  bindPeerStream(stream: number): Refused | undefined {
    if (this.#state !== "run") return refused("invalidInterfaceState");
    const mayBind = (this.#locked!.parameters.flags & LOCK_FLAG.bindP2p) !== 0;
    if (!mayBind || !this.#host.isPeerStream(stream) || this.#peerStreams.has(stream)) return refused("invalidRequest");
    this.#peerStreams.add(stream);
    return undefined;
  }

  /** Requests to that peer end. Refused unless the interface runs and the stream is bound. */
  unbindPeerStream(stream: number): Refused | undefined {
    if (this.#state !== "run") return refused("invalidInterfaceState");
    return this.#peerStreams.delete(stream) ? undefined : refused("invalidRequest");
  }

  /** A range becomes part of the trusted interface, or leaves it; only where the report calls it updatable. */
  setMmioAttribute(range: MmioRange): Refused | undefined {
    if (this.#state !== "run") return refused("invalidInterfaceState");
    const report = this.report();
    if ("error" in report) return report;
    const i = report.report.ranges.findIndex(
      ({ firstPage, pages, id }) => firstPage === range.firstPage && pages === range.pages && id === range.id,
    );
    if (i < 0 || (this.#attributes[i]! & RANGE_ATTRIBUTE.updatable) === 0) return refused("invalidRequest");
    const kept = this.#attributes[i]! & ~RANGE_ATTRIBUTE.nonTee;
    this.#attributes[i] = kept | (range.attributes & RANGE_ATTRIBUTE.nonTee);
    return undefined;
  }

  // What happens to it.

  /** Something of the configuration was written: if it is not as it was locked, the trust is over. */
  configurationWritten(): void {
    if (!this.#locked || (this.#state !== "configLocked" && this.#state !== "run")) return;
    const locksMsix = (this.#locked.parameters.flags & LOCK_FLAG.lockMsix) !== 0;
    if (!isAsLocked(this.#locked.configuration, this.#host.configuration(), locksMsix))
      this.fail("configuration changed");
  }

  /** A stream is not secure any more. */
  streamLost(stream: number): void {
    if (this.#peerStreams.delete(stream) || this.stream === stream) this.fail("stream insecure");
  }

  /** Doubt: nothing goes in or out from here on. */
  fail(cause: InterfaceErrorCause): void {
    if (this.#state !== "configLocked" && this.#state !== "run") return;
    this.#nonce = undefined;
    this.#peerStreams.clear();
    this.#become("error", { what: "error", cause });
  }

  /** Function-level reset, or power. */
  reset(): void {
    this.#unlock({ what: "reset" });
  }

  // What may go in and out.

  /** The T bit of a request that the function sends to `address`; undefined if it may send none. */
  departure(isShared: boolean):
    | {
        /** The T bit. */
        readonly trusted: boolean;
      }
    | undefined {
    if (this.#state === "error") return undefined;
    return { trusted: this.#state === "run" && !isShared };
  }

  /** May memory of the function be accessed, by whoever is in front of it? What is refused reads as all ones. */
  admits(bar: number, offset: number, access: "read" | "write", trusted: boolean): boolean {
    const i = this.#host.ranges.findIndex(
      (each) => each.bar === bar && offset >= each.offset && offset < each.offset + each.length,
    );
    const range = this.#host.ranges[i];
    const isTee = range !== undefined && (this.#attributes[i]! & RANGE_ATTRIBUTE.nonTee) === 0;
    if (trusted) return this.#state === "run";
    if (!isTee) return this.#state !== "error";
    if (this.#state === "configLocked") return access === "read" && !range.secret; // registers are frozen
    return this.#state === "configUnlocked";
  }

  #unlock(event: InterfaceEvent): void {
    this.#host.scrub();
    this.#nonce = undefined;
    this.#locked = undefined;
    this.#peerStreams.clear();
    this.#attributes = this.#host.ranges.map(({ attributes = 0 }) => attributes);
    this.#become("configUnlocked", event);
  }

  #become(state: TdiState, event: InterfaceEvent): void {
    this.#state = state;
    this.events.push(event);
    this.onEvent?.(event);
  }
}

const KNOWN_FLAGS = Object.values(LOCK_FLAG).reduce((all, flag) => all | flag, 0);

function overlap(bars: LockedConfiguration["bars"]): boolean {
  return bars.some((a, i) => bars.some((b, j) => i < j && a.phys < b.phys + b.length && b.phys < a.phys + a.length));
}

function isAsLocked(locked: LockedConfiguration, now: LockedConfiguration, locksMsix: boolean): boolean {
  const cleared = (was: boolean, is: boolean): boolean => was && !is;
  return (
    now.requester === locked.requester &&
    !cleared(locked.decodesMemory, now.decodesMemory) &&
    !cleared(locked.busMaster, now.busMaster) &&
    now.virtualFunctions === locked.virtualFunctions &&
    (!locksMsix || now.msixTable === locked.msixTable) &&
    locked.bars.every(({ phys }, i) => now.bars[i]?.phys === phys)
  );
}
