/** A device as its driver sees it: registers, configuration, interrupts, and what is left when it is gone. */
import { describe, expect, test } from "vitest";
import { MiB, PhysAddr } from "../../base/index.ts";
import { requesterId } from "../../layouts/pci/index.ts";
import { type DeviceModel, type DevicePort, memoryTarget, registerTarget, SimulatedMachine } from "./index.ts";

function model(): DeviceModel & { port?: DevicePort; readonly written: number[][]; resets: number } {
  const written: number[][] = [];
  return {
    vendorId: 0x1b36,
    deviceId: 0x0010,
    classCode: 0x01_0802,
    vectors: 2,
    written,
    resets: 0,
    bars: [
      {
        index: 0,
        length: 4096,
        target: registerTarget({
          read32: (offset) => offset + 0x1000_0000,
          write32: (offset, value) => void written.push([offset, value]),
        }),
      },
      { index: 2, length: 0x4000, target: memoryTarget(0x4000) },
    ],
    plugged(port) {
      this.port = port;
    },
    reset() {
      this.resets++;
    },
  };
}

function plugged() {
  const whole = new SimulatedMachine({ memoryBytes: 16 * MiB });
  const kind = model();
  const [device] = whole.plug("0.1", kind);
  return { whole, kind, device: device! };
}

describe("a device in a slot", () => {
  test("has a name, an identity and a place for each BAR", () => {
    const { device } = plugged();
    expect([device.name, device.requester]).toEqual(["0000:02:00.0", requesterId("02:00.0")]);
    expect([
      device.readConfig(0, 4),
      device.readConfig(2, 2),
      device.readConfig(8, 4),
      device.readConfig(9, 1),
    ]).toEqual([0x0010_1b36, 0x0010, 0x0108_0200, 0x02]);
    expect(device.node.bars.map(({ index, length, phys }) => [index, length, phys % length])).toEqual([
      [0, 4096, 0],
      [2, 0x4000, 0],
    ]);
    expect(device.readConfig(0x10, 4) % 16).toBe(0xc);
    expect(device.readConfig(0x14, 4) * 2 ** 32 + device.readConfig(0x10, 4) - 0xc).toBe(
      device.node.bars[0]!.busAddress,
    );
  });

  test("answers at its registers, from the driver and from the memory bus alike", () => {
    const { whole, kind, device } = plugged();
    const registers = device.bar(0)!;
    expect([registers.length, registers.read32(8), device.bar(1)]).toEqual([4096, 0x1000_0008, undefined]);
    registers.write32(16, 0xffff_fffe);
    const phys = device.node.bars[0]!.phys;
    whole.memory.write(PhysAddr(phys + 20), Uint8Array.of(1, 0, 0, 0, 2, 0, 0, 0));
    whole.memory.write(PhysAddr(phys + 21), Uint8Array.of(1));
    expect(kind.written).toEqual([
      [16, 0xffff_fffe],
      [20, 1],
      [24, 2],
    ]);
    const bytes = new Uint8Array(4);
    whole.memory.read(PhysAddr(phys + 4), bytes);
    expect([...bytes]).toEqual([4, 0, 0, 0x10]);
    whole.memory.read(PhysAddr(phys + 5), bytes);
    expect([...bytes]).toEqual([0xff, 0xff, 0xff, 0xff]);
    expect([registers.read32(4096), registers.read32(-4)]).toEqual([0xffff_ffff, 0xffff_ffff]);
  });

  test("does not listen while memory decoding is off", () => {
    const { kind, device } = plugged();
    device.writeConfig(4, 2, 0);
    device.bar(0)!.write32(0, 1);
    expect([device.bar(0)!.read32(0), kind.written]).toEqual([0xffff_ffff, []]);
    device.writeConfig(4, 2, 2);
    expect(device.bar(0)!.read32(0)).toBe(0x1000_0000);
  });

  test("interrupts by message: only as a bus master, only vectors it has, only who still listens", () => {
    const { kind, device } = plugged();
    const seen: string[] = [];
    const stop = device.onInterrupt(1, () => void seen.push("one"));
    device.onInterrupt(1, () => void seen.push("two"));
    kind.port!.interrupt(1);
    device.setBusMaster(true);
    expect(device.readConfig(4, 2)).toBe(6);
    kind.port!.interrupt(1);
    kind.port!.interrupt(0);
    kind.port!.interrupt(2);
    stop();
    kind.port!.interrupt(1);
    expect(seen).toEqual(["one", "two", "two"]);
  });

  test("is reset by its model, and keeps its configuration", async () => {
    const { kind, device } = plugged();
    device.setBusMaster(true);
    await device.reset();
    expect([kind.resets, device.readConfig(4, 2)]).toEqual([1, 6]);
  });

  test("that is gone answers all ones everywhere, and says so once", async () => {
    const { whole, kind, device } = plugged();
    device.setBusMaster(true);
    const seen: string[] = [];
    device.onRemoved(() => void seen.push("removed"));
    device.onRemoved(() => void seen.push("never"))();
    device.onInterrupt(0, () => void seen.push("interrupt"));
    const { phys } = device.node.bars[1]!;
    whole.unplug(device.node);
    whole.unplug(device.node);
    kind.port!.interrupt(0);
    device.bar(0)!.write32(0, 1);
    device.writeConfig(4, 2, 6);
    await device.reset();
    expect([seen, device.removed, kind.written, kind.resets]).toEqual([["removed"], true, [], 0]);
    expect([device.readConfig(0, 2), device.readConfig(0, 4), device.bar(0)!.read32(0)]).toEqual([
      0xffff, 0xffff_ffff, 0xffff_ffff,
    ]);
    const byte = new Uint8Array(1);
    whole.memory.read(phys, byte);
    expect(byte[0]).toBe(0xff);
  });
});
