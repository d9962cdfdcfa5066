/** Devices that write to each other: nothing is lost if all pass through a p2p state first, and another order is found out. */
import { describe, expect, test } from "vitest";
import { DeviceMigration, type MovableDevice, PeerStopCheck, runAll, stopAll } from "../../src/consumers/vfio/index.ts";
import { NIC_FUNCTION_REGISTER, NIC_INBOX } from "../../src/layouts/nic/index.ts";
import { type Stand, type StandFunction, stand } from "./stand.ts";

/** Two functions of one card, each with the other's inbox as its peer; and who watches them. */
function pair(): { place: Stand; a: StandFunction; b: StandFunction; check: PeerStopCheck; devices: MovableDevice[] } {
  const place = stand({ card: { functions: 2 } });
  const [a, b] = place.functions as [StandFunction, StandFunction];
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const inbox = to.device.node.bars[0]!.busAddress + NIC_INBOX;
    from.device.bar(0)!.write32(NIC_FUNCTION_REGISTER.PEER_LOW, inbox % 2 ** 32);
    from.device.bar(0)!.write32(NIC_FUNCTION_REGISTER.PEER_HIGH, Math.floor(inbox / 2 ** 32));
  }
  const check = new PeerStopCheck();
  const devices = place.functions.map(({ driver }, i) => ({
    name: "ab"[i]!,
    migration: new DeviceMigration(driver, { onStep: check.watch("ab"[i]!) }),
    reset() {},
  }));
  return { place, a, b, check, devices };
}

/** Each writes to the other, whatever its state; what one took and the other did not get. */
const chatter = (a: StandFunction, b: StandFunction): number => {
  for (const each of [a, b]) each.model.sendToPeer(new Uint8Array([1, 2, 3]));
  return a.model.lostPeerWrites + b.model.lostPeerWrites;
};

describe("two devices that write to each other", () => {
  test("reach each other", () => {
    const { a, b } = pair();
    expect(chatter(a, b)).toBe(0);
    expect([...b.model.memory.subarray(0, 3)]).toEqual([1, 2, 3]);
  });

  test("stop without loss when both pass through a p2p state first", () => {
    const { place, a, b, check, devices } = pair();
    // Between any two steps of one, the other does what it may.
    for (const each of place.functions) {
      const take = each.driver.takeArc.bind(each.driver);
      each.driver.takeArc = (from, to) => {
        chatter(a, b);
        return take(from, to);
      };
    }
    stopAll(devices);
    expect(chatter(a, b)).toBe(0);
    expect(check.findings).toEqual([]);
    runAll(devices);
    expect(chatter(a, b)).toBe(0);
    expect(a.model.sendToPeer(new Uint8Array(1))).toBe(true);
  });

  test("lose what is written to the one that stops first, if the other has not been asked to be quiet; that is noticed", () => {
    const { a, b, check, devices } = pair();
    devices[0]!.migration.setState("stop");
    expect(chatter(a, b)).toBe(1);
    expect(check.findings).toEqual([{ stopped: "a", peer: "b" }]);
    devices[1]!.migration.setState("stop");
    expect(check.findings).toHaveLength(1);
  });

  test("are not noticed when the other one began nothing any more", () => {
    const { check, devices } = pair();
    devices[1]!.migration.setState("running-p2p");
    devices[0]!.migration.setState("stop");
    expect(check.findings).toEqual([]);
  });

  test("without p2p states cannot stop in a good order, and that is noticed", () => {
    const place = stand({ card: { functions: 2, migrationFlags: 1 } });
    const check = new PeerStopCheck();
    const devices = place.functions.map(({ driver }, i) => ({
      name: "ab"[i]!,
      migration: new DeviceMigration(driver, { onStep: check.watch("ab"[i]!) }),
      reset() {},
    }));
    stopAll(devices);
    expect(check.findings).toEqual([{ stopped: "a", peer: "b" }]);
  });
});
