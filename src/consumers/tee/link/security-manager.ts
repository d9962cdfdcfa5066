/**
 * What a platform's security manager (TSM) must be able to do, so that the link core can drive it.
 *
 * Idea: the manager is firmware that guests trust and hosts do not control; a driver of the platform calls it. The core keeps
 * order and bookkeeping, so that each of these is called only when it makes sense, and undone in reverse.
 * Not for: what goes over the wire; that is the manager's.
 */
import type { SecurityFunction } from "./security-function.ts";

/** What a manager keeps for one function. */
export interface FunctionContext {
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
  readonly scope: number;
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
  readonly response: Uint8Array;
}

type Eventually<T> = T | Promise<T>;

/** The host's side: securing links to devices, and assigning their functions. What fails throws; what undoes cannot fail. */
export interface LinkOperations {
  /** May this function be secured? Undefined if not. `manager` is undefined where nobody could manage it. */
  probe(fn: SecurityFunction, manager: SecurityFunction | undefined): Eventually<FunctionContext | undefined>;
  remove(context: FunctionContext): Eventually<void>;
  /** Session and stream with a device; its context is that of the managing function. */
  connect(context: FunctionContext): Eventually<void>;
  disconnect(context: FunctionContext): Eventually<void>;
  bind(context: FunctionContext, vm: object, id: number): Eventually<BoundInterface>;
  unbind(context: FunctionContext): Eventually<void>;
  guestRequest(context: FunctionContext, request: GuestRequest): Eventually<GuestAnswer>;
}

/** The guest's side. Linux 7.2 declares it and never calls it; the guest's half of this library is `guest/`. */
export interface DeviceSecurityOperations {
  lock(fn: SecurityFunction): Eventually<void>;
  unlock(fn: SecurityFunction): Eventually<void>;
}

/** What a manager registers: one of the two. */
export interface ManagerOperations {
  readonly link?: LinkOperations | undefined;
  readonly deviceSecurity?: DeviceSecurityOperations | undefined;
}

/** A manager that is registered. */
export interface SecurityManager {
  readonly id: number;
  /** `tsm` and the number. */
  readonly name: string;
  /** Undefined for a manager without any part for PCI. */
  readonly operations: ManagerOperations | undefined;
}
