/**
 * One device on the move: its state, the steps to another, the session that is open, and resets.
 *
 * Idea: a program names the state it wants; the way there is taken arc by arc. A session (one data file) begins with the
 * arc that opens it, goes on inside the states that give out data, and ends with the arc that leaves them.
 * Promises: on failure the state is the last one that was reached, or `error` if the driver could not take its arc back; a
 * file comes only when the last step opened one. A reset in the middle of a change is done when the change is.
 * Specified by: behaviour of Linux 7.2 VFIO (device state feature, reset of migrating devices).
 */
import { MIGRATION_FLAGS, type MigrationState } from "../../../layouts/uapi/index.ts";
import type { MigratableDevice } from "../../../platform/index.ts";
import { DataFile, type SessionOwner } from "./data-file.ts";
import { noPreCopyFlags, noWay, strayStream } from "./errors.ts";
import { isSaving, nextState } from "./states.ts";

/** Who hears of states. */
export interface DeviceMigrationOptions {
  /** Hears of every state that is entered, one by one, also by a reset. Must not throw. */
  readonly onStep?: (state: MigrationState) => void;
}

/** The migration state of one device, and the session that is open. */
export class DeviceMigration implements SessionOwner {
  readonly #device: MigratableDevice;
  readonly #onStep: ((state: MigrationState) => void) | undefined;
  #state: MigrationState = "running";
  #session: DataFile | undefined;
  #isChanging = false;
  #resetWaits = false;
  #saysBeganAnew = false;

  /** The device runs at first. */
  constructor(device: MigratableDevice, options: DeviceMigrationOptions = {}) {
    this.#device = device;
    this.#onStep = options.onStep;
  }

  /** Bits of MIGRATION_FLAGS. */
  get flags(): number {
    return this.#device.migrationFlags;
  }

  /** The last state that was reached. */
  get state(): MigrationState {
    return this.#state;
  }

  /** Data files say when the device began anew. Stays on, resets notwithstanding. */
  get saysBeganAnew(): boolean {
    return this.#saysBeganAnew;
  }

  /** @throws DmaError ERR_DMA_MIGRATION_FEATURE (EINVAL) if the device does not pre-copy */
  sayBeganAnew(): void {
    if ((this.flags & MIGRATION_FLAGS.PRE_COPY) === 0) throw noPreCopyFlags();
    this.#saysBeganAnew = true;
  }

  /** Bytes that stopping and copying would move, about. @throws DmaError what the device says */
  stopCopyLength(): number {
    return this.#device.stopCopyLength();
  }

  /**
   * Takes the device to `target`, through all states that lie on the way. If it is there already nothing happens.
   *
   * @returns the data file, if the last step opened a session
   * @throws DmaError ERR_DMA_MIGRATION_STATE (EINVAL) if there is no way; what the device says of an arc
   */
  setState(target: MigrationState): DataFile | undefined {
    if (target === "error") throw noWay(this.#state, target, this.flags);
    let file: DataFile | undefined;
    this.#isChanging = true;
    try {
      while (this.#state !== target) {
        const next = nextState(this.#state, target, this.flags);
        if (next === undefined) throw noWay(this.#state, target, this.flags);
        file = this.#step(next);
        if (file && next !== target) {
          file.end();
          this.#session = undefined;
          throw strayStream(this.#state, target);
        }
      }
    } finally {
      this.#isChanging = false;
      if (this.#resetWaits) this.reset();
    }
    return file;
  }

  /** The device has been reset: it runs, and its session is over. In the middle of a change: when that is done. */
  reset(): void {
    this.#resetWaits = this.#isChanging;
    if (this.#resetWaits) return;
    this.#endSession();
    this.#device.wasReset();
    this.#enter("running");
  }

  #step(next: MigrationState): DataFile | undefined {
    const from = this.#state;
    let stream: ReturnType<MigratableDevice["takeArc"]>;
    try {
      stream = this.#device.takeArc(from, next);
    } catch (error) {
      if (this.#device.isBroken) {
        this.#endSession();
        this.#enter("error");
      }
      throw error;
    }
    if (from === "resuming" || (isSaving(from) && !isSaving(next))) this.#endSession();
    this.#enter(next);
    if (stream === undefined) return undefined;
    this.#session = new DataFile(stream, this);
    return this.#session;
  }

  #enter(state: MigrationState): void {
    this.#state = state;
    this.#onStep?.(state);
  }

  #endSession(): void {
    this.#session?.end();
    this.#session = undefined;
  }
}
