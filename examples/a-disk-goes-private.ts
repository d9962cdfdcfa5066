/** A disk that goes private and back: outside a confidential guest's trust every byte is copied, inside none (docs/trusted-devices.md). */
import { MiB } from "dmalink";
import { Nvme } from "dmalink/nvme";
import { NvmeController } from "dmalink/sim";
import { firmwareDigest, LinkDriver, LinkFiles, policyHex, TeeGuest, TeeMachine } from "dmalink/tee";

// Hardware: a disk that can prove who it is, and a guest whose memory nobody else reads.
const tee = new TeeMachine({ memoryBytes: 256 * MiB });
const { clock } = tee.machine;
const disk = tee.plug("0.0", [new NvmeController({ namespaces: [{ blocks: 16_384 }] })]).manager;
const guest = tee.startGuest();

// The host: secures the link to the disk, and gives it to the guest. That is not trust.
const files = new LinkFiles({ functions: () => tee.functions });
const manager = await clock.run(files.core.register({ link: new LinkDriver({ firmware: tee.firmware }) }));
await clock.run(files.write(disk, "tsm/connect", manager.name));
await clock.run(files.core.bind(disk, guest, 1));

// The guest: a driver gets its door from here, under the contract of the moment.
const device = new TeeGuest(tee.guestSide(guest)).addDevice(tee.assigned(disk, guest));
const written = guest.memory.allocate(MiB);
written.bytes.forEach((_, i, bytes) => {
  bytes[i] = (i * 7 + (i >> 9)) & 0xff;
});
const read = guest.memory.allocate(MiB);

async function writeAndRead(): Promise<string> {
  const [copied, trusted] = [guest.counters.bouncedBytes, tee.gate.passed.trusted];
  const nvme = await clock.run(Nvme.open(device.device, device.openDma(), { clock }));
  await clock.run(nvme.write(0, [{ phys: written.phys, length: MiB }]));
  await clock.run(nvme.read(0, [{ phys: read.phys, length: MiB }]));
  await clock.run(nvme.close());
  if (read.bytes.some((byte, i) => byte !== written.bytes[i])) throw new Error("other bytes came back");
  read.bytes.fill(0);
  const requests = tee.gate.passed.trusted - trusted;
  return `${guest.counters.bouncedBytes - copied} bytes copied, ${requests > 0 ? "with" : "without"} the T bit`;
}

console.log(`outside: ${await writeAndRead()}`);
const policy = {
  roots: [policyHex(tee.vendor.rootDigest)],
  measurements: { 1: [policyHex(firmwareDigest(tee.vendor.name))] },
};
await clock.run(device.start(policy)); // lock, evidence, judgement, memory, tables, start
console.log(`inside: ${await writeAndRead()}`);
await clock.run(device.stop());
console.log(`outside again: ${await writeAndRead()}`);
if (tee.gate.refused.length > 0) throw new Error("something was refused");
