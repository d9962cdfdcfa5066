/** Peer-to-peer: routes by the tree, what is remembered of them, and chunks against a byte-by-byte model. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PhysAddr, Random } from "../base/index.ts";
import { ACS } from "../layouts/pci/index.ts";
import type { HostBridge, PciBar, PciNode } from "../platform/index.ts";
import { chunksOf, eachPart, P2pRouter, routeBetween } from "./index.ts";

interface Node extends PciNode {
  acsControl: number;
}

const bridge = (family: number, vendor = "Other", deviceId = 1): HostBridge => ({
  segment: 0,
  vendorId: 0x1234,
  deviceId,
  cpu: { vendor, family },
});

let requester = 0;
const node = (parent: PciNode | undefined, hostBridge: HostBridge = parent?.hostBridge ?? bridge(6)): Node => ({
  requester: requester++,
  kind: "endpoint",
  parent,
  hostBridge,
  acsControl: 0,
  present: true,
  externalFacing: false,
});

/** A root port, a switch with two downstream ports, an endpoint below each; a second root port with two functions. */
function tree(hostBridge: HostBridge) {
  const rootPort = node(undefined, hostBridge);
  const upstream = node(rootPort);
  const downstream = [node(upstream), node(upstream)] as const;
  const [a, b] = [node(downstream[0]), node(downstream[1])];
  const otherPort = node(undefined, hostBridge);
  const functions = [node(otherPort), node(otherPort)] as const;
  return { rootPort, upstream, downstream, a, b, otherPort, functions };
}

const bar = (phys: number, length = 0x1_0000, busAddress = phys): PciBar => ({
  index: 0,
  phys: PhysAddr(phys),
  length,
  busAddress,
});

describe("the way between two devices", () => {
  test("below one bridge is its bus, and through the host bridge only if the processor routes", () => {
    const { a, b, functions } = tree(bridge(6));
    expect(routeBetween(a, a, [])).toEqual({ type: "bus-address", steps: 0 });
    expect(routeBetween(functions[0], functions[1], [])).toEqual({ type: "bus-address", steps: 2 });
    expect(routeBetween(a, b, [])).toEqual({ type: "bus-address", steps: 4 });
    expect(routeBetween(a, functions[0], [])).toEqual({ type: "not-supported", steps: 6 });
  });

  test("AMD processors route from family 0x17 on", () => {
    const type = (family: number, vendor: string): string => {
      const { a, functions } = tree(bridge(family, vendor));
      return routeBetween(a, functions[0], []).type;
    };
    expect([type(0x16, "AMD"), type(0x17, "AMD"), type(0x1a, "AMD"), type(0x17, "Other")]).toEqual([
      "not-supported",
      "through-host-bridge",
      "through-host-bridge",
      "not-supported",
    ]);
  });

  test("a listed host bridge routes; between two of them only if both are listed for that", () => {
    const [left, right, near] = [bridge(6, "Other", 1), bridge(6, "Other", 2), bridge(6, "Other", 3)];
    const allowed = [
      { vendorId: 0x1234, deviceId: 1 },
      { vendorId: 0x1234, deviceId: 3, sameBridgeOnly: true },
    ];
    const type = (a: HostBridge, b: HostBridge): string =>
      routeBetween(node(undefined, a), node(undefined, b), allowed).type;
    expect([type(left, left), type(near, near), type(right, right)]).toEqual([
      "through-host-bridge",
      "through-host-bridge",
      "not-supported",
    ]);
    expect([type(left, near), type(near, left), type(left, right)]).toEqual(new Array(3).fill("not-supported"));
    expect(type(left, bridge(6, "Other", 1))).toBe("through-host-bridge");
  });

  test.each([
    ["requestRedirect", true],
    ["completionRedirect", true],
    ["egressControl", true],
    ["sourceValidation", false],
    ["translationBlocking", false],
    ["upstreamForwarding", false],
    ["directTranslated", false],
  ] as const)("%s on any port of the way, the common one included, sends it up: %s", (bit, up) => {
    const { upstream, downstream, a, b, rootPort } = tree(bridge(0x17, "AMD"));
    for (const port of [upstream, downstream[0], downstream[1], a, b]) {
      port.acsControl = ACS[bit];
      expect(routeBetween(a, b, []).type).toBe(up ? "through-host-bridge" : "bus-address");
      port.acsControl = 0;
    }
    rootPort.acsControl = ACS[bit];
    expect(routeBetween(a, b, []).type).toBe("bus-address");
  });
});

describe("what is remembered", () => {
  test("a type stays though access control changes, until the distance is asked", () => {
    const { a, b, downstream } = tree(bridge(0x17, "AMD"));
    const router = new P2pRouter();
    const provider = router.add(a, bar(0x10_0000));
    expect(router.mapType(provider, b)).toBe("bus-address");
    downstream[1].acsControl = ACS.requestRedirect;
    expect(router.mapType(provider, b)).toBe("bus-address");
    expect(router.distance(a, b)).toBe(4);
    expect(router.mapType(provider, b)).toBe("through-host-bridge");
  });

  test("with followAcs nothing stays", () => {
    const { a, b, downstream } = tree(bridge(6));
    const router = new P2pRouter({ followAcs: true });
    const provider = router.add(a, bar(0x10_0000));
    expect(router.mapType(provider, b)).toBe("bus-address");
    downstream[1].acsControl = ACS.requestRedirect;
    expect(router.mapType(provider, b)).toBe("not-supported");
    expect(router.distance(a, b)).toBe(-1);
    downstream[1].acsControl = 0;
    expect(router.mapType(provider, b)).toBe("bus-address");
  });

  test("a provider that went is forgotten, and its address is nobody's", () => {
    const { a, b, downstream } = tree(bridge(6));
    const router = new P2pRouter();
    const provider = router.add(a, bar(0x10_0000));
    router.mapType(provider, b);
    expect(router.providerOf(PhysAddr(0x10_0000))).toBe(provider);
    router.remove(provider);
    router.remove(provider);
    expect(router.providerOf(PhysAddr(0x10_0000))).toBeUndefined();
    downstream[0].acsControl = ACS.requestRedirect;
    expect(router.mapType(router.add(a, bar(0x10_0000)), b)).toBe("not-supported");
  });

  test("a client that is no PCI device reaches nothing", () => {
    const router = new P2pRouter();
    const provider = router.add(node(undefined), bar(0x10_0000));
    expect([router.mapType(provider, undefined), router.distance(provider.owner, undefined)]).toEqual([
      "not-supported",
      -1,
    ]);
  });
});

describe("providers", () => {
  test("the nearest to all clients is found among the published; chance decides between equals", () => {
    const { a, b, functions, downstream } = tree(bridge(0x17, "AMD"));
    const [third, fourth] = [node(downstream[0]), node(downstream[1])];
    const router = new P2pRouter();
    router.add(third, bar(0x10_0000), true);
    router.add(fourth, bar(0x20_0000), true);
    router.add(b, bar(0x30_0000));
    expect(router.nearest([a])).toBe(third);
    expect(router.nearest([b])).toBe(fourth);
    expect(router.nearest([a, b])).toBe(third);
    const random = Random.fromSeed(1);
    expect(new Set(Array.from({ length: 40 }, () => router.nearest([a, b], random)))).toEqual(new Set([third, fourth]));
    expect(router.nearest([a, undefined])).toBeUndefined();
    expect(new P2pRouter().nearest([functions[0]])).toBeUndefined();
  });

  test("put the bus offset on an address", () => {
    const provider = new P2pRouter().add(node(undefined), bar(0x80_0000_0000, 0x1000, 0xe000_0000));
    expect(provider.busAddress(PhysAddr(0x80_0000_0123))).toBe(0xe000_0123);
  });

  test("may not overlap, and are whole pages", () => {
    const router = new P2pRouter();
    const owner = node(undefined);
    router.add(owner, bar(0x2000, 0x2000));
    for (const [phys, length] of [
      [0x1000, 0x2000],
      [0x3000, 0x1000],
      [0x1000, 0x8000],
      [0x2000, 0x1000],
    ] as const)
      expect(() => router.add(owner, bar(phys, length))).toThrow(
        expect.objectContaining({ code: "ERR_DMA_P2P_OVERLAP" }),
      );
    for (const [phys, length] of [
      [0x8800, 0x1000],
      [0x8000, 0x800],
      [0x8000, 0],
      [2 ** 52 - 4096, 8192],
    ] as const)
      expect(() => router.add(owner, bar(phys, length))).toThrow(expect.objectContaining({ code: "ERR_DMA_P2P_BAR" }));
    router.add(owner, bar(0x1000, 0x1000));
    router.add(owner, bar(0x4000, 0x1000));
    expect(router.providers.map(({ bar: { phys } }) => phys)).toEqual([0x1000, 0x2000, 0x4000]);
  });
});

describe("chunks", () => {
  const P = 4096;
  /** Pages 0..31: RAM, two adjacent BARs, RAM, a BAR of the first device, RAM. */
  const ownerOfPage = (page: number): number =>
    page < 8 ? 0 : page < 12 ? 1 : page < 14 ? 2 : page < 20 ? 0 : page < 22 ? 3 : 0;

  test("are cut exactly where the provider changes, also inside a range, and add up to the list", () =>
    fc.assert(
      fc.property(
        fc.array(
          fc.record({ page: fc.nat(31), offset: fc.nat(4095), length: fc.oneof(fc.constant(0), fc.nat(20_000)) }),
          { maxLength: 12 },
        ),
        (picks) => {
          const router = new P2pRouter();
          const client = node(undefined);
          const providers = [
            undefined,
            router.add(client, bar(8 * P, 4 * P)),
            router.add(node(undefined), bar(12 * P, 2 * P)),
            router.add(client, bar(20 * P, 2 * P)),
          ];
          const ranges = picks.map(({ page, offset, length }) => ({ phys: PhysAddr(page * P + offset), length }));
          const chunks = chunksOf(ranges, router, client);
          const bytes: number[] = [];
          for (const chunk of chunks) {
            let total = 0;
            eachPart(ranges, chunk, (phys, length) => {
              total += length;
              for (let at = 0; at < length; at += 1) bytes.push(phys + at);
              for (const each of [phys, phys + length - 1])
                expect(providers[ownerOfPage(Math.floor(each / P))]).toBe(chunk.provider);
            });
            expect(total).toBe(chunk.length);
          }
          expect(bytes).toEqual(ranges.flatMap(({ phys, length }) => Array.from({ length }, (_, at) => phys + at)));
          for (let i = 1; i < chunks.length; i++) expect(chunks[i]!.provider).not.toBe(chunks[i - 1]!.provider);
          for (const { type, provider } of chunks)
            expect(type).toBe(
              provider === undefined ? "none" : provider.owner === client ? "bus-address" : "not-supported",
            );
        },
      ),
      { numRuns: 100 },
    ));

  test("the way is worked out once per chunk, however many pages", () => {
    let asked = 0;
    class Counting extends P2pRouter {
      override mapType(...args: Parameters<P2pRouter["mapType"]>): ReturnType<P2pRouter["mapType"]> {
        asked++;
        return super.mapType(...args);
      }
    }
    const router = new Counting();
    const client = node(undefined);
    router.add(client, bar(8 * P, 4 * P));
    const ranges = Array.from({ length: 300 }, (_, i) => ({
      phys: PhysAddr((i < 100 || i >= 200 ? 0 : 8) * P),
      length: P,
    }));
    expect(chunksOf(ranges, router, client).map(({ length }) => length / P)).toEqual([100, 100, 100]);
    expect(asked).toBe(1);
  });

  test("a state is looked up again only for another provider, and RAM leaves it alone", () => {
    const router = new P2pRouter();
    const { a, b, downstream } = tree(bridge(6));
    const provider = router.add(a, bar(8 * P, P));
    const state = { type: undefined, provider: undefined };
    expect([router.stateOf(state, PhysAddr(0), b), state]).toEqual(["none", { type: undefined, provider: undefined }]);
    expect(router.stateOf(state, PhysAddr(8 * P), b)).toBe("bus-address");
    downstream[0].acsControl = ACS.requestRedirect;
    router.distance(a, b);
    expect(router.stateOf(state, PhysAddr(8 * P), b)).toBe("bus-address");
    expect(router.stateOf(state, PhysAddr(0), b)).toBe("none");
    expect(state).toEqual({ type: "bus-address", provider });
  });
});
