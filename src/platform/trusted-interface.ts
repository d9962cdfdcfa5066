/**
 * A device interface, as the guest that it is assigned to sees it: what its own security manager does for it.
 *
 * Idea: the calls go from the guest to the manager, never to the host. Evidence has two ways: the bytes come through the host,
 * their digests from the manager; so a host can withhold evidence and not change it. The guest decides, step by step; the
 * manager refuses what is out of order.
 * Promises: when `stop` resolves the device reaches nothing of the guest any more.
 * Specified by: TDISP (PCI Express base specification 6.1, chapter 11) in what it asks of a guest and its manager.
 */
import type { PhysAddr } from "../base/index.ts";
import type { TdiState } from "../layouts/tdisp/index.ts";
import type { TranslationTables } from "./translation.ts";

/** A page of a guest: reachable inside its trust only, or by everybody. */
export type Sharing = "private" | "shared";

/** What there is to know of a locked interface. */
export interface DeviceEvidence {
  /** `layouts/tdisp`: an interface report. */
  readonly report: Uint8Array;
  /** `layouts/spdm`: a record of measurements. */
  readonly measurements: Uint8Array;
  /** `layouts/spdm`: a certificate chain. */
  readonly certificates: Uint8Array;
}

/** What the manager says of the evidence that it saw itself. */
export interface Endorsement {
  /** The digests of the three, by {@link TrustedInterface.digest}. */
  readonly digests: DeviceEvidence;
  /** What LOCK added to the addresses of the report. Bytes. */
  readonly reportingOffset: number;
  /** The measurements were signed over the guest's nonce. */
  readonly nonce: Uint8Array;
}

/** Why trust is lost. */
export type TrustLoss =
  /** The device says that its interface is in ERROR, or not running any more. */
  | "interface"
  /** A stream is not secure any more. */
  | "stream"
  /** The device asked, inside the trust, for what nobody gave it. */
  | "fault"
  /** The session, the manager or the device is gone. */
  | "gone";

/** What a guest's own security manager does for it about one interface. */
export interface TrustedInterface {
  /** `ssss:bb:dd.f` */
  readonly name: string;
  /** segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** As this manager digests: 32 bytes. */
  digest(bytes: Uint8Array): Uint8Array;
  /** What the device says of its state, now. @throws DmaError (rejects) if it cannot be asked */
  state(): Promise<TdiState>;
  /** Freezes the configuration. @throws DmaError (rejects) if the device refuses; it is unlocked then */
  lock(): Promise<void>;
  /** Report, measurements over `nonce`, and certificates, of a locked or running interface. @throws DmaError (rejects) */
  evidence(nonce: Uint8Array): Promise<{
    /** What the host carried: report, measurements, certificates. */
    readonly evidence: DeviceEvidence;
    /** What the manager vouches for: the digests of that evidence. */
    readonly endorsement: Endorsement;
  }>;
  /** Device memory of the interface becomes private to the guest. @throws DmaError if it is not what the device reported */
  acceptMemory(phys: PhysAddr, length: number): void;
  /** And shared again. Cannot fail. */
  returnMemory(phys: PhysAddr, length: number): void;
  /** Requests inside the trust are translated by these tables, and only those. @throws DmaError unless it is locked */
  attach(tables: TranslationTables): void;
  /** Requests inside the trust reach nothing. Cannot fail. */
  detach(): void;
  /** Lets it run, with the nonce that LOCK gave to the manager. @throws DmaError (rejects); it stays locked then */
  start(): Promise<void>;
  /** Ends the trust, from any state: quiet, without secrets, unlocked. Cannot fail; a device that is gone is stopped. */
  stop(): Promise<void>;
  /** Requests to and from another interface of this guest may pass between the devices. @throws DmaError (rejects) */
  bindPeer(other: TrustedInterface): Promise<void>;
  /** Ends what `bindPeer` began. @throws DmaError (rejects) */
  unbindPeer(other: TrustedInterface): Promise<void>;
  /** Both run, and requests between them may pass, now. */
  reachesPeer(other: TrustedInterface): boolean;
  /** Calls back when trust is lost; the returned function stops that. */
  onLost(callback: (why: TrustLoss) => void): () => void;
}
