/** What must be refused: each of the fourteen rules, provoked, and named by its number where it is refused. */
import { describe, expect, test } from "vitest";
import { DmaAddr, type DmaError, PhysAddr } from "../../src/base/index.ts";
import { IdeBridge, IdePort } from "../../src/consumers/tee/index.ts";
import { IdeEnd } from "../../src/hosts/simulated/tee/index.ts";
import { TEE_RULES, type TeeRule } from "../../src/platform/index.ts";
import { Stand } from "./stand.ts";

/** The rule that an error names. */
async function ruleOf(work: Promise<unknown> | (() => unknown)): Promise<unknown> {
  try {
    await (typeof work === "function" ? work() : work);
    return "nothing was refused";
  } catch (error) {
    return (error as DmaError).details?.["rule"] ?? (error as Error).message;
  }
}

/** A device inside the trust, and private and shared pages. */
async function inside() {
  const stand = new Stand();
  const engine = await stand.engine();
  await stand.run(engine.device.start(stand.policy));
  const page = stand.guest.pages.allocatePages(1)!;
  stand.guest.encryption.convert(page, 1, "shared");
  return {
    stand,
    ...engine,
    secret: stand.buffer(4096, 1).phys,
    shared: PhysAddr(page * 4096),
    door: engine.device.openDma(),
  };
}

/** How each rule is broken, and who says so: an error's number, or that of an access that hardware refused. */
const BREAKERS: Readonly<Record<TeeRule, () => Promise<unknown>>> = {
  1: async () => {
    const { stand, fn, device } = await inside();
    await stand.run(device.stop());
    const tdi = stand.tee.interfaceOf(fn)!;
    const withoutLock = await stand.run(tdi.start()).catch((error: DmaError) => error.details["error"]);
    await stand.run(tdi.lock());
    await stand.run(tdi.start());
    await stand.run(tdi.stop());
    await stand.run(tdi.lock());
    const wrong = fn.interface.start(new Uint8Array(32))?.error;
    return [withoutLock, wrong, fn.interface.state];
  },
  2: async () => {
    const stand = new Stand();
    const { device } = await stand.engine();
    device.openDma().map(stand.buffer(4096).phys, 4096, "to-device");
    return ruleOf(stand.run(device.start(stand.policy)));
  },
  3: async () => {
    const { stand, fn, secret } = await inside();
    stand.tee.gate.inject(fn.node, secret, "read", true);
    return stand.tee.gate.refused.at(-1)?.rule;
  },
  4: async () => {
    const { stand, fn, secret } = await inside();
    stand.tee.gate.inject(fn.node, secret, "read", false);
    const word = new Uint8Array(4);
    const host = stand.tee.gate.access(0, fn, 0, 0, "read", word);
    return [stand.tee.gate.refused.map(({ rule }) => rule), host, [...word]];
  },
  5: async () => {
    const stand = new Stand();
    const { device } = await stand.engine();
    const legacy = device.openDma();
    await stand.run(device.start(stand.policy));
    return ruleOf(() => legacy.map(stand.buffer(4096).phys, 4096, "to-device"));
  },
  6: async () => {
    const { door, secret, stand } = await inside();
    const mapping = door.map(PhysAddr(secret + 100), 50, "bidirectional"); // as ragged as it may be
    const bounced = [door.device.bounces, stand.guest.counters.bouncedBytes];
    mapping.unmap();
    return bounced;
  },
  7: async () => {
    const { door, secret, shared } = await inside();
    return [
      await ruleOf(() => door.map(secret, 4096, "to-device", { shared: true })),
      await ruleOf(() => door.map(shared, 4096, "to-device")),
    ];
  },
  8: async () => {
    const { fn } = await inside();
    fn.pci.writeConfig(0x10, 4, 0x4000_0000);
    return fn.interface.state;
  },
  9: async () => {
    const { stand, fn } = await inside();
    return ruleOf(stand.run(stand.files.core.bind(fn, stand.tee.startGuest(), 1)));
  },
  10: async () => {
    const { stand, fn } = await inside();
    return ruleOf(
      stand.run(stand.files.core.guestRequest(fn, { scope: 2, request: new Uint8Array(0), responseBytes: 0 })),
    );
  },
  11: async () => {
    const stand = new Stand();
    const { fn, pci } = await stand.engine();
    const bars = () => fn.node.bars.map((bar) => ({ ...bar, phys: bar.phys + 4096 }));
    const device = stand.software.addDevice({ device: pci, interface: () => stand.tee.interfaceOf(fn), bars });
    return ruleOf(stand.run(device.start(stand.policy)));
  },
  12: async () => {
    const { stand, door, engine } = await inside();
    const outsider = await stand.engine("0.1");
    const phys = PhysAddr(outsider.fn.node.bars[0]!.phys);
    engine.write(DmaAddr(phys + 2 ** 51), new Uint8Array(16));
    return [await ruleOf(() => door.map(phys, 4096, "from-device", { mmio: true, shared: true }))];
  },
  13: async () => {
    const { stand, door, secret } = await inside();
    door.map(secret, 4096, "to-device");
    return ruleOf(() => stand.guest.encryption.convert((secret / 4096) as never, 1, "shared"));
  },
  14: async () => {
    const ports = [1, 2].map(
      (requester) => new IdePort({ name: `${requester}`, requester, registers: new IdeEnd({ requester }) }),
    );
    const bridge = new IdeBridge("bridge");
    bridge.allocate(ports[0]!, ports[1]!).setUp({ id: 4 });
    return ruleOf(() => bridge.allocate(ports[0]!, ports[1]!).setUp({ id: 4 }));
  },
};

const EXPECTED: Readonly<Record<TeeRule, unknown>> = {
  1: ["invalidInterfaceState", "invalidNonce", "configLocked"],
  2: 2,
  3: 3,
  4: [[4, 4], false, [255, 255, 255, 255]],
  5: 5,
  6: [0, 0],
  7: [7, 7],
  8: "error",
  9: 9,
  10: 10,
  11: 11,
  12: [12],
  13: 13,
  14: 14,
};

describe("never", () => {
  test.each(Object.entries(TEE_RULES))("%s. %s", async (number) => {
    const rule = Number(number) as TeeRule;
    expect(await BREAKERS[rule]()).toEqual(EXPECTED[rule]);
  });
});

describe("traps", () => {
  test("authenticated says that the link is secure, not that the function is trusted; and bound is not running", async () => {
    const stand = new Stand();
    const { fn, device } = await stand.engine();
    expect([stand.files.read(fn, "authenticated"), stand.files.read(fn, "tsm/bound")]).toEqual(["tsm0", "tsm0"]);
    expect([device.trust, fn.interface.state]).toEqual(["none", "configUnlocked"]);
  });

  test("secure when it was enabled says nothing later", async () => {
    const { stand, fn, device } = await inside();
    const stream = stand.driver.streamOf(fn)!;
    expect(stream.isSecure).toBe(true);
    fn.device.ide.forgetKeys();
    expect([stream.isSecure, stream.step, device.trust]).toEqual([false, "registered", "lost"]);
  });

  test("sharing belongs to the mapping and to the page: one of them alone is refused", async () => {
    const { door, secret, shared } = await inside();
    expect(await ruleOf(() => door.map(secret, 64, "to-device", { shared: true }))).toBe(7);
    expect(await ruleOf(() => door.map(shared, 64, "to-device"))).toBe(7);
    door.map(shared, 64, "to-device", { shared: true }).unmap();
    door.map(secret, 64, "to-device").unmap();
  });

  test("disconnect unbinds everybody, and a guest hears of it", async () => {
    const { stand, fn, device } = await inside();
    await stand.run(stand.files.write(fn, "tsm/disconnect", "tsm0"));
    expect([device.trust, stand.files.core.securedFunctions, stand.tee.firmware.sessions]).toEqual(["lost", 0, 0]);
  });
});
