/**
 * Scenario: a disk of a confidential guest from the first transfer to the last: outside the trust, refused while anything is mapped, inside it,
 * attacked by its host, in again, and out. The same transfer of 1 MiB each time, in counts; the guest's data is marked, and the mark must
 * be nowhere but in private memory, whatever format the guest's tables have.
 */
import { expect, test } from "vitest";
import { DmaAddr, MiB, PhysAddr, PhysPage } from "../../src/base/index.ts";
import { Nvme } from "../../src/consumers/nvme/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import { type FormatName, layoutNamed, type TableLayout } from "../../src/layouts/pagetable/index.ts";
import { LONG } from "../effort.ts";
import { alike, refusal, Stand } from "./stand.ts";

const MARK = new TextEncoder().encode("of the guest alone");
const holdsMark = (bytes: Uint8Array): boolean => Buffer.from(bytes).includes(Buffer.from(MARK));

type Attack = "moves a BAR" | "reads private memory without the T bit";

async function story(layout: TableLayout, attack: Attack): Promise<void> {
  const stand = new Stand();
  const { tee, guest } = stand;
  const { clock } = tee.machine;
  const { pci, controller, fn } = await stand.disk();
  const device = stand.software.addDevice({ ...tee.assigned(fn, guest), layout });
  const onTheWire: string[] = [];
  let isInside = false;
  tee.wire.onSight = ({ bytes }) => {
    if (isInside && holdsMark(bytes)) onTheWire.push("in the clear");
  };
  const buffer = stand.buffer(MiB);
  const mark = (value: string): void => {
    for (let at = 0; at + 64 <= MiB; at += 64) buffer.bytes.set(new TextEncoder().encode(value), at);
  };
  const leaks = (): string[] => {
    const page = new Uint8Array(4096);
    const found = [...onTheWire];
    for (const [number, { isPrivate }] of tee.pages.entries()) {
      if (isPrivate) continue;
      tee.machine.memory.read(PhysPage.start(number), page);
      if (holdsMark(page)) found.push(`in shared page ${number}`);
    }
    return found;
  };
  const open = (): Promise<Nvme> => stand.run(Nvme.open(pci, device.openDma(), { clock, timeoutMs: 50, retries: 0 }));
  /** The transfer: bytes copied, requests with and without the T bit. */
  const transfer = async (nvme: Nvme, block: number): Promise<[number, boolean, boolean]> => {
    const copied = guest.counters.bouncedBytes;
    const { trusted, plain } = { ...tee.gate.passed };
    await stand.run(nvme.write(block, [{ phys: buffer.phys, length: MiB }]));
    const after = tee.gate.passed;
    return [guest.counters.bouncedBytes - copied, after.trusted > trusted, after.plain > plain];
  };

  // 1: outside. Every byte is copied, and no request has the T bit.
  mark("for everybody");
  let nvme = await open();
  expect(await transfer(nvme, 0)).toEqual([MiB, false, true]);

  // 3: nothing may be mapped on the way in.
  expect(await refusal(stand.run(device.start(stand.policy)))).toEqual(["ERR_DMA_TEE_LIVE", "EBUSY"]);
  await stand.run(nvme.close());

  // 2, 4, 5: locked, judged, started. 6: the same transfer; nothing is copied, and every request has the T bit.
  await stand.run(device.start(stand.policy));
  isInside = true;
  mark(new TextDecoder().decode(MARK));
  nvme = await open();
  expect(await transfer(nvme, 2048)).toEqual([0, true, false]);
  expect(leaks()).toEqual([]);

  // 7: the host attacks.
  const refused = tee.gate.refused.length;
  if (attack === "moves a BAR") {
    controller.faults = ({ queue }) => (queue > 0 ? { kind: "slow", ms: 5 } : undefined);
    const reads = Promise.allSettled([nvme.read(0, [{ phys: buffer.phys, length: 4096 }])]);
    fn.pci.writeConfig(0x10, 4, 0x4000_0000);
    expect([device.trust, fn.interface.state]).toEqual(["lost", "error"]);
    expect((await stand.run(reads))[0]!.status).toBe("rejected"); // by its time, not by the device
    controller.faults = undefined;
  } else {
    const other = new DmaEngine();
    stand.plug("0.1", [other]);
    const into = new Uint8Array(4096);
    expect(other.read(DmaAddr(buffer.phys), into)).toBe(false);
    expect(tee.hostRead(PhysAddr(buffer.phys), into)).toBe(false);
    expect([holdsMark(into), tee.gate.refused.slice(refused).map(({ rule }) => rule)]).toEqual([false, [4]]);
    expect(device.trust).toBe("run"); // it is not the disk's fault
  }
  await stand.run(nvme.close()); // unmaps everything, whether the device answers or not
  await stand.run(device.stop());
  isInside = false;
  expect([device.trust, fn.interface.state, leaks()]).toEqual(["none", "configUnlocked", []]);

  // In again, with another nonce; the data is still there.
  await stand.run(device.start(stand.policy));
  isInside = true;
  nvme = await open();
  const back = stand.buffer(MiB);
  const copied = guest.counters.bouncedBytes;
  await stand.run(nvme.read(2048, [{ phys: back.phys, length: MiB }]));
  expect([guest.counters.bouncedBytes - copied, alike(back.bytes, buffer.bytes), leaks()]).toEqual([0, true, []]);
  await stand.run(nvme.close());

  // 8: out, and as in the beginning.
  await stand.run(device.stop());
  isInside = false;
  mark("for everybody ");
  nvme = await open();
  expect(await transfer(nvme, 0)).toEqual([MiB, false, true]);
  await stand.run(nvme.close());
  expect(device.counters).toMatchObject({
    starts: 2,
    stops: 2,
    losses: { interface: attack === "moves a BAR" ? 1 : 0 },
  });
  buffer.free();
  back.free();
  expect(await stand.tearDown()).toEqual([]);
}

const CASES: readonly [FormatName, Attack][] = [
  ["vtd-second-stage", "moves a BAR"],
  ["amd-v1", "reads private memory without the T bit"],
  ["arm-stage1-4k", "moves a BAR"],
  ["vtd-second-stage", "reads private memory without the T bit"],
  ["x86-64", "reads private memory without the T bit"],
  ["riscv-sv48", "moves a BAR"],
];

test.each(CASES.slice(0, LONG ? CASES.length : 3))(
  "a disk goes private and back, with tables of %s; its host %s",
  (format, attack) => story(layoutNamed(format), attack),
);
