/**
 * Security managers of a platform, as host software meets them: what a driver registers with the link core, and the firmware
 * underneath that it drives.
 *
 * Idea: the manager (TSM) is firmware that guests trust and hosts do not control. The host owns devices, streams and mailboxes, and
 * carries every message; the firmware decides, and does what it is asked only where that is safe.
 * Not for: what goes over the wire (layouts/spdm, layouts/tdisp, layouts/ide), and the guest's side (trusted-interface.ts).
 */
import type { Mailbox } from "./mailbox.ts";

/** The registers of a port's IDE capability; offsets are bytes in the capability. */
export interface IdeRegisters {
  /** The 32-bit register at `offset`. */
  read32(offset: number): number;
  /** Writes the 32-bit register at `offset`. */
  write32(offset: number, value: number): void;
}

/** A PCI function, as the link core looks at it. Facts may change while it is looked at: they are asked anew each time. */
export interface SecurityFunction {
  /** `ssss:bb:dd.f` */
  readonly name: string;
  /** segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** Undefined for a device that is not PCI Express. */
  readonly kind: "root-port" | "upstream-port" | "downstream-port" | "endpoint" | "root-endpoint" | undefined;
  /** The bridge above; undefined on the root bus. */
  readonly parent: SecurityFunction | undefined;
  /** The physical function behind a virtual one. */
  readonly physical?: SecurityFunction | undefined;
  /** The TEE bit, number 30 of its device capabilities register. */
  readonly hasTee: boolean;
  /** It has the IDE extended capability. */
  readonly hasIde: boolean;
  /** The registers of that capability, where they can be reached. */
  readonly ide?: IdeRegisters | undefined;
  /** The mailbox for authentication and sessions, if it has one. */
  readonly mailbox?: Mailbox | undefined;
  /** Its memory, for streams that are found by address. Bytes, [start, end). */
  readonly memory?: readonly {
    /** First byte, as the bus has it. */
    readonly start: number;
    /** The byte after the last. */
    readonly end: number;
  }[];
}

/** What a driver keeps for one function. */
export interface FunctionContext {
  /** The function that this is about. */
  readonly function: SecurityFunction;
  /** The function that manages the device: itself, its function 0, or the switch above. */
  readonly manager: SecurityFunction;
  /** The guest's end, while it is bound. */
  bound: BoundInterface | undefined;
}

/** A function that is assigned to a guest. */
export interface BoundInterface {
  /** The guest, as its host names it: the same object each time. */
  readonly vm: object;
  /** Number of the interface in the guest. */
  readonly id: number;
}

/** What a guest asks of its host about an interface. */
export interface GuestRequest {
  /** 0: information; 1: a change of state; 2 and 3: debugging, which is not passed on. */
  readonly scope: number;
  /** What the guest wrote, in the manager's own format; the host does not read it. */
  readonly request: Uint8Array;
  /** Bytes that there is room for. */
  readonly responseBytes: number;
}

/** What the manager answered. */
export interface GuestAnswer {
  /** Bytes of the request that were not used; 0 or more. */
  readonly residue: number;
  /** The manager's own word for how it went. */
  readonly code: number;
  /** What goes back to the guest, unread by the host. */
  readonly response: Uint8Array;
}

type Eventually<T> = T | Promise<T>;

/** A driver's host side: securing links to devices, and assigning their functions. What fails throws; what undoes cannot fail. */
export interface LinkOperations {
  /** May this function be secured? Undefined if not. `manager` is undefined where nobody could manage it. */
  probe(fn: SecurityFunction, manager: SecurityFunction | undefined): Eventually<FunctionContext | undefined>;
  /** The function is gone; its context is not used any more. Cannot fail. */
  remove(context: FunctionContext): Eventually<void>;
  /** Session and stream with a device; its context is that of the managing function. */
  connect(context: FunctionContext): Eventually<void>;
  /** Ends session and stream. Cannot fail; nothing of the device may be bound. */
  disconnect(context: FunctionContext): Eventually<void>;
  /**
   * Assigns a function of a connected device to guest `vm`, where it is interface `id`.
   *
   * @throws DmaError what the firmware refuses
   */
  bind(context: FunctionContext, vm: object, id: number): Eventually<BoundInterface>;
  /** Takes the function from its guest: it is unlocked and scrubbed. Cannot fail. */
  unbind(context: FunctionContext): Eventually<void>;
  /** Passes on what the guest of a bound function asks. @throws DmaError if the device is not connected */
  guestRequest(context: FunctionContext, request: GuestRequest): Eventually<GuestAnswer>;
}

/** A driver's guest side. Linux 7.2 declares it and never calls it; see {@link TrustedInterface}. */
export interface DeviceSecurityOperations {
  /** Fixes the configuration of `fn`, so that its evidence stays true. @throws DmaError if it cannot be locked */
  lock(fn: SecurityFunction): Eventually<void>;
  /** Ends the lock, and the trust with it. Cannot fail. */
  unlock(fn: SecurityFunction): Eventually<void>;
}

/** What a driver registers: one of the two. */
export interface ManagerOperations {
  /** A manager that authenticates devices and secures links, from the host's side. */
  readonly link?: LinkOperations | undefined;
  /** A manager that works inside a guest: it locks and accepts the guest's devices. */
  readonly deviceSecurity?: DeviceSecurityOperations | undefined;
}

/** The firmware of a platform's security manager. */
export interface SecurityFirmware {
  /** Learns who a device is, and begins a session with it, through the mailbox of `fn`. @throws DmaError (rejects) */
  openSession(fn: SecurityFunction): Promise<DeviceSession>;
}

/** A session with a device. What it builds ends with it. */
export interface DeviceSession {
  /** Brings keys for a stream to both of its ports, and starts them: the first, or new ones in the place of old. */
  bringKeys(stream: number, ports: readonly [SecurityFunction, SecurityFunction]): Promise<void>;
  /** Gives a function to a guest, on a stream. @throws DmaError (rejects) */
  assign(fn: SecurityFunction, vm: object, id: number, stream: number): Promise<void>;
  /** Takes a function away: its trust ends first, whatever state it is in. Cannot fail. */
  revoke(fn: SecurityFunction): Promise<void>;
  /** A guest's request. */
  request(fn: SecurityFunction, request: GuestRequest): Promise<GuestAnswer>;
  /** The end. Cannot fail. */
  close(): Promise<void>;
}
