/** The way of a request: turned around, translated, passed on, refused. And privacy. */
import { describe, expect, test } from "vitest";
import { DmaAddr, MiB, PhysAddr, type PhysPage } from "../../base/index.ts";
import { ACS } from "../../layouts/pci/index.ts";
import { routeBetween } from "../../p2p/index.ts";
import {
  type BridgeDescription,
  DmaEngine,
  type MachineOptions,
  type RequestTranslator,
  SimulatedMachine,
} from "./index.ts";

const SWITCH: BridgeDescription = { rootPorts: [{ switch: [{}, {}] }, {}] };
const ROUTING = { cpu: { vendor: "AMD", family: 0x19 } };
const fill = (value: number, length = 4096): Uint8Array => new Uint8Array(length).fill(value);

/** Three engines with memory of their own, two below a switch and one below another root port. */
function machine(options: MachineOptions = {}, bridge: BridgeDescription = SWITCH) {
  const machine = new SimulatedMachine({ memoryBytes: 64 * MiB, bridges: [bridge], ...options });
  const plug = (slot: string) => {
    const engine = new DmaEngine({ memoryBytes: 0x1_0000 });
    const [device] = machine.plug(slot, engine);
    device!.setBusMaster(true);
    return { engine, device: device!, bar: device!.node.bars[0]!, node: device!.node };
  };
  const [a, b, c] = [plug("0.0.0"), plug("0.0.1"), plug("0.1")];
  const reasons = (): string[] => machine.fabric.refusals.map(({ reason }) => reason);
  return { machine, a, b, c, reasons };
}

const busOf = ({ bar }: { bar: { busAddress: number } }): DmaAddr => DmaAddr(bar.busAddress);
const physOf = ({ bar }: { bar: { phys: number } }): DmaAddr => DmaAddr(bar.phys);

describe("without an IOMMU", () => {
  test("addresses are physical: RAM is read and written", () => {
    const { machine: whole, a } = machine();
    const buffer = whole.ram.allocate(8192);
    buffer.bytes.fill(4);
    const into = new Uint8Array(8192);
    expect(a.engine.read(DmaAddr(buffer.phys), into)).toBe(true);
    expect(into).toEqual(fill(4, 8192));
    expect(a.engine.write(DmaAddr(buffer.phys + 4000), fill(9, 200))).toBe(true);
    expect([buffer.bytes[3999], buffer.bytes[4000], buffer.bytes[4199], buffer.bytes[4200]]).toEqual([4, 9, 9, 4]);
  });

  test("where nothing is, a request is refused, and what lies before it has been moved", () => {
    const { machine: whole, a, reasons } = machine();
    expect(a.engine.write(DmaAddr(64 * MiB - 4096), fill(1, 8192))).toBe(false);
    const byte = new Uint8Array(1);
    whole.dram.read(PhysAddr(64 * MiB - 1), byte);
    expect([byte[0], reasons()]).toEqual([1, ["nothing-there"]]);
  });

  test("a device that may not start requests, or was pulled out, reaches nothing", () => {
    const { machine: whole, a, reasons } = machine();
    a.device.setBusMaster(false);
    expect(a.engine.write(DmaAddr(0x10_0000), fill(1))).toBe(false);
    a.device.setBusMaster(true);
    whole.unplug(a.node);
    expect(a.engine.write(DmaAddr(0x10_0000), fill(1))).toBe(false);
    expect(reasons()).toEqual(["not-master", "removed"]);
  });
});

describe("a peer's bus address", () => {
  test("is turned around by the switch above both, and no IOMMU sees it", () => {
    const translator: RequestTranslator = { translate: () => expect.unreachable() as never };
    const { machine: whole, a, b } = machine({ translator }, { ...SWITCH, busOffset: -(2 ** 39) });
    expect(busOf(b)).not.toBe(physOf(b));
    expect(a.engine.write(busOf(b), fill(3))).toBe(true);
    expect(new Uint8Array(b.device.model.bars[0]!.length).length).toBe(0x1_0000);
    expect(b.device.bar(0)!.read32(0)).toBe(0x0303_0303);
    expect(whole.fabric.turnedAround).toBe(1);
  });

  test.each(["requestRedirect", "completionRedirect", "egressControl"] as const)(
    "goes up to the root instead when a port of the way has %s",
    (bit) => {
      const seen: number[] = [];
      const translator: RequestTranslator = {
        translate: (_requester, page) => {
          seen.push(page);
          return -1;
        },
      };
      for (const end of ["a", "b"] as const) {
        const parts = machine({ translator });
        parts[end].node.parent!.acsControl = ACS[bit];
        expect(parts.a.engine.write(busOf(parts.b), fill(3))).toBe(false);
        expect([parts.reasons(), parts.machine.fabric.turnedAround]).toEqual([["translation"], 0]);
        expect(seen.pop()).toBe(busOf(parts.b) / 4096);
      }
    },
  );

  test("with a PASID goes to the IOMMU, which alone knows what it means", () => {
    const asked: (number | undefined)[] = [];
    const {
      machine: whole,
      a,
      b,
    } = machine({
      translator: {
        translate: (_requester, _page, _access, pasid) => {
          asked.push(pasid);
          return -1;
        },
      },
    });
    whole.fabric.write(a.node, busOf(b), fill(1), 5);
    expect(asked).toEqual([5]);
  });

  test("below another root port is passed on by processors that do, and refused by others", () => {
    const no = machine();
    expect(no.a.engine.write(physOf(no.c), fill(1))).toBe(false);
    expect(no.reasons()).toEqual(["no-route"]);
    const yes = machine({}, { ...SWITCH, ...ROUTING });
    expect(yes.a.engine.write(physOf(yes.c), fill(1))).toBe(true);
    expect([yes.c.device.bar(0)!.read32(4), yes.machine.fabric.passedOn]).toEqual([0x0101_0101, 1]);
  });

  test("of another root complex needs both to pass it on", () => {
    for (const [left, right, ok] of [
      [true, true, true],
      [true, false, false],
      [false, true, false],
    ] as const) {
      const whole = new SimulatedMachine({
        bridges: [
          { rootPorts: [{}], routesPeers: left },
          { rootPorts: [{}], routesPeers: right },
        ],
      });
      const [from, to] = [new DmaEngine(), new DmaEngine({ memoryBytes: 4096 })];
      whole.plug("0.0", from)[0]!.setBusMaster(true);
      const [target] = whole.plug("1.0", to);
      expect(from.write(DmaAddr(target!.node.bars[0]!.phys), fill(1, 64))).toBe(ok);
    }
  });

  test("arrives exactly where the stack's own routes say so", () => {
    for (const bridge of [SWITCH, { ...SWITCH, ...ROUTING }])
      for (const redirecting of [undefined, "0000:02:00.0", "0000:02:01.0", "0000:00:01.0", "0000:00:02.0"]) {
        const parts = machine({}, bridge);
        for (const node of parts.machine.tree.nodes())
          if (node.name === redirecting) node.acsControl = ACS.requestRedirect;
        for (const from of [parts.a, parts.b, parts.c])
          for (const to of [parts.a, parts.b, parts.c]) {
            const before = parts.machine.fabric.turnedAround;
            const ok = from.engine.write(busOf(to), fill(1, 16));
            const { type } = routeBetween(to.node, from.node, []);
            expect([ok, parts.machine.fabric.turnedAround > before]).toEqual([
              type !== "not-supported",
              type === "bus-address",
            ]);
          }
      }
  });

  test("of a device that was pulled out, or does not listen, answers nobody", () => {
    const { machine: whole, a, b, reasons } = machine();
    b.device.writeConfig(0x04, 2, 0);
    const into = fill(0, 8);
    expect([a.engine.read(busOf(b), into), into]).toEqual([true, fill(0xff, 8)]);
    whole.unplug(b.node);
    expect(a.engine.read(busOf(b), into)).toBe(false);
    expect(reasons()).toEqual(["nothing-there"]);
  });
});

describe("behind an IOMMU", () => {
  const twice: RequestTranslator = { translate: (_requester, page) => (page * 2) as PhysPage };

  test("every page of a request is translated on its own", () => {
    const { machine: whole, a } = machine({ translator: twice });
    expect(a.engine.write(DmaAddr(0x10_0ffc), Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))).toBe(true);
    const bytes = new Uint8Array(4);
    whole.dram.read(PhysAddr(0x20_0ffc), bytes);
    expect([...bytes]).toEqual([1, 2, 3, 4]);
    whole.dram.read(PhysAddr(0x20_2000), bytes);
    expect([...bytes]).toEqual([5, 6, 7, 8]);
  });

  test("each root complex may have a unit of its own", () => {
    const whole = new SimulatedMachine({ bridges: [{ rootPorts: [{}] }, { rootPorts: [{}] }] });
    const engines = ["0.0", "1.0"].map((slot, i) => {
      const engine = new DmaEngine();
      whole.plug(slot, engine)[0]!.setBusMaster(true);
      whole.fabric.translators.set(whole.tree.hostBridges[i]!, { translate: () => (0x1000 * (i + 1)) as PhysPage });
      return engine;
    });
    engines.forEach((engine, i) => void engine.write(DmaAddr(0x5000), fill(i + 1, 1)));
    const bytes = [1, 2].map((i) => {
      const byte = new Uint8Array(1);
      whole.memory.read(PhysAddr(0x100_0000 * i), byte);
      return byte[0];
    });
    expect(bytes).toEqual([1, 2]);
  });

  test("peer memory is reached by its physical address, if the root complex passes it on", () => {
    const parts = machine({}, { ...SWITCH, ...ROUTING });
    parts.machine.fabric.translator = { translate: () => (physOf(parts.b) / 4096) as PhysPage };
    expect(parts.a.engine.write(DmaAddr(0x5008), Uint8Array.of(1, 2, 3, 4))).toBe(true);
    expect(parts.b.device.bar(0)!.read32(8)).toBe(0x0403_0201);
  });
});

describe("a confidential guest", () => {
  test("refuses devices that touch private memory from outside, and lets those inside", () => {
    const { machine: whole, a, b, reasons } = machine({ confidential: "refused" });
    const buffer = whole.ram.allocate(4096);
    buffer.bytes.fill(0x42);
    const into = fill(0);
    expect([a.engine.read(DmaAddr(buffer.phys), into), into]).toEqual([false, fill(0)]);
    expect(a.engine.write(DmaAddr(buffer.phys), fill(1))).toBe(false);
    expect(reasons()).toEqual(["private", "private"]);
    const page = buffer.phys / 4096;
    expect(whole.encryption!.touches.map(({ access, page: at }) => [access, at])).toEqual([
      ["read", page],
      ["write", page],
    ]);
    b.node.trusted = true;
    expect([b.engine.read(DmaAddr(buffer.phys), into), into]).toEqual([true, fill(0x42)]);
  });

  test("or shows ciphertext: no byte is plain, and what a device writes is garbage inside", () => {
    const { machine: whole, a } = machine({ confidential: "ciphertext" });
    const buffer = whole.ram.allocate(4096);
    for (const value of [0, 0x42, 0xff]) {
      buffer.bytes.fill(value);
      const into = fill(0);
      expect(a.engine.read(DmaAddr(buffer.phys), into)).toBe(true);
      expect(into.every((byte) => byte !== value)).toBe(true);
      expect(new Set(into).size).toBeGreaterThan(100);
      a.engine.write(DmaAddr(buffer.phys), fill(value));
      expect(buffer.bytes.every((byte) => byte !== value)).toBe(true);
    }
    const again = fill(0);
    a.engine.write(DmaAddr(buffer.phys), fill(7));
    a.engine.read(DmaAddr(buffer.phys), again);
    expect(again).toEqual(fill(7)); // the device reads back its own bytes, though the guest cannot
  });

  test("a page that becomes shared is zeroed first, and again when it becomes private", () => {
    for (const coherent of [true, false]) {
      const { machine: whole, a } = machine({ confidential: "refused", coherent });
      const buffer = whole.ram.allocate(4096);
      buffer.bytes.fill(0x42);
      whole.caches?.forDevice(buffer.phys, 4096, "to-device");
      whole.caches?.barrier();
      const page = (buffer.phys / 4096) as PhysPage;
      expect(whole.encryption!.isPrivate(page)).toBe(true);
      expect(whole.encryption!.convert(page, 1, "shared")).toBe(true);
      const into = fill(9);
      expect([a.engine.read(DmaAddr(buffer.phys), into), into, buffer.bytes]).toEqual([true, fill(0), fill(0)]);
      a.engine.write(DmaAddr(buffer.phys), fill(5));
      whole.encryption!.convert(page, 1, "private");
      expect([whole.encryption!.isPrivate(page), buffer.bytes]).toEqual([true, fill(0)]);
      expect(a.engine.read(DmaAddr(buffer.phys), into)).toBe(false);
    }
  });

  test("a conversion that fails says so, once for each, and the pages are not to be used", () => {
    const { machine: whole } = machine({ confidential: "refused" });
    whole.encryption!.failures = 1;
    expect(whole.encryption!.convert(0x100 as PhysPage, 4, "shared")).toBe(false);
    expect([whole.encryption!.unusablePages, whole.encryption!.sharedPages]).toEqual([4, 0]);
    expect(whole.encryption!.convert(0x200 as PhysPage, 1, "shared")).toBe(true);
  });

  test("device memory is shared until the guest accepts it; then peers outside are refused, those inside are not", () => {
    const { machine: whole, a, b } = machine({ confidential: "refused" }, { ...SWITCH, ...ROUTING });
    expect(whole.encryption!.isPrivate((physOf(b) / 4096) as PhysPage)).toBe(false);
    expect(a.engine.write(busOf(b), fill(1, 16))).toBe(true);
    whole.encryption!.convert((physOf(b) / 4096) as PhysPage, 16, "private");
    expect(whole.encryption!.privateDevicePages).toBe(16);
    expect([a.engine.write(busOf(b), fill(2, 16)), b.device.bar(0)!.read32(0)]).toEqual([false, 0x0101_0101]);
    a.node.trusted = true;
    expect([a.engine.write(busOf(b), fill(2, 16)), b.device.bar(0)!.read32(0)]).toEqual([true, 0x0202_0202]);
    whole.encryption!.convert((physOf(b) / 4096) as PhysPage, 16, "shared");
    whole.encryption!.convert((physOf(b) / 4096) as PhysPage, 16, "shared");
    expect(whole.encryption!.privateDevicePages).toBe(0);
  });
});
