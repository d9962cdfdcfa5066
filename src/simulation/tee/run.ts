/**
 * A run of trusted devices: guests take devices in and let them go, map secrets for those inside and other things for those
 * outside, while hosts, boards and rogue functions attack.
 *
 * Oracles: no secret of a guest on a wire, in shared memory, in another guest's, in a device outside (secret); who does not
 * satisfy the policy never gets in, who runs is as it was locked, what hardware refuses is refused (trust); bytes are right
 * and transfers inside the trust work unless somebody attacked (bytes); nothing is reached after it was taken back (teardown);
 * at the end everything is as it was (leak).
 */
import { DmaError, Random } from "../../base/index.ts";
import { Broken, type RunOptions, type RunResult, violationOf } from "../scenario.ts";
import { attack, type Targets } from "./attacks.ts";
import { fill, giveBack, type LiveMapping, mapMemory, takeMemory, transfer } from "./mappings.ts";
import type { TeePlan, TeeStep, TeeWay } from "./plan.ts";
import { fillWithSecrets, lookForSecrets, secretIn } from "./secrets.ts";
import { DEVICE_BYTES, type Place, TeeWorld } from "./world.ts";

/** Addresses that are remembered after they were taken back. */
const STALE_KEPT = 32;
/** Longer than anything waits for an answer. */
const SETTLE_MS = 3000;

/** Runs a plan. */
export async function runTee(plan: TeePlan, options: RunOptions = {}): Promise<RunResult> {
  const run = new Run(plan, options);
  let step = 0;
  try {
    await run.begin();
    for (; step < plan.steps.length; step++) await run.step(plan.steps[step]!);
    await run.end();
    return { events: run.events, violation: undefined, bytesMoved: run.bytesMoved };
  } catch (error) {
    return { events: run.events, violation: violationOf(error, step), bytesMoved: run.bytesMoved };
  }
}

class Run implements Targets {
  events = 0;
  bytesMoved = 0;
  readonly mappings: LiveMapping[] = [];
  readonly stale: { place: Place; address: LiveMapping["segments"][number]["address"] }[] = [];
  readonly #world: TeeWorld;
  readonly #random: Random;
  /** What went wrong while nobody waited. */
  #failure: unknown;

  constructor(plan: TeePlan, options: RunOptions) {
    this.#world = new TeeWorld(plan, options);
    this.#random = Random.fromSeed(plan.seed).fork("tee contents");
  }

  begin(): Promise<void> {
    return this.#world.begin();
  }

  async step(step: TeeStep): Promise<void> {
    await this.#do(step);
    await this.#world.pass(0.01); // what is under way goes on
    this.#look();
  }

  async end(): Promise<void> {
    const world = this.#world;
    for (const place of world.places) await this.#settle(place);
    for (const place of world.places) await this.#close(place);
    await world.run(world.files.core.unregister(world.manager!));
    await world.pass(SETTLE_MS);
    this.#look();
    for (const { provider, guest } of world.places) guest.tvm.peers.remove(provider);
    for (const { tvm } of world.guests) tvm.destroy();
    const leaks = world.tee.leaks().filter((leak) => !leak.startsWith("timers"));
    if (leaks.length > 0) throw new Broken("leak", `at the end: ${leaks.join("; ")}`);
  }

  async #do(step: TeeStep): Promise<void> {
    if (step.do === "wait") return this.#world.pass(step.ms);
    if (step.do === "transfer") return this.#transfer(step.nth, step.write, step.seed);
    if (step.do === "unmap") return this.#unmap(step.nth);
    if (step.do === "convert") return this.#convert(step.guest);
    const place = this.#world.places[step.device]!;
    switch (step.do) {
      case "bind":
        if (!place.underWay && place.device.trust === "none") await this.#world.bind(place);
        return;
      case "start":
        return this.#start(place, step.wait);
      case "stop":
        return this.#stop(place, step.wait);
      case "map":
        return this.#map(place, step.pages, step.way);
      case "old door":
        return this.#tryOldDoor(place, step.pages);
      case "keep in device":
        return this.#keepInDevice(place);
      case "bind peers":
        return this.#bindPeers(place, this.#world.places[step.peer]!);
      case "read peer":
        return this.#readPeer(place, this.#world.places[step.peer]!);
      case "check":
        await this.#world.run(place.device.check());
        return;
      case "refresh keys":
        await this.#world.run(this.#world.driver.refreshKeys(this.#world.functionOf(place)).catch(ignoreRefusal));
        return;
      case "attack":
        this.events++;
        if (step.how === "pull out") return this.#pullOut(place);
        await attack(this.#world, place, step.how, step.seed, this);
    }
  }

  async #start(place: Place, wait: boolean): Promise<void> {
    const { device } = place;
    if (place.underWay || device.trust !== "none") return;
    this.events++;
    await this.#giveBackAll(place);
    const world = this.#world;
    const isBound = world.files.core.context(world.functionOf(place))?.bound !== undefined;
    const isHonest = !place.isChanged;
    const isWell = isBound && isHonest && !place.isDisturbed && place.secure.mailbox.carrier === undefined;
    const work = device.start(world.policy).then(
      () => {
        place.epoch++;
        place.lockedAs = world.configurationOf(place);
        const stayedHonest = !place.isChanged && place.guest.tvm.evidenceCarrier === undefined;
        if (!isHonest && !stayedHonest)
          throw new Broken("trust", "a device that does not satisfy the policy was let in");
      },
      (error: unknown) => {
        if (!(error instanceof DmaError)) throw error;
        // Whatever was done to it meanwhile is a reason; nothing is none.
        if (isWell && wait && !place.isDisturbed)
          throw new Broken("trust", `a device that nobody touched was not let in: ${error.message}`);
      },
    );
    await this.#follow(place, work, wait);
  }

  async #stop(place: Place, wait: boolean): Promise<void> {
    const { trust } = place.device;
    if (place.underWay || (trust !== "run" && trust !== "lost")) return;
    this.events++;
    await this.#giveBackAll(place);
    const work = place.device.stop().then(() => void place.epoch++);
    await this.#follow(place, work, wait);
  }

  /** Waits, or lets it go on while other things happen. */
  async #follow(place: Place, work: Promise<void>, wait: boolean): Promise<void> {
    place.underWay = work.then(
      () => {
        place.underWay = undefined;
      },
      (error: unknown) => {
        place.underWay = undefined;
        this.#failure ??= error;
      },
    );
    if (wait) await this.#settle(place);
  }

  async #settle(place: Place): Promise<void> {
    if (place.underWay) await this.#world.run(place.underWay);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #map(place: Place, pages: number, way: TeeWay): void {
    const { device, guest } = place;
    if (place.underWay || (device.trust !== "none" && device.trust !== "run") || this.mappings.length >= 24) return;
    const isShared = way === "shared" || way === "shared two-step";
    const memory = takeMemory(guest, pages, isShared);
    if (!memory) return;
    this.events++;
    const dma = device.openDma();
    place.doors.push({ dma, epoch: place.epoch });
    const content = fill(memory, device.trust === "run" && !isShared, this.#random);
    try {
      this.mappings.push(mapMemory(place, dma, memory, way, content));
    } catch (error) {
      memory.free();
      // A pool that is full is no broken promise.
      if (!(error instanceof DmaError && error.errno === "ENOMEM")) throw error;
    }
  }

  /** A door from before a change of trust holds no more: nothing is mapped by it, and nothing bounced. */
  #tryOldDoor(place: Place, pages: number): void {
    const old = place.doors.filter(({ epoch }) => epoch !== place.epoch);
    const memory = old.length > 0 ? takeMemory(place.guest, pages, false) : undefined;
    if (!memory) return;
    this.events++;
    fill(memory, true, this.#random);
    const { dma } = this.#random.pick(old);
    const refused = [
      () => dma.map(memory.phys, memory.length, "to-device"),
      () => dma.mapVecs([memory], "bidirectional"),
      () => dma.allocCoherent(memory.length),
    ].every((way) => {
      try {
        way();
        return false;
      } catch (error) {
        return error instanceof DmaError;
      }
    });
    this.#look();
    if (!refused) throw new Broken("trust", "a door from before a change of trust still maps memory");
    memory.free();
  }

  #transfer(nth: number, write: boolean, seed: number): void {
    const mapping = this.mappings[nth % this.mappings.length];
    if (!mapping) return;
    const { place, isTrusted } = mapping;
    this.events++;
    const wasWell = !place.isDisturbed && !place.underWay && mapping.engine === place.engine;
    const { trust } = place.device;
    const went = transfer(mapping, write, seed);
    if (went) this.bytesMoved += mapping.memory.length;
    if (went && isTrusted && trust !== "run")
      throw new Broken("trust", `a device whose trust is ${trust} reached memory inside the trust`);
    if (!went && wasWell && !place.isDisturbed && place.device.trust === trust && trust !== "lost")
      throw new Broken("bytes", `a transfer was refused for a device that nobody touched (trust ${trust})`);
  }

  #unmap(nth: number): void {
    if (this.mappings.length === 0) return;
    const mapping = this.mappings.splice(nth % this.mappings.length, 1)[0]!;
    this.events++;
    this.#giveBack(mapping);
  }

  #giveBack(mapping: LiveMapping): void {
    // Outside the trust addresses are those of memory itself: what is shared stays within reach.
    if (mapping.isTrusted)
      for (const { address } of mapping.segments) this.stale.push({ place: mapping.place, address });
    if (this.stale.length > STALE_KEPT) this.stale.splice(0, this.stale.length - STALE_KEPT);
    giveBack(mapping);
  }

  async #giveBackAll(place: Place): Promise<void> {
    for (let i = this.mappings.length - 1; i >= 0; i--)
      if (this.mappings[i]!.place === place) this.#giveBack(this.mappings.splice(i, 1)[0]!);
  }

  /** Under a mapping a conversion is refused; a page that nobody reaches loses its secrets on the way. */
  #convert(index: number): void {
    const guest = this.#world.guests[index]!;
    this.events++;
    const mapped = this.mappings.find(({ memory, isTrusted }) => memory.guest === guest && isTrusted);
    if (mapped) {
      try {
        guest.tvm.encryption.convert((mapped.memory.phys / 4096) as never, 1, "shared");
      } catch (error) {
        if (error instanceof DmaError && error.errno === "EBUSY") return;
        throw error;
      }
      throw new Broken("trust", "memory that a device can reach was converted");
    }
    const memory = takeMemory(guest, 1, false);
    if (!memory) return;
    fill(memory, true, this.#random);
    guest.tvm.encryption.convert((memory.phys / 4096) as never, 1, "shared");
    this.#look();
    guest.tvm.encryption.convert((memory.phys / 4096) as never, 1, "private");
    memory.free();
  }

  /** The guest's CPU puts a secret into the device's memory, inside the trust. */
  #keepInDevice(place: Place): void {
    if (place.device.trust !== "run") return;
    this.events++;
    const bytes = new Uint8Array(256);
    fillWithSecrets(bytes, place.guest.tvm.number, this.#random);
    const words = new DataView(bytes.buffer);
    const registers = place.device.device.bar(0)!;
    for (let at = 0; at < bytes.length; at += 4) registers.write32(at, words.getUint32(at, true));
    if (place.device.trust !== "run" || place.isDisturbed) return;
    if (registers.read32(0) !== words.getUint32(0, true))
      throw new Broken("bytes", "memory of a device inside the trust does not hold what its guest wrote there");
  }

  async #bindPeers(place: Place, peer: Place): Promise<void> {
    if (place === peer || place.guest !== peer.guest) return;
    this.events++;
    const world = this.#world;
    const [a, b] = [world.functionOf(place), world.functionOf(peer)];
    const known = a.ide?.streamFor(b.requester, -1, false);
    if (known === undefined) await world.run(world.driver.connectPeers(a, b).catch(ignoreRefusal));
    await world.run(place.device.bindPeer(peer.device).catch(ignoreRefusal));
  }

  #readPeer(place: Place, peer: Place): void {
    if (place === peer || place.secure.manager.pci.removed || peer.secure.manager.pci.removed) return;
    this.events++;
    const into = new Uint8Array(256);
    const reaches = place.guest === peer.guest && place.device.reachesPeer(peer.device);
    const went = place.engine.read(peer.provider.bar.busAddress as never, into);
    if (went && reaches) this.bytesMoved += into.length;
    const guest = secretIn(into);
    if (guest > 0 && (!reaches || guest !== place.guest.tvm.number))
      throw new Broken("secret", "a device read a secret out of a peer that it is not bound to");
    if (went && place.device.trust === "run" && !reaches)
      throw new Broken("trust", "requests passed between devices that are not bound to each other");
  }

  async #pullOut(place: Place): Promise<void> {
    const world = this.#world;
    await world.pullOut(place);
    if (place.underWay) await this.#settle(place);
    await this.#close(place);
    world.refill(place);
    await world.bind(place);
  }

  /** The driver closes, and the device leaves the trust. */
  async #close(place: Place): Promise<void> {
    await this.#giveBackAll(place);
    const { trust } = place.device;
    if (trust === "run" || trust === "lost") await this.#world.run(place.device.stop());
    place.epoch++;
  }

  /** What must hold at every moment. */
  #look(): void {
    if (this.#failure !== undefined) throw this.#failure;
    const world = this.#world;
    const outside: { name: string; bytes: Uint8Array }[] = [];
    for (const place of world.places) {
      const { secure, engine, rogue, device } = place;
      const { state } = secure.manager.interface;
      if (device.trust === "run" && state !== "run")
        throw new Broken("trust", `device ${place.index} is trusted, and its interface is ${state}`);
      if (device.trust === "run" && world.configurationOf(place) !== place.lockedAs)
        throw new Broken("trust", `device ${place.index} is trusted, and not as it was when it was let in`);
      const { stream } = secure.manager.interface;
      if (state === "run" && (stream === undefined || !secure.ide.isSecure(stream)))
        throw new Broken("trust", `device ${place.index} runs on a stream that is not secure`);
      outside.push({ name: "a function that nobody let in", bytes: rogue.buffer });
      if (state !== "configUnlocked") continue;
      outside.push({ name: `the buffers of device ${place.index}`, bytes: engine.buffer });
      const memory = new Uint8Array(DEVICE_BYTES);
      secure.manager.pci.model.bars[0]!.target.read(0, memory);
      outside.push({ name: `the memory of device ${place.index}`, bytes: memory });
    }
    lookForSecrets(world.tee, outside);
  }
}

/** Hosts, devices and managers may refuse; anything else is a crash. */
function ignoreRefusal(error: unknown): void {
  if (!(error instanceof DmaError)) throw error;
}
