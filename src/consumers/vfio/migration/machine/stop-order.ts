/**
 * The order in which devices that write to each other stop: first nobody begins anything, then nobody answers.
 *
 * Idea: a device in a `p2p` state begins no transfer to a peer and answers those of others. When all are in such a state nothing
 * is under way between them, and each can stop by itself. {@link PeerStopCheck} finds out who does it in another order.
 */
import { MIGRATION_FLAGS, type MigrationState } from "../../../../layouts/uapi/index.ts";
import type { DeviceMigration } from "../device-migration.ts";
import { isRunning } from "../states.ts";
import type { MovableDevice } from "./movable-machine.ts";

const has = ({ flags }: DeviceMigration, flag: number): boolean => (flags & flag) !== 0;

/**
 * Brings all devices to `stop-copy`, in the right order; sessions that are open go on. The data files that were opened, by device.
 *
 * @throws DmaError what a device says; those that have moved on stay where they are
 */
export function stopAll(
  devices: readonly MovableDevice[],
): Map<MovableDevice, ReturnType<DeviceMigration["setState"]>> {
  for (const { migration } of devices)
    if (has(migration, MIGRATION_FLAGS.P2P))
      migration.setState(migration.state === "pre-copy" ? "pre-copy-p2p" : "running-p2p");
  return new Map(devices.map((device) => [device, device.migration.setState("stop-copy")]));
}

/** Lets all devices run, in the right order: first all answer, then they begin. @throws DmaError what a device says */
export function runAll(devices: readonly MovableDevice[]): void {
  for (const { migration } of devices)
    if (has(migration, MIGRATION_FLAGS.P2P) && !isRunning(migration.state)) migration.setState("running-p2p");
  for (const { migration } of devices) migration.setState("running");
}

/** Somebody stopped while a peer could still write to it. */
export interface PeerStopFinding {
  /** Who stopped. */
  readonly stopped: string;
  /** Who could still begin transfers to it. */
  readonly peer: string;
}

/** Watches devices that write to each other, and notes who stops too early. */
export class PeerStopCheck {
  /** So far, oldest first. */
  readonly findings: PeerStopFinding[] = [];
  readonly #states = new Map<string, MigrationState>();

  /** What a device's `onStep` is to be. Names must differ. */
  watch(name: string): (state: MigrationState) => void {
    this.#states.set(name, "running");
    return (state) => {
      const before = this.#states.get(name)!;
      this.#states.set(name, state);
      if (!answers(before) || answers(state)) return;
      for (const [peer, peerState] of this.#states)
        if (peer !== name && isRunning(peerState)) this.findings.push({ stopped: name, peer });
    };
  }
}

/** A device in such a state takes what peers write. */
const answers = (state: MigrationState): boolean =>
  isRunning(state) || state === "running-p2p" || state === "pre-copy-p2p";
