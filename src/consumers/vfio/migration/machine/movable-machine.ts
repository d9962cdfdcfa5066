/** A virtual machine, as those see it that move it: memory, devices, processors, and who knows of writes. */
import type { DeviceMigration } from "../device-migration.ts";
import type { DirtySource, RamLayout } from "../dirty/index.ts";

/** A guest's memory, by number of page. */
export interface GuestRam {
  /** Where it lies, and how its pages are numbered. */
  readonly layout: RamLayout;
  /** Fills `into`, whole pages, from page `first` on. */
  read(first: number, into: Uint8Array): void;
  /** Puts `from`, whole pages, at page `first`. */
  write(first: number, from: Uint8Array): void;
}

/** A device that moves with its guest. */
export interface MovableDevice {
  /** The same on both sides: by it the state finds its device. */
  readonly name: string;
  /** Its states, and its data. */
  readonly migration: DeviceMigration;
  /** Resets the device, and its migration with it: what VFIO_DEVICE_RESET does. Must not throw. */
  reset(): void;
}

/** The processors of a guest. */
export interface GuestProcessors {
  /** None of them does anything from here on. */
  stop(): void;
  /** They go on. */
  resume(): void;
  /** All that they are, when stopped. */
  save(): Uint8Array;
  /** They become that. @throws DmaError if it is no state of theirs */
  load(state: Uint8Array): void;
}

/** A whole virtual machine, as it is moved. */
export interface MovableMachine {
  /** Its memory. */
  readonly ram: GuestRam;
  /** Those whose state moves, in the same order on both sides. */
  readonly devices: readonly MovableDevice[];
  /** To be stopped and started. */
  readonly processors: GuestProcessors;
  /** Who knows of writes to memory. On the target: nobody needs to. */
  readonly dirty: readonly DirtySource[];
}

/** What the two sides must have in common, as the first frame says it. */
export interface Hello {
  readonly version: number;
  readonly blocks: readonly { readonly start: number; readonly length: number }[];
  readonly devices: readonly { readonly name: string; readonly flags: number }[];
}

/** Version of the conversation. */
const MOVE_VERSION = 1;

export const helloOf = ({ ram, devices }: MovableMachine): Hello => ({
  version: MOVE_VERSION,
  blocks: ram.layout.blocks.map(({ start, length }) => ({ start, length })),
  devices: devices.map(({ name, migration }) => ({ name, flags: migration.flags })),
});
