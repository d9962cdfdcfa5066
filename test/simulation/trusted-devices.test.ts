/**
 * Trusted devices from seeds, and the tests of that test: a defect of each kind, planted in hardware, firmware or guest, must be
 * found.
 */
import { afterEach, describe, expect, test, vi } from "vitest";
import { Contract, type TeeDevice } from "../../src/consumers/tee/index.ts";
import { ConfidentialMemory } from "../../src/dma/index.ts";
import { GuestInterface, type SecureFunction, sha256, type TeeMachine } from "../../src/hosts/simulated/tee/index.ts";
import { type PlantedParts, shortestStory, tee } from "../../src/simulation/index.ts";
import { LONG, many } from "../effort.ts";

const seeds = many(15);

describe("trusted devices from seeds", () => {
  test(`seeds 1..${seeds} keep every promise`, { timeout: 180_000 }, async () => {
    for (let seed = 1; seed <= seeds; seed++) {
      const { violation } = await tee.run(tee.plan(seed));
      expect([seed, violation?.message]).toEqual([seed, undefined]);
    }
  });

  test("a seed is a run: the same steps, the same events, the same bytes", async () => {
    expect(tee.plan(7)).toEqual(tee.plan(7));
    expect(await tee.run(tee.plan(7))).toEqual(await tee.run(tee.plan(7)));
    expect(tee.plan(8)).not.toEqual(tee.plan(7));
  });

  test("between them, a hundred seeds switch on every attack, and let devices in, move secrets and lose trust often", {
    timeout: 60_000,
  }, async () => {
    const plans = Array.from({ length: 100 }, (_, i) => tee.plan(i + 1));
    expect(new Set(plans.flatMap(({ config }) => config.attacks)).size).toBe(18);
    const sum = { starts: 0, trusted: 0, plain: 0, refused: 0, peers: 0 };
    const losses = new Set<string>();
    for (const plan of plans.slice(0, 40)) {
      let machine: TeeMachine | undefined;
      const devices: TeeDevice[] = [];
      const trust: PlantedParts["trust"] = (world) => {
        machine = world.tee;
        const { guests } = world as unknown as { guests: { software: { addDevice(options: unknown): TeeDevice } }[] };
        for (const { software } of guests) {
          const add = software.addDevice.bind(software);
          software.addDevice = (options) => {
            const device = add(options);
            devices.push(device);
            return device;
          };
        }
      };
      expect((await tee.run(plan, { parts: { trust } })).violation).toBeUndefined();
      sum.trusted += machine!.gate.passed.trusted;
      sum.plain += machine!.gate.passed.plain;
      sum.refused += machine!.gate.rejected.trusted + machine!.gate.rejected.plain;
      for (const { counters } of devices) {
        sum.starts += counters.starts;
        for (const [why, count] of Object.entries(counters.losses)) if (count > 0) losses.add(why);
      }
    }
    expect(sum.starts).toBeGreaterThan(100);
    expect(sum.trusted).toBeGreaterThan(500);
    expect(sum.plain).toBeGreaterThan(200);
    expect(sum.refused).toBeGreaterThan(100);
    expect(losses).toEqual(new Set(["interface", "stream", "fault", "gone"]));
  });
});

const EVIDENCE = GuestInterface.prototype.evidence;

/** Which defect, how it is planted, and which promises it may break. */
const DEFECTS: readonly { name: string; plant: (tee: TeeMachine) => void; oracles: readonly string[] }[] = [
  {
    name: "requests without the T bit reach private memory",
    oracles: ["secret", "trust"],
    plant: ({ gate }) => {
      gate.arrive = () => undefined;
    },
  },
  {
    name: "packets cross as they are",
    oracles: ["secret"],
    plant: ({ wire }) => {
      const cross = wire.cross.bind(wire);
      wire.cross = (from, to, packet, bytes) => cross(from, to, { ...packet, stream: undefined }, bytes);
    },
  },
  {
    name: "a page is not scrubbed when it is converted",
    oracles: ["secret"],
    plant: ({ machine }) => {
      machine.dram.scrub = () => {};
    },
  },
  {
    name: "a device keeps what a guest brought",
    oracles: ["secret"],
    plant: (machine) =>
      everyFunction(machine, ({ pci: { model } }) => {
        model.scrub = () => model.reset();
      }),
  },
  {
    name: "a device does not see that its configuration was written",
    oracles: ["trust"],
    plant: (machine) =>
      everyFunction(machine, ({ interface: tdi }) => {
        tdi.configurationWritten = () => {};
      }),
  },
  {
    name: "a device does not see that its stream is lost",
    oracles: ["trust", "bytes"],
    plant: (machine) =>
      everyFunction(machine, ({ interface: tdi }) => {
        tdi.streamLost = () => {};
      }),
  },
  {
    name: "a device in ERROR goes on inside the trust",
    oracles: ["trust", "teardown"],
    plant: (machine) => {
      vi.spyOn(GuestInterface.prototype, "detach").mockImplementation(() => {});
      everyFunction(machine, ({ interface: tdi }) => {
        tdi.departure = (isShared) => ({ trusted: tdi.state !== "configUnlocked" && !isShared });
      });
    },
  },
  {
    name: "the unit for requests inside the trust does not forget",
    oracles: ["teardown", "trust", "bytes", "secret"],
    plant: (machine) => {
      for (const { unit } of machine.guests) unit.invalidateRange = () => {};
    },
  },
  {
    name: "a door from before goes on mapping",
    oracles: ["secret", "trust", "bytes"],
    plant: () => void vi.spyOn(Contract.prototype, "end").mockImplementation(() => {}),
  },
  {
    name: "the manager endorses what the host delivers",
    oracles: ["trust"],
    plant: () => {
      vi.spyOn(GuestInterface.prototype, "evidence").mockImplementation(async function (this: GuestInterface, nonce) {
        const found = await EVIDENCE.call(this, nonce);
        const { report, measurements, certificates } = found.evidence;
        const digests = {
          report: sha256(report),
          measurements: sha256(measurements),
          certificates: sha256(certificates),
        };
        return { ...found, endorsement: { ...found.endorsement, digests } };
      });
    },
  },
  {
    name: "the guest does not count what devices reach",
    oracles: ["trust"],
    plant: () => void vi.spyOn(ConfidentialMemory.prototype, "mapped").mockImplementation(() => {}),
  },
  {
    name: "devices reach each other without being bound",
    oracles: ["secret", "trust"],
    plant: (machine) => {
      const arrive = machine.gate.arrive.bind(machine.gate);
      machine.gate.arrive = (arrival) => (arrival.peer ? undefined : arrive(arrival));
      const carry = machine.gate.carry.bind(machine.gate);
      machine.gate.carry = (arrival, bytes, move) => {
        if (!arrival.peer) return carry(arrival, bytes, move);
        move(bytes);
        return undefined;
      };
    },
  },
];

/** From now on each function that is plugged in is changed. */
function everyFunction(machine: TeeMachine, change: (fn: SecureFunction) => void): void {
  const plug = machine.plug.bind(machine);
  machine.plug = (...given) => {
    const device = plug(...given);
    for (const fn of device.functions) change(fn);
    return device;
  };
}

describe.runIf(LONG)("a planted defect is found, and cut down to a short story", () => {
  afterEach(() => vi.restoreAllMocks());

  for (const { name, plant, oracles } of DEFECTS)
    test(name, { timeout: 180_000 }, async () => {
      const options = { parts: { trust: (world: { tee: TeeMachine }) => plant(world.tee) } };
      for (let seed = 1; seed <= 60; seed++) {
        const plan = tee.plan(seed);
        const { violation } = await tee.run(plan, options);
        if (!violation) continue;
        expect(oracles).toContain(violation.oracle);
        const { plan: cut } = await shortestStory(tee, plan, options);
        expect(cut.steps.length).toBeLessThanOrEqual(plan.steps.length / 2);
        return;
      }
      expect.fail("60 seeds did not find it");
    });
});
