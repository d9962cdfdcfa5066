/** One device on the move: sessions, failures on the way, resets. */
import { describe, expect, test } from "vitest";
import { DmaError } from "../../../base/index.ts";
import { BareDevice, SerialCard } from "../../../hosts/simulated/index.ts";
import type { MigrationState } from "../../../layouts/uapi/index.ts";
import { DeviceMigration } from "./device-migration.ts";

const errnoOf = (call: () => unknown): string | undefined => {
  try {
    call();
    return undefined;
  } catch (error) {
    return (error as DmaError).errno;
  }
};

describe("a change of state", () => {
  test("to where the device is already does nothing, and gives no file", () => {
    const migration = new DeviceMigration(new SerialCard());
    expect(migration.setState("running")).toBeUndefined();
    migration.setState("stop-copy");
    expect(migration.setState("stop-copy")).toBeUndefined();
  });

  test("gives a file when its last step opens a session, and goes on with the old one from copying to the last copy", () => {
    const migration = new DeviceMigration(new SerialCard());
    const file = migration.setState("pre-copy");
    expect(file).toBeDefined();
    expect(migration.setState("pre-copy-p2p")).toBeUndefined();
    expect(migration.setState("stop-copy")).toBeUndefined();
    expect(file!.isOver).toBe(false);
    expect(migration.setState("resuming")).toBeDefined();
    expect(file!.isOver).toBe(true);
  });

  test("that fails on the way stays at the last state that was reached", () => {
    const device = new BareDevice();
    const take = device.takeArc.bind(device);
    device.takeArc = (from, to) => {
      if (to === "stop") throw new DmaError("ERR_DMA_TEST", "EIO", "no");
      return take(from, to);
    };
    const steps: MigrationState[] = [];
    const migration = new DeviceMigration(device, { onStep: (state) => steps.push(state) });
    expect(errnoOf(() => migration.setState("stop-copy"))).toBe("EIO");
    expect([migration.state, steps]).toEqual(["running-p2p", ["running-p2p"]]);
  });

  test("whose driver opens a stream too early is refused, and the stream is over", () => {
    let isOver = false;
    const device = new BareDevice();
    device.takeArc = () => ({
      read: () => 0,
      end() {
        isOver = true;
      },
    });
    const migration = new DeviceMigration(device);
    expect(errnoOf(() => migration.setState("stop"))).toBe("EINVAL");
    expect([isOver, migration.state]).toEqual([true, "running-p2p"]);
  });

  test("that cannot be taken back leaves error: nothing leads out of it but a reset", () => {
    const device = Object.assign(new BareDevice(), { isBroken: false });
    device.takeArc = () => {
      device.isBroken = true;
      throw new DmaError("ERR_DMA_TEST", "EIO", "no");
    };
    const migration = new DeviceMigration(device);
    expect(errnoOf(() => migration.setState("stop"))).toBe("EIO");
    for (const state of ["running", "stop", "error"] as const)
      expect(errnoOf(() => migration.setState(state))).toBe("EINVAL");
    expect(migration.state).toBe("error");
    migration.reset();
    expect(migration.state).toBe("running");
  });
});

describe("a reset", () => {
  test("in every state leads to running and ends the session", () => {
    for (const state of ["stop", "stop-copy", "resuming", "running-p2p", "pre-copy", "pre-copy-p2p"] as const) {
      const migration = new DeviceMigration(new SerialCard());
      const file = migration.setState(state);
      migration.reset();
      expect([migration.state, file?.isOver ?? true]).toEqual(["running", true]);
    }
  });

  test("in the middle of a change is done when the change is", () => {
    const device = new BareDevice();
    const steps: MigrationState[] = [];
    const migration = new DeviceMigration(device, { onStep: (state) => steps.push(state) });
    const take = device.takeArc.bind(device);
    device.takeArc = (from, to) => {
      if (to === "stop") migration.reset();
      return take(from, to);
    };
    const file = migration.setState("stop-copy");
    expect(steps).toEqual(["running-p2p", "stop", "stop-copy", "running"]);
    expect([migration.state, file!.isOver]).toEqual(["running", true]);
  });
});

describe("a data file", () => {
  test("goes one way, has no positions, and outlives its session", () => {
    const migration = new DeviceMigration(new SerialCard());
    const save = migration.setState("stop-copy")!;
    expect([save.direction, errnoOf(() => save.write(new Uint8Array(1))), errnoOf(() => save.seek())]).toEqual([
      "save",
      "EBADF",
      "ESPIPE",
    ]);
    const load = migration.setState("resuming")!;
    expect([load.direction, errnoOf(() => load.read(new Uint8Array(1)))]).toEqual(["load", "EBADF"]);
    expect([errnoOf(() => save.read(new Uint8Array(1))), save.isReady]).toEqual(["ENODEV", true]);
    migration.reset();
    expect(errnoOf(() => load.write(new Uint8Array(1)))).toBe("ENODEV");
  });

  test("that is closed changes nothing: the session goes on", () => {
    const migration = new DeviceMigration(new SerialCard());
    const file = migration.setState("pre-copy")!;
    file.acquire();
    file.release();
    file.release();
    expect([file.holders, migration.state, file.isOver]).toEqual([0, "pre-copy", false]);
  });

  test("says how much there is in the pre-copy states only, and one to write never does", () => {
    const migration = new DeviceMigration(new SerialCard());
    const save = migration.setState("pre-copy")!;
    expect(save.preCopyInfo().initialBytes).toBe(24);
    migration.setState("stop-copy");
    expect(errnoOf(() => save.preCopyInfo())).toBe("EINVAL");
    const load = migration.setState("resuming")!;
    expect(errnoOf(() => load.preCopyInfo())).toBe("ENOTTY");
    migration.reset();
    migration.setState("pre-copy");
    expect(errnoOf(() => save.preCopyInfo())).toBe("ENODEV"); // of another session
  });
});

test("who opts in to hear of a new beginning needs a device that pre-copies; resets do not change it", () => {
  const migration = new DeviceMigration(new BareDevice({ migrationFlags: 7 }));
  migration.sayBeganAnew();
  migration.reset();
  expect(migration.saysBeganAnew).toBe(true);
  expect(errnoOf(() => new DeviceMigration(new BareDevice({ migrationFlags: 3 })).sayBeganAnew())).toBe("EINVAL");
});
