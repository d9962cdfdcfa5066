/** The PCI tree: numbering, slots, access control, removal. */
import { describe, expect, test } from "vitest";
import { ACS } from "../../layouts/pci/index.ts";
import { SimulatedPciTree } from "./index.ts";

/** A slot, a switch with two slots and a switch below, and a second root complex with one slot. */
const tree = (): SimulatedPciTree =>
  new SimulatedPciTree([
    { rootPorts: [{}, { switch: [{}, {}, { switch: [{}] }] }, { externalFacing: true }] },
    { segment: 1, rootPorts: [{ acsCapability: 0x5f, acsControl: 0xff }] },
  ]);

describe("a tree from a description", () => {
  test("numbers buses depth first, and requesters by bus, device and function", () => {
    expect([...tree().nodes()].map(({ name, kind }) => `${name} ${kind}`)).toEqual([
      "0000:00:01.0 root-port",
      "0000:00:02.0 root-port",
      "0000:02:00.0 upstream-port",
      "0000:03:00.0 downstream-port",
      "0000:03:01.0 downstream-port",
      "0000:03:02.0 downstream-port",
      "0000:06:00.0 upstream-port",
      "0000:07:00.0 downstream-port",
      "0000:00:03.0 root-port",
      "0001:00:01.0 root-port",
    ]);
  });

  test("has a slot on each root bus and at each port without a switch", () => {
    expect(tree().slots).toEqual(["0", "0.0", "0.1.0", "0.1.1", "0.1.2.0", "0.2", "1", "1.0"]);
  });

  test("keeps of access control what the port is able to do", () => {
    const port = tree().node(0x1_0008)!;
    expect(port.acsControl).toBe(0x5f);
    port.acsControl = ACS.egressControl | ACS.requestRedirect;
    expect(port.acsControl).toBe(ACS.requestRedirect);
    const upstream = tree().node(0x200)!;
    upstream.acsControl = 0x7f;
    expect(upstream.acsControl).toBe(0);
  });

  test("two root complexes are two host bridges; AMD from family 0x17 on passes peer requests on", () => {
    const bridges = new SimulatedPciTree([
      {},
      { cpu: { vendor: "AMD", family: 0x17 } },
      { cpu: { vendor: "AMD", family: 0x17 }, routesPeers: false },
      { routesPeers: true },
    ]).hostBridges;
    expect(bridges.map(({ routesPeers }) => routesPeers)).toEqual([false, true, false, true]);
    expect(bridges.map(({ bus }) => bus)).toEqual([0, 1, 2, 3]);
  });
});

describe("devices", () => {
  test("sit in a slot with all their functions, or on a root bus beside others", () => {
    const machine = tree();
    const functions = machine.plug("0.1.2.0", 2);
    expect(functions.map(({ name }) => name)).toEqual(["0000:08:00.0", "0000:08:00.1"]);
    const above: string[] = [];
    for (let node = functions[0]!.parent; node; node = node.parent) above.push(node.name);
    expect(above).toEqual(["0000:07:00.0", "0000:06:00.0", "0000:03:02.0", "0000:02:00.0", "0000:00:02.0"]);
    expect([machine.plug("0")[0]!, machine.plug("0")[0]!].map(({ name, kind }) => [name, kind])).toEqual([
      ["0000:00:04.0", "root-endpoint"],
      ["0000:00:05.0", "root-endpoint"],
    ]);
    expect(machine.node(0x801)).toBe(functions[1]);
  });

  test("are refused where there is no slot, or no room", () => {
    const machine = tree();
    expect(() => machine.plug("0.7")).toThrow(expect.objectContaining({ code: "ERR_DMA_SIM_NO_SLOT" }));
    machine.plug("0.0");
    expect(() => machine.plug("0.0")).toThrow(expect.objectContaining({ code: "ERR_DMA_SIM_SLOT_TAKEN" }));
  });

  test("below an external-facing port are untrusted, others are not", () => {
    const machine = tree();
    expect(machine.plug("0.2")[0]!.untrusted).toBe(true);
    expect(machine.plug("0.0")[0]!.untrusted).toBe(false);
  });

  test("pulled out are absent with all functions, and the slot is free for another", () => {
    const machine = tree();
    const [first, second] = machine.plug("0.0", 2);
    expect(machine.unplug(second!)).toEqual([first, second]);
    expect([first!.present, second!.present, machine.node(first!.requester)]).toEqual([false, false, undefined]);
    expect(machine.unplug(first!)).toEqual([]);
    const [next] = machine.plug("0.0");
    expect([next!.requester, next!.present, first!.present]).toEqual([first!.requester, true, false]);
  });

  test("go with the switch they are below, and so do its slots", () => {
    const machine = tree();
    const [device] = machine.plug("0.1.2.0");
    const gone = machine.unplug(machine.node(0x600)!);
    expect(gone.map(({ name }) => name)).toEqual(["0000:06:00.0", "0000:07:00.0", "0000:08:00.0"]);
    expect([device!.present, machine.slots.includes("0.1.2.0"), machine.slots.includes("0.1.1")]).toEqual([
      false,
      false,
      true,
    ]);
  });
});
