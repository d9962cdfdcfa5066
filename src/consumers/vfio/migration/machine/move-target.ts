/**
 * The target of a move: it takes in memory and devices, checks that it has all, and runs when the source says go.
 *
 * Promises: it never runs before it was told to go, and never when something was missing, damaged or refused: then its
 * devices are reset, and the source is told why. Nobody waits for ever: when the link closes, the move has failed.
 * Specified by: docs/live-migration.md.
 */
import type { DataFile } from "../data-file.ts";
import { memoryDiffers, notAlike, outOfPlace } from "./errors.ts";
import { FRAME, type Frame } from "./frames.ts";
import { type ByteLink, FrameLink } from "./link.ts";
import { type Hello, helloOf, type MovableMachine } from "./movable-machine.ts";
import { checksumOf, takePages } from "./ram-frames.ts";
import { runAll } from "./stop-order.ts";

/** How a machine's coming ended. */
export type ArrivalOutcome =
  | {
      /** It runs here. */
      readonly outcome: "running";
    }
  | {
      /** It does not, and never did; its devices have been reset. */
      readonly outcome: "failed";
      /** What went wrong. */
      readonly error: unknown;
    };

/** One move of one machine, on the side that it comes to. */
export class MoveTarget {
  readonly #machine: MovableMachine;
  readonly #link: FrameLink;
  readonly #files: (DataFile | undefined)[] = [];
  #processors: Uint8Array | undefined;

  /** Does nothing before {@link run}; good for one move. */
  constructor(machine: MovableMachine, link: ByteLink) {
    this.#machine = machine;
    this.#link = new FrameLink(link);
  }

  /** Takes the machine in. Resolves always. */
  async run(): Promise<ArrivalOutcome> {
    try {
      await this.#takeIn();
      await this.#link.send(FRAME.READY);
      await this.#link.expect(FRAME.GO);
      this.#machine.processors.load(this.#processors!);
      runAll(this.#machine.devices);
    } catch (error) {
      for (const device of this.#machine.devices) device.reset();
      await this.#link.refuse(error);
      this.#link.close();
      return { outcome: "failed", error };
    }
    this.#machine.processors.resume();
    try {
      await this.#link.send(FRAME.RUNNING);
    } catch {
      // It runs here all the same: the other side does not, since it said go.
    }
    this.#link.close();
    return { outcome: "running" };
  }

  async #takeIn(): Promise<void> {
    const { devices, ram, processors } = this.#machine;
    processors.stop();
    this.#compare(await this.#link.expect(FRAME.HELLO));
    for (const { migration } of devices) this.#files.push(migration.setState("resuming"));
    await this.#link.send(FRAME.WELCOME);
    for (;;) {
      const frame = await this.#link.receive();
      if (frame.type === FRAME.END) {
        this.#end(frame);
        return;
      }
      if (frame.type === FRAME.PAGES || frame.type === FRAME.ZEROS) takePages(ram, frame);
      else if (frame.type === FRAME.DEVICE) this.#fileOf(frame).write(frame.payload);
      else if (frame.type === FRAME.DEVICE_END) this.#endDevice(frame);
      else if (frame.type === FRAME.PROCESSORS) this.#processors = frame.payload;
      else throw outOfPlace(`a frame of type ${frame.type}`);
    }
  }

  /** The device becomes what came; it says whether that was all. */
  #endDevice(frame: Frame): void {
    this.#fileOf(frame);
    this.#machine.devices[frame.place]!.migration.setState("stop");
    this.#files[frame.place] = undefined;
  }

  #end({ payload }: Frame): void {
    const open = this.#files.findIndex((file) => file !== undefined);
    if (open >= 0) throw outOfPlace(`the end, before that of ${this.#machine.devices[open]!.name}`);
    if (this.#processors === undefined) throw outOfPlace("the end, before the processors");
    if (payload.length === 0) return;
    const expected = new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint32(0, true);
    const found = checksumOf(this.#machine.ram);
    if (found !== expected) throw memoryDiffers(expected, found);
  }

  #fileOf({ place }: Frame): DataFile {
    const file = this.#files[place];
    if (file === undefined) throw outOfPlace(`bytes for device ${place}`);
    return file;
  }

  #compare({ payload }: Frame): void {
    let hello: Partial<Hello> | null;
    try {
      hello = JSON.parse(new TextDecoder().decode(payload)) as Partial<Hello> | null;
    } catch {
      throw outOfPlace("a greeting that is no JSON");
    }
    const own = helloOf(this.#machine);
    for (const part of ["version", "blocks"] as const)
      if (JSON.stringify(hello?.[part]) !== JSON.stringify(own[part])) throw notAlike(part, hello?.[part], own[part]);
    const names = (devices: unknown): unknown =>
      Array.isArray(devices) ? devices.map((device: { name?: unknown } | null) => device?.name) : devices;
    const [theirs, ours] = [names(hello?.devices), names(own.devices)];
    if (JSON.stringify(theirs) !== JSON.stringify(ours)) throw notAlike("devices", theirs, ours);
  }
}
