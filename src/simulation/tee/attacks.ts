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

/** All that an attack has. */
interface Attacker {
  readonly world: TeeWorld;
  readonly place: Place;
  readonly random: Random;
  readonly targets: Targets;
}

/** Does it. Attacks that leave something behind mark the device as disturbed. A device is pulled out by the run itself. */
export async function attack(
  world: TeeWorld,
  place: Place,
  how: Exclude<TeeAttack, "pull out">,
  seed: number,
  targets: Targets,
): Promise<void> {
  await ATTACKS[how]({ world, place, random: Random.fromSeed(seed), targets });
}

const ATTACKS: Readonly<Record<Exclude<TeeAttack, "pull out">, (attacker: Attacker) => void | Promise<void>>> = {
  "move a BAR": ({ world, place, random }) => {
    place.isDisturbed = true;
    world.functionOf(place).pci.writeConfig(0x14, 4, 0x300 + random.below(64));
  },
  "bus mastering off": ({ world, place }) => {
    place.isDisturbed = true;
    world.functionOf(place).pci.setBusMaster(false);
  },
  "MSI-X table": ({ world, place }) => {
    place.isDisturbed = true;
    world.functionOf(place).writeMsixTable();
  },
  reset: ({ world, place }) => {
    place.isDisturbed = true;
    return world.functionOf(place).pci.reset();
  },
  unbind: ({ world, place }) => world.run(world.files.core.unbind(world.functionOf(place))),
  disconnect: async ({ world, place }) => {
    const fn = world.functionOf(place);
    const manager = world.files.core.manager(fn);
    if (manager) await world.run(world.files.core.disconnect(fn, manager.name));
  },
  "stream off": switchStreamOff,
  "change packets": changePackets,
  "send in its name": ({ world, place, random, targets }) => inject(world, place, random, targets),
  "rogue function": ({ place, random, targets }) => goRogue(place, random, targets),
  "host reads": ({ world, random, targets }) => hostReads(world, random, targets),
  "change firmware": ({ place, random }) => changeFirmware(place, random),
  // Other firmware, and a host that delivers the measurements of the right one.
  "change evidence": ({ world, place, random }) => {
    changeFirmware(place, random);
    place.guest.tvm.evidenceCarrier = (_fn, evidence) => ({ ...evidence, measurements: world.goodMeasurements });
  },
  "flip mailbox": ({ place, random }) => disturbMailbox(place, "flip mailbox", random),
  "lose mailbox": ({ place, random }) => disturbMailbox(place, "lose mailbox", random),
  "repeat mailbox": ({ place, random }) => disturbMailbox(place, "repeat mailbox", random),
  "stale address": ({ place, random, targets }) => reachBack(place, random, targets),
};

/** At the device, or at a root port, whose streams are those of all devices below it. */
function switchStreamOff({ world, place, random }: Attacker): void {
  const at = selectiveBlockAt(0, 0, 2) + SELECTIVE_REGISTER.control;
  const root = world.tee.functions.find(({ kind, ide }) => kind === "root-port" && ide);
  if (random.chance(1, 2)) place.secure.ide.write32(at, 0);
  else root?.ide?.write32(at, 0);
  for (const other of world.places) other.isDisturbed = true;
}

/** The next packet, whoever's it is, arrives with a bit changed. */
function changePackets({ world, random }: Attacker): void {
  const { wire } = world.tee;
  const at = random.below(64);
  wire.interposer = (packet) => {
    wire.interposer = undefined;
    for (const other of world.places) other.isDisturbed = true;
    const { length } = packet.bytes;
    return length === 0
      ? { ...packet, trusted: !packet.trusted }
      : { ...packet, bytes: packet.bytes.map((byte, i) => (i === at % length ? byte ^ 1 : byte)) };
  };
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
