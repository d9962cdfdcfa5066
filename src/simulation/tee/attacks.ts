/** What hosts, boards and rogue functions do in a run. None of it may get a secret out, nor go unseen by a guest that it concerns. */
import { DmaAddr, PhysAddr, Random } from "../../base/index.ts";
import { SELECTIVE_REGISTER, selectiveBlockAt } from "../../layouts/ide/index.ts";
import { Broken } from "../scenario.ts";
import type { LiveMapping } from "./mappings.ts";
import type { TeeAttack } from "./plan.ts";
import { secretIn } from "./secrets.ts";
import type { Place, TeeWorld } from "./world.ts";

/** What an attack can aim at. */
export interface Targets {
  readonly mappings: readonly LiveMapping[];
  /** Addresses that devices had inside the trust, and have no more. */
  readonly stale: readonly { readonly place: Place; readonly address: DmaAddr }[];
}

/** Does it. Attacks that leave something behind mark the device as disturbed. */
export async function attack(
  world: TeeWorld,
  place: Place,
  how: TeeAttack,
  seed: number,
  targets: Targets,
): Promise<void> {
  const random = Random.fromSeed(seed);
  const { tee } = world;
  const fn = world.functionOf(place);
  const { core } = world.files;
  switch (how) {
    case "move a BAR":
      place.isDisturbed = true;
      fn.pci.writeConfig(0x14, 4, 0x300 + random.below(64));
      return;
    case "bus mastering off":
      place.isDisturbed = true;
      fn.pci.setBusMaster(false);
      return;
    case "MSI-X table":
      place.isDisturbed = true;
      fn.writeMsixTable();
      return;
    case "stream off": {
      place.isDisturbed = true;
      const at = selectiveBlockAt(0, 0, 2) + SELECTIVE_REGISTER.control;
      const root = tee.functions.find(({ kind, ide }) => kind === "root-port" && ide);
      if (random.chance(1, 2)) place.secure.ide.write32(at, 0);
      else root?.ide?.write32(at, 0);
      // A root port's streams are those of all devices below it.
      for (const other of world.places) other.isDisturbed = true;
      return;
    }
    case "reset":
      place.isDisturbed = true;
      await fn.pci.reset();
      return;
    case "unbind":
      await world.run(core.unbind(fn));
      return;
    case "disconnect":
      if (core.context(fn)) await world.run(core.disconnect(fn, world.manager!.name));
      return;
    case "change packets": {
      const at = random.below(64);
      tee.wire.interposer = (packet) => {
        tee.wire.interposer = undefined;
        for (const other of world.places) other.isDisturbed = true; // whoever's packet it is
        const { length } = packet.bytes;
        return length === 0
          ? { ...packet, trusted: !packet.trusted }
          : { ...packet, bytes: packet.bytes.map((byte, i) => (i === at % length ? byte ^ 1 : byte)) };
      };
      return;
    }
    case "send in its name":
      inject(world, place, random, targets);
      return;
    case "rogue function":
      goRogue(place, random, targets);
      return;
    case "host reads":
      hostReads(world, random, targets);
      return;
    case "change evidence":
      // Other firmware, and a host that delivers the measurements of the right one.
      changeFirmware(place, random);
      place.guest.tvm.evidenceCarrier = (_fn, evidence) => ({ ...evidence, measurements: world.goodMeasurements });
      return;
    case "change firmware":
      changeFirmware(place, random);
      return;
    case "flip mailbox":
    case "lose mailbox":
    case "repeat mailbox":
      disturbMailbox(place, how, random);
      return;
    case "stale address":
      reachBack(place, random, targets);
      return;
    case "pull out":
      throw new Error("the run does this itself");
  }
}

function changeFirmware(place: Place, random: Random): void {
  place.isChanged = true;
  const value = new Uint8Array(32).fill(random.below(256));
  place.secure.measurements = [{ index: 1, measured: "mutableFirmware", value }];
}

/** Requests that no device sent. With the T bit they end that device's trust; without they reach shared memory only. */
function inject(world: TeeWorld, place: Place, random: Random, { mappings }: Targets): void {
  if (mappings.length === 0) return;
  const { memory } = random.pick(mappings);
  const trusted = random.chance(1, 2);
  if (trusted) place.isDisturbed = true;
  const isPrivate = memory.guest.tvm.encryption.isPrivate((memory.phys / 4096) as never);
  const passed = world.tee.gate.inject(world.functionOf(place).node, memory.phys, "read", trusted) === undefined;
  if (passed && (trusted || isPrivate))
    throw new Broken(
      "trust",
      `a request that nobody's device sent passed, T=${Number(trusted)}, to ${isPrivate ? "private" : "shared"} memory`,
    );
}

/** The second function, which nobody let in, tries addresses of the first, and memory itself. */
function goRogue(place: Place, random: Random, { mappings }: Targets): void {
  if (mappings.length === 0) return;
  const mapping = random.pick(mappings);
  const into = new Uint8Array(256);
  const address = random.chance(1, 2) ? mapping.segments[0]!.address : DmaAddr(mapping.memory.phys);
  place.rogue.read(address, into);
  if (secretIn(into) > 0) throw new Broken("secret", "a function that nobody let in read a secret");
  const isPrivate = mapping.memory.guest.tvm.encryption.isPrivate((mapping.memory.phys / 4096) as never);
  if (isPrivate && place.rogue.write(DmaAddr(mapping.memory.phys), into))
    throw new Broken("trust", "a function that nobody let in wrote to private memory");
}

function hostReads({ tee }: TeeWorld, random: Random, { mappings }: Targets): void {
  if (mappings.length === 0) return;
  const { memory } = random.pick(mappings);
  const into = new Uint8Array(256);
  tee.hostRead(PhysAddr(memory.phys + random.below(8) * 256), into);
  if (secretIn(into) > 0) throw new Broken("secret", "the host's CPU read a secret");
}

/** One object on its way is changed, lost, or said again in the place of another. */
function disturbMailbox(place: Place, how: TeeAttack, random: Random): void {
  const { mailbox } = place.secure;
  const skip = random.below(6);
  let seen = 0;
  let kept: Uint8Array | undefined;
  place.isDisturbed = true;
  mailbox.carrier = (object, way) => {
    kept ??= way === "to-device" ? object.slice() : undefined;
    if (seen++ !== skip) return object;
    mailbox.carrier = undefined;
    if (how === "lose mailbox") return undefined;
    if (how === "repeat mailbox" && way === "to-device") return kept;
    return object.map((byte, i) => (i === object.length - 5 ? byte ^ 4 : byte));
  };
}

/** The device tries an address that it had, and that is nobody's now. */
function reachBack(place: Place, random: Random, { stale, mappings }: Targets): void {
  const own = stale.filter((each) => each.place === place);
  if (own.length === 0) return;
  const { address } = random.pick(own);
  const isLive = mappings.some(
    (mapping) =>
      mapping.place === place &&
      mapping.segments.some(
        (segment) => address < segment.address + segment.length && segment.address < address + 4096,
      ),
  );
  if (isLive) return;
  place.isDisturbed = true; // a request for nothing ends the trust
  const into = new Uint8Array(64);
  if (place.engine.read(address, into) && place.device.trust === "run")
    throw new Broken("teardown", `an address that was unmapped is still reached: 0x${address.toString(16)}`);
}
