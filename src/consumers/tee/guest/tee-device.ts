/**
 * A device of a confidential guest: outside its trust, on the way in, inside, and out again.
 *
 * Idea: a driver gets its door (a `Dma`) from here, and the door keeps the contract of the moment: outside, every buffer
 * bounces through shared memory; inside, the device reaches private memory itself, through tables that the guest writes. Between
 * the two nothing survives: a driver closes, gives everything back, and opens again. The way in is lock, evidence, judgement,
 * memory, tables, start, in that order; what fails undoes all of it, and the device is outside as before.
 * Promises: {@link TeeDevice.start} and {@link TeeDevice.stop} refuse while anything is mapped (EBUSY); when trust is lost the
 * device reaches nothing from that moment, mappings stay until their owner takes them back, and that cannot fail.
 * Traps: connected and bound are the host's words; only `run` here means trust. A door from before holds no more.
 */
import { type PhysAddr, PhysPage } from "../../../base/index.ts";
import { Dma, type DmaOptions } from "../../../dma/index.ts";
import { DmaDomain } from "../../../iommu/index.ts";
import { type TableLayout, vtdSecondStage } from "../../../layouts/pagetable/index.ts";
import type { PciDevice, PciNode, TrustedInterface, TrustLoss } from "../../../platform/index.ts";
import { liveMappings, noInterface, policyRefuses, trustLost, wrongTrust } from "../errors.ts";
import { Contract } from "./contract.ts";
import { DeviceBook, type LiveMappings, liveInWords } from "./device-book.ts";
import type { TeeGuestOptions } from "./guest-options.ts";
import { type Judgement, judgeEvidence, type VisibleBar } from "./judge.ts";
import type { AttestationPolicy } from "./policy.ts";

/** How far a device is inside the trust. */
export type Trust = "none" | "starting" | "run" | "lost" | "stopping";

/** What a device asks of the guest that it belongs to. */
export interface OwningGuest {
  /** What the guest has once, for all of its devices. */
  readonly options: TeeGuestOptions;
  /** The guest's device whose memory this is. */
  ownerOf(phys: PhysAddr): TeeDevice | undefined;
  /** A number for a domain, each once. */
  nextDomain(): number;
}

/** What a guest knows of a device that was assigned to it. */
export interface TeeDeviceOptions {
  /** The device, as its driver gets it. */
  readonly device: PciDevice;
  /** In the PCI tree: needed for peers. */
  readonly node?: PciNode;
  /** The interface, while the host has bound it to this guest. */
  readonly interface: () => TrustedInterface | undefined;
  /** The device's memory, where the guest sees it now. */
  readonly bars: () => readonly VisibleBar[];
  /** Of the tables for requests inside the trust. Default: VT-d second stage. */
  readonly layout?: TableLayout;
}

/** What a driver may say of its door; trust, domain and machine are not its to say. */
export type DoorOptions = Omit<
  DmaOptions,
  "name" | "node" | "machine" | "domain" | "tdi" | "forceBounce" | "untrusted" | "contract"
>;

/** What happened to a device's trust so far. */
export interface TrustCounters {
  /** Times that it was taken into the trust. */
  starts: number;
  /** Starts that failed, whatever the reason. */
  refusals: number;
  /** Times that it was taken out again. */
  stops: number;
  /** Times that trust was lost, by reason. */
  losses: Record<TrustLoss, number>;
  /** From LOCK to RUN, ms, the last time. */
  lockToRunMs: number;
}

/** A device of a confidential guest, and how far it is inside the trust. */
export class TeeDevice {
  /** Its registers and configuration space, for its driver. */
  readonly device: PciDevice;
  /** What happened to its trust so far. */
  readonly counters: TrustCounters = {
    starts: 0,
    refusals: 0,
    stops: 0,
    losses: { interface: 0, stream: 0, fault: 0, gone: 0 },
    lockToRunMs: 0,
  };
  readonly #guest: OwningGuest;
  readonly #options: TeeDeviceOptions;
  readonly #book: DeviceBook;
  readonly #onLost = new Set<(why: TrustLoss) => void>();
  #trust: Trust = "none";
  #why: TrustLoss | undefined;
  #contract: Contract;
  #interface: TrustedInterface | undefined;
  #forget: (() => void) | undefined;
  #domain: DmaDomain | undefined;

  /** Made by `TeeGuest.addDevice`. */
  constructor(guest: OwningGuest, options: TeeDeviceOptions) {
    this.#guest = guest;
    this.#options = options;
    this.device = options.device;
    this.#book = new DeviceBook(guest.options.machine.encryption);
    this.#contract = this.#newContract("untrusted");
  }

  /** How far it is inside the trust, now. */
  get trust(): Trust {
    return this.#trust;
  }

  /** Its BARs, where the guest sees them. */
  get bars(): readonly VisibleBar[] {
    return this.#options.bars();
  }

  /** What the device can reach of the guest's memory, now. */
  get live(): LiveMappings {
    return this.#book.live;
  }

  /**
   * A door for the device's driver, under the contract of the moment. It holds until trust changes; then nothing more is
   * mapped through it.
   *
   * @throws DmaError ERR_DMA_TEE_TRUST (EBUSY) on the way in or out; ERR_DMA_TEE_LOST (EIO) once trust is lost
   */
  openDma(options: DoorOptions = {}): Dma {
    if (this.#trust === "lost") throw trustLost(this.device.name, this.#why!);
    if (this.#trust !== "none" && this.#trust !== "run") throw wrongTrust(this.device.name, "open a door", this.#trust);
    const { machine } = this.#guest.options;
    const { node } = this.#options;
    const door = new Dma({
      ...options,
      name: this.device.name,
      ...(node && { node }),
      machine: { ...machine, encryption: this.#book },
      contract: this.#contract,
      ...(this.#domain ? { tdi: "run", domain: this.#domain } : { tdi: "none", forceBounce: true }),
    });
    this.#book.addDoor(door);
    return door;
  }

  /**
   * Takes the device into the trust: locks it, judges it by the policy, takes its memory and gives it tables, and lets it run.
   * Drivers close before and open again after. The judgement, with what the device reported.
   *
   * @throws DmaError (rejects) ERR_DMA_TEE_TRUST (EBUSY) unless it is outside; ERR_DMA_TEE_LIVE (EBUSY) while it can reach
   *   anything; ERR_DMA_TEE_UNBOUND (ENXIO) unless the host has bound it; ERR_DMA_TEE_POLICY (EACCES) with all reasons; what
   *   the manager and the device say. It is outside as before then
   */
  async start(policy: AttestationPolicy): Promise<Judgement> {
    if (this.#trust !== "none") throw wrongTrust(this.device.name, "start", this.#trust);
    const found = this.#options.interface();
    if (!found) throw noInterface(this.device.name);
    this.#checkIdle("start");
    this.#trust = "starting";
    this.#contract.end("it is being taken into the trust");
    const { clock } = this.#guest.options;
    const lockedAt = clock.nowMs();
    try {
      const judgement = await this.#enter(found, policy);
      this.#contract = this.#newContract("trusted");
      this.#book.forgetIdleDoors();
      this.#trust = "run";
      this.counters.starts++;
      this.counters.lockToRunMs = clock.nowMs() - lockedAt;
      return judgement;
    } catch (error) {
      await this.#leave();
      this.#contract.resume();
      this.#trust = "none";
      this.counters.refusals++;
      throw error;
    }
  }

  /**
   * Takes the device out of the trust; also after trust was lost. Drivers close before.
   *
   * @throws DmaError (rejects) ERR_DMA_TEE_TRUST (EBUSY) unless it is inside or lost; ERR_DMA_TEE_LIVE (EBUSY) while anything
   *   is mapped for it; nothing has changed then
   */
  async stop(): Promise<void> {
    if (this.#trust !== "run" && this.#trust !== "lost") throw wrongTrust(this.device.name, "stop", this.#trust);
    this.#checkIdle("stop");
    this.#trust = "stopping";
    this.#contract.end("it was taken out of the trust");
    await this.#leave();
    this.#contract = this.#newContract("untrusted");
    this.#book.forgetIdleDoors();
    this.#why = undefined;
    this.#trust = "none";
    this.counters.stops++;
  }

  /** Asks the device for its state: trust is lost if it does not run. For who polls. */
  async check(): Promise<void> {
    if (this.#trust !== "run") return;
    const state = await this.#interface!.state().catch(() => undefined);
    if (state !== "run") this.#lose(state === undefined ? "gone" : "interface");
  }

  /** Calls back when trust is lost; the returned function stops that. */
  onLost(callback: (why: TrustLoss) => void): () => void {
    const own = (why: TrustLoss): void => callback(why);
    this.#onLost.add(own);
    return () => void this.#onLost.delete(own);
  }

  /**
   * Requests between this device and another one of the guest may pass. Both must be inside, and the host must have made a
   * stream between them.
   *
   * @throws DmaError (rejects) ERR_DMA_TEE_TRUST (EBUSY); what the manager and the devices say, and neither is bound then
   */
  async bindPeer(other: TeeDevice): Promise<void> {
    for (const { trust, device } of [this, other])
      if (trust !== "run") throw wrongTrust(device.name, "bind a peer", trust);
    const [own, its] = [this.#interface!, other.#interface!];
    await own.bindPeer(its);
    try {
      await its.bindPeer(own);
    } catch (error) {
      await own.unbindPeer(its).catch(() => {});
      throw error;
    }
  }

  /** Both are inside, and may reach each other, now. */
  reachesPeer(other: TeeDevice): boolean {
    if (this.#trust !== "run" || other.#trust !== "run") return false;
    return this.#interface!.reachesPeer(other.#interface!);
  }

  /** The device is not this guest's any more: its doors hold no more. For `TeeGuest.removeDevice`. */
  retire(): void {
    this.#contract.end("it is not this guest's any more");
  }

  async #enter(found: TrustedInterface, policy: AttestationPolicy): Promise<Judgement> {
    const { nonce: fresh, unit, clock } = this.#guest.options;
    this.#interface = found;
    this.#why = undefined;
    this.#forget = found.onLost((why) => this.#lose(why));
    await found.lock();
    const nonce = fresh();
    const { evidence, endorsement } = await found.evidence(nonce);
    const digest = (bytes: Uint8Array): Uint8Array => found.digest(bytes);
    const judgement = judgeEvidence(policy, { evidence, endorsement, nonce, bars: this.bars, digest });
    if (!judgement.accepted) throw policyRefuses(this.device.name, judgement.reasons);
    for (const { phys, length, isTrusted } of judgement.memory)
      if (isTrusted) found.acceptMemory(phys as PhysAddr, length);
    const { layout = vtdSecondStage() } = this.#options;
    const domainId = this.#guest.nextDomain();
    this.#domain = new DmaDomain({ layout, unit, clock, mode: "strict", domainId });
    this.#book.useTable(this.#domain.counters);
    found.attach(this.#domain.tables);
    await found.start();
    if (this.#why !== undefined) throw trustLost(this.device.name, this.#why);
    return judgement;
  }

  /** Undoes {@link TeeDevice.#enter}, from wherever it was. Cannot fail. */
  async #leave(): Promise<void> {
    this.#forget?.();
    this.#forget = undefined;
    await this.#interface?.stop();
    this.#interface = undefined;
    this.#book.useTable(undefined);
    this.#domain?.destroy();
    this.#domain = undefined;
  }

  #lose(why: TrustLoss): void {
    if (this.#why !== undefined || this.#trust === "stopping") return;
    this.#why = why;
    // Fail closed: from here on the device reaches nothing, whatever it thinks.
    this.#interface?.detach();
    if (this.#trust !== "run") return; // on the way in: start says it
    this.#trust = "lost";
    this.#contract.end(`trust was lost (${why})`);
    this.counters.losses[why]++;
    for (const callback of [...this.#onLost]) callback(why);
  }

  #checkIdle(what: string): void {
    const words = liveInWords(this.live);
    if (words !== "") throw liveMappings(this.device.name, what, words, this.live);
  }

  #newContract(trust: "untrusted" | "trusted"): Contract {
    const { isRam } = this.#guest.options;
    return new Contract({
      device: this.device.name,
      trust,
      encryption: this.#book,
      isDeviceMemory: (phys) => !isRam(PhysPage.of(phys)),
      reachesDevice: (phys) => {
        const owner = this.#guest.ownerOf(phys);
        return owner !== undefined && owner !== this && this.reachesPeer(owner);
      },
    });
  }
}
