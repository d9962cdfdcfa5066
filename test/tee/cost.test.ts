/**
 * What trust costs, and what it saves: the same NVMe load by bounce buffers and by the guest's own tables, in counts. The table in
 * docs/trusted-devices.md is this one.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Counters, MiB, PhysAddr, Random } from "../../src/base/index.ts";
import { Nvme } from "../../src/consumers/nvme/index.ts";
import { Stand } from "./stand.ts";

/** 128 requests of 4 KiB to 128 KiB, half reads, in scattered pages. Bytes: written, read. */
async function load(stand: Stand, nvme: Nvme): Promise<[number, number]> {
  const random = Random.fromSeed(7);
  const buffer = stand.buffer(2 * MiB, 1);
  const moved: [number, number] = [0, 0];
  for (let i = 0; i < 128; i++) {
    const pages = 1 << random.below(6);
    const vecs = Array.from({ length: pages }, () => ({
      phys: PhysAddr(buffer.phys + 2 * random.below(256) * 4096), // every other page: none adjacent
      length: 4096,
    }));
    const block = random.below(128) * 8;
    if (i % 2 === 0) await stand.run(nvme.write(block, vecs));
    else await stand.run(nvme.read(block, vecs));
    moved[i % 2]! += pages * 4096;
  }
  buffer.free();
  return moved;
}

/** What was counted of a load: on the door, on the pool, on the wire. */
interface Counted {
  readonly copied: number;
  readonly ranges: number;
  readonly entries: number;
  readonly syncs: number;
  readonly invalidations: number;
  readonly plain: number;
  readonly trusted: number;
}

async function counted(inside: boolean): Promise<Counted & { moved: [number, number] }> {
  const stand = new Stand();
  const { pci, device } = await stand.disk();
  if (inside) await stand.run(device.start(stand.policy));
  const door = device.openDma();
  const nvme = await stand.run(Nvme.open(pci, door, { clock: stand.tee.machine.clock }));
  const before: Counters = door.counters.snapshot();
  const copied = stand.guest.counters.bouncedBytes;
  const passed = { ...stand.tee.gate.passed };
  const moved = await load(stand, nvme);
  const since = door.counters.since(before);
  const result = {
    moved,
    copied: stand.guest.counters.bouncedBytes - copied,
    ranges: since.iovaAllocations,
    entries: since.pteWrites,
    syncs: since.mapSyncs,
    invalidations: since.invalidations,
    plain: stand.tee.gate.passed.plain - passed.plain,
    trusted: stand.tee.gate.passed.trusted - passed.trusted,
  };
  await stand.run(nvme.close());
  if (inside) await stand.run(device.stop());
  expect(await stand.tearDown()).toEqual([]);
  return result;
}

test("the same load copies every byte outside the trust, and none inside, where it costs entries and invalidations", async () => {
  const outside = await counted(false);
  const within = await counted(true);
  expect(within.moved).toEqual(outside.moved);
  const [written, read] = outside.moved;
  // Copied in before the device may look, for reads too: what it does not write must not be old; and out after reads.
  expect(outside).toMatchObject({
    copied: written + 2 * read,
    ranges: 0,
    entries: 0,
    syncs: 0,
    invalidations: 0,
    trusted: 0,
  });
  // One range for each request, and one for the memory of descriptors.
  expect(within).toMatchObject({ copied: 0, plain: 0, ranges: 129, syncs: 129, invalidations: 128 });
  // An entry set and one cleared for each page.
  expect(within.entries).toBeGreaterThanOrEqual((2 * (written + read)) / 4096);
  const doc = readFileSync(join(import.meta.dirname, "../../docs/trusted-devices.md"), "utf8");
  const row = (name: string, key: keyof Counted): string =>
    `| ${name} | ${outside[key].toLocaleString("en")} | ${within[key].toLocaleString("en")} |`;
  for (const line of [
    row("bytes copied by the CPU", "copied"),
    row("ranges of addresses", "ranges"),
    row("page-table entries written", "entries"),
    row("map syncs", "syncs"),
    row("IOTLB invalidations", "invalidations"),
    row("requests outside the trust (T = 0)", "plain"),
    row("requests inside the trust (T = 1)", "trusted"),
  ])
    expect(doc).toContain(line);
});
