import { expect, test } from "vitest";
import { MiB } from "../../src/base/index.ts";
import { Nvme } from "../../src/consumers/nvme/index.ts";
import { Stand } from "./stand.ts";

test("a disk outside the trust bounces every byte, and inside none", async () => {
  const stand = new Stand();
  const { pci, device } = await stand.disk();
  const { clock } = stand.tee.machine;
  const written = stand.buffer(MiB, 0x5a);
  const read = stand.buffer(MiB);
  const open = (): Promise<Nvme> => stand.run(Nvme.open(pci, device.openDma(), { clock }));

  let nvme = await open();
  const before = stand.guest.counters.bouncedBytes;
  await stand.run(nvme.write(0, [{ phys: written.phys, length: MiB }]));
  await stand.run(nvme.read(0, [{ phys: read.phys, length: MiB }]));
  expect(read.bytes).toEqual(written.bytes);
  console.log("bounced", stand.guest.counters.bouncedBytes - before, stand.tee.gate.passed);
  await stand.run(nvme.close());
  expect(device.live).toEqual({
    privatePages: 0,
    sharedPages: 0,
    bounces: 0,
    convertedPages: 0,
    tableEntries: 0,
    ranges: 0,
  });

  await stand.run(device.start(stand.policy));
  expect(device.trust).toBe("run");
  read.bytes.fill(0);
  nvme = await open();
  const inside = stand.guest.counters.bouncedBytes;
  await stand.run(nvme.read(0, [{ phys: read.phys, length: MiB }]));
  expect(read.bytes).toEqual(written.bytes);
  console.log(
    "bounced",
    stand.guest.counters.bouncedBytes - inside,
    stand.tee.gate.passed,
    device.counters,
    stand.tee.gate.refused.slice(0, 3),
  );
  await stand.run(nvme.close());
  await stand.run(device.stop());
  written.free();
  read.free();
  expect(await stand.tearDown()).toEqual([]);
});
