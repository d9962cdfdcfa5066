/**
 * The link core: which security manager secures which device, and which of its functions belong to which guest.
 *
 * Idea: securing begins at the function that manages its device (function 0, or a switch); the others follow it. Everything
 * that is undone is undone in reverse, and cannot fail. Calls that change who is there run alone; the rest run together, one
 * at a time for each device.
 * Promises: a failed connect leaves nothing; a device or manager that goes takes with it what depended on it.
 * Traps: connected is not trusted (it says that the link is secure and the device is known); bound is not running; a function
 * that was refused when its device was connected is silently without security.
 * Specified by: behaviour of the Linux 7.2 PCI TSM core, judged by test/golden/tsm.
 */
import type {
  FunctionContext,
  GuestAnswer,
  GuestRequest,
  LinkOperations,
  Mailbox,
  ManagerOperations,
  SecurityFunction,
} from "../../../platform/index.ts";
import {
  alreadyBound,
  alreadyConnected,
  badManager,
  badManagerName,
  forbiddenScope,
  noGuest,
  noMailbox,
  notBound,
  notConnected,
  notThisManager,
  refusedByManager,
  unknownManager,
} from "../errors.ts";
import { canManage, dependents, managerOf } from "./device-manager.ts";
import { ReadWriteLock } from "./lock.ts";
import { managerNumber, names } from "./manager-name.ts";

/** What a guest may ask of its host about an interface. The core passes on the first two. */
export const REQUEST_SCOPE = {
  /** Information; nothing changes. */
  info: 0,
  /** A change of the interface's state. */
  stateChange: 1,
  /** Reads for debugging; refused. */
  debugRead: 2,
  /** Writes for debugging; refused. */
  debugWrite: 3,
} as const;

/** A manager that is registered. */
export interface SecurityManager {
  /** Its number: the lowest that was free. */
  readonly id: number;
  /** `tsm` and the number. */
  readonly name: string;
  /** Undefined for a manager without any part for PCI. */
  readonly operations: ManagerOperations | undefined;
}

/** What a link core works on. */
export interface LinkCoreOptions {
  /** All functions there are now, in bus order. */
  readonly functions: () => readonly SecurityFunction[];
  /** Take Linux's answers where they are worse: names that are none (see manager-name.ts). */
  readonly linuxCompatible?: boolean;
  /** What can be seen of a function may have changed. */
  readonly onChange?: (fn: SecurityFunction) => void;
}

/** A function's context, with the manager that made it. */
interface Secured {
  readonly context: FunctionContext;
  readonly manager: SecurityManager;
  readonly operations: LinkOperations;
}

/** The host's bookkeeping of secured devices. One for all devices and managers of a host. */
export class LinkCore {
  readonly #options: LinkCoreOptions;
  readonly #managers = new Map<number, SecurityManager>();
  readonly #secured = new Map<SecurityFunction, Secured>();
  readonly #all = new ReadWriteLock();
  /** One for each managing function. */
  readonly #devices = new WeakMap<SecurityFunction, ReadWriteLock>();

  /** No manager is registered yet. */
  constructor(options: LinkCoreOptions) {
    this.#options = options;
  }

  /** Link managers that are registered. */
  get linkManagers(): number {
    return [...this.#managers.values()].filter(({ operations }) => operations?.link).length;
  }

  /** What is known of a function; undefined if it is not secured. */
  context(fn: SecurityFunction): FunctionContext | undefined {
    return this.#secured.get(fn)?.context;
  }

  /** The manager that secures a function. */
  manager(fn: SecurityFunction): SecurityManager | undefined {
    return this.#secured.get(fn)?.manager;
  }

  /** Functions that are secured now. */
  get securedFunctions(): number {
    return this.#secured.size;
  }

  /**
   * A manager is there. Without operations it has nothing to do with PCI.
   *
   * @throws DmaError ERR_DMA_TSM_MANAGER (EINVAL) unless it has exactly one kind of operations
   */
  register(operations: ManagerOperations | undefined): Promise<SecurityManager> {
    return this.#all.write(async () => {
      if (operations && (operations.link === undefined) === (operations.deviceSecurity === undefined))
        throw badManager(operations.link !== undefined);
      let id = 0;
      while (this.#managers.has(id)) id++;
      const manager: SecurityManager = { id, name: `tsm${id}`, operations };
      this.#managers.set(id, manager);
      if (operations?.link && this.linkManagers === 1)
        for (const fn of this.#functions) if (canManage(fn)) this.#changed(fn);
      return manager;
    });
  }

  /** A manager goes: everything that it secured is undone, in reverse bus order. A second time does nothing. */
  unregister(manager: SecurityManager): Promise<void> {
    return this.#all.write(async () => {
      if (this.#managers.get(manager.id) !== manager) return;
      this.#managers.delete(manager.id);
      for (const fn of [...this.#functions].reverse()) {
        if (manager.operations?.link && this.linkManagers === 0 && canManage(fn)) this.#changed(fn);
        if (this.#secured.get(fn)?.manager === manager) await this.#destroy(fn);
      }
    });
  }

  /**
   * Secures a device by the manager called `name`, and then asks it about every function that depends on this one. Those
   * that it refuses are without security; nobody is told.
   *
   * @throws DmaError ERR_DMA_TSM_NAME (EINVAL), ERR_DMA_TSM_CONNECTED (EBUSY), ERR_DMA_TSM_UNKNOWN, ERR_DMA_TSM_REFUSED
   *   (ENXIO); what the manager throws, and nothing is left then
   */
  connect(fn: SecurityFunction, name: string): Promise<void> {
    const number = managerNumber(name, this.#options.linuxCompatible ?? false);
    if (number === undefined) return Promise.reject(badManagerName(name));
    return this.#all.write(async () => {
      if (this.#secured.has(fn)) throw alreadyConnected(fn.name, this.#secured.get(fn)!.manager.name);
      const manager = this.#managers.get(number);
      const operations = manager?.operations?.link;
      if (!manager || !operations) throw unknownManager(name.trim());
      const context = await operations.probe(fn, fn);
      if (!context) throw refusedByManager(fn.name, manager.name);
      try {
        await operations.connect(context);
      } catch (error) {
        await operations.remove(context);
        throw error;
      }
      this.#secured.set(fn, { context, manager, operations });
      if (fn.hasTee) for (const other of this.#dependents(fn)) await this.#probe(other, manager, operations);
    });
  }

  /**
   * Undoes {@link connect}: every function that depends on this one is unbound first, then removed, in reverse.
   *
   * @throws DmaError ERR_DMA_TSM_NOT_CONNECTED (ENXIO), ERR_DMA_TSM_NAME (EINVAL) if another manager did it
   */
  disconnect(fn: SecurityFunction, name: string): Promise<void> {
    return this.#all.write(async () => {
      const secured = this.#secured.get(fn);
      if (!secured) throw notConnected(fn.name, "ENXIO");
      if (!names(name, secured.manager.name)) throw notThisManager(fn.name, name.trim(), secured.manager.name);
      await this.#disconnect(fn, secured);
    });
  }

  /**
   * Assigns a function to a guest. A second time for the same guest does nothing.
   *
   * @throws DmaError ERR_DMA_TSM_NO_GUEST, ERR_DMA_TSM_NOT_CONNECTED (EINVAL), ERR_DMA_TSM_BOUND (EBUSY) to another guest;
   *   what the manager throws
   */
  bind(fn: SecurityFunction, vm: object | undefined, id: number): Promise<void> {
    if (vm === undefined) return Promise.reject(noGuest(fn.name));
    return this.#withDevice(fn, "EINVAL", async ({ context, operations }) => {
      if (context.bound && context.bound.vm !== vm) throw alreadyBound(fn.name);
      context.bound ??= await operations.bind(context, vm, id);
    });
  }

  /** Takes a function away from its guest. Of one that is not bound: does nothing. */
  async unbind(fn: SecurityFunction): Promise<void> {
    await this.#all.read(async () => {
      const secured = this.#secured.get(fn);
      if (secured) await this.#lockOf(secured).write(() => unbind(secured));
    });
  }

  /**
   * Passes a guest's request on to the manager.
   *
   * @throws DmaError ERR_DMA_TSM_SCOPE (EINVAL) for debugging, ERR_DMA_TSM_NOT_CONNECTED, ERR_DMA_TSM_NOT_BOUND (ENXIO); what
   *   the manager throws
   */
  guestRequest(fn: SecurityFunction, request: GuestRequest): Promise<GuestAnswer> {
    const { scope } = request;
    if (scope !== REQUEST_SCOPE.info && scope !== REQUEST_SCOPE.stateChange)
      return Promise.reject(forbiddenScope(fn.name, scope));
    return this.#withDevice(fn, "ENXIO", async ({ context, operations }) => {
      if (!context.bound) throw notBound(fn.name);
      return operations.guestRequest(context, request);
    });
  }

  /** A function goes: what depended on it goes first. Cannot fail. */
  removed(fn: SecurityFunction): Promise<void> {
    return this.#all.write(async () => {
      if (this.#secured.has(fn)) await this.#destroy(fn);
    });
  }

  /** A function has come: below a connected device it is asked about. Functions that manage are connected, never found. */
  added(fn: SecurityFunction): Promise<void> {
    return this.#all.read(async () => {
      this.#changed(fn);
      if (this.#secured.has(fn) || this.linkManagers === 0) return;
      const manager = this.managerOf(fn);
      const secured = manager && this.#secured.get(manager);
      if (secured) await this.#lockOf(secured).write(() => this.#probe(fn, secured.manager, secured.operations));
    });
  }

  /** Who manages a function: see {@link managerOf}. */
  managerOf(fn: SecurityFunction): SecurityFunction | undefined {
    return managerOf(fn, this.#functions, (other) => this.#isManager(other));
  }

  /**
   * The mailbox of a function that manages its device, for what its manager builds on it.
   *
   * @throws DmaError ERR_DMA_TSM_MAILBOX (ENODEV)
   */
  openMailbox(fn: SecurityFunction): Mailbox {
    if (!fn.mailbox) throw noMailbox(fn.name, "ENODEV");
    return fn.mailbox;
  }

  /**
   * Sends an object to the device that manages a function, and gives back the answer.
   *
   * @throws DmaError ERR_DMA_TSM_MAILBOX (ENXIO) if nothing manages it, or that has no mailbox
   */
  async transfer(fn: SecurityFunction, object: Uint8Array): Promise<Uint8Array> {
    const mailbox = this.#secured.get(fn)?.context.manager.mailbox;
    if (!mailbox) throw noMailbox(fn.name, "ENXIO");
    return mailbox.exchange(object);
  }

  get #functions(): readonly SecurityFunction[] {
    return this.#options.functions();
  }

  #isManager(fn: SecurityFunction): boolean {
    return this.#secured.get(fn)?.context.manager === fn;
  }

  #dependents(fn: SecurityFunction): SecurityFunction[] {
    return dependents(fn, this.#functions, this.#isManager(fn));
  }

  #changed(fn: SecurityFunction): void {
    this.#options.onChange?.(fn);
  }

  #lockOf({ context }: Secured): ReadWriteLock {
    let lock = this.#devices.get(context.manager);
    if (!lock) {
      lock = new ReadWriteLock();
      this.#devices.set(context.manager, lock);
    }
    return lock;
  }

  /** With other calls, but alone on this device. */
  #withDevice<T>(
    fn: SecurityFunction,
    without: "EINVAL" | "ENXIO",
    work: (secured: Secured) => Promise<T>,
  ): Promise<T> {
    return this.#all.read(async () => {
      const secured = this.#secured.get(fn);
      if (!secured) throw notConnected(fn.name, without);
      return this.#lockOf(secured).write(() => work(secured));
    });
  }

  async #probe(fn: SecurityFunction, manager: SecurityManager, operations: LinkOperations): Promise<void> {
    if (this.#secured.has(fn)) return;
    const context = await operations.probe(fn, this.managerOf(fn));
    if (!context) return;
    this.#secured.set(fn, { context, manager, operations });
    this.#changed(fn);
  }

  async #destroy(fn: SecurityFunction): Promise<void> {
    const secured = this.#secured.get(fn)!;
    if (this.#isManager(fn)) await this.#disconnect(fn, secured);
    else {
      await unbind(secured);
      await this.#remove(fn);
    }
  }

  async #disconnect(fn: SecurityFunction, secured: Secured): Promise<void> {
    const others = this.#dependents(fn).reverse();
    for (const other of others) {
      const of = this.#secured.get(other);
      if (of) await unbind(of);
    }
    await unbind(secured);
    for (const other of others) {
      if (this.#secured.has(other)) await this.#remove(other);
      this.#changed(other);
    }
    await secured.operations.disconnect(secured.context);
    await this.#remove(fn);
  }

  async #remove(fn: SecurityFunction): Promise<void> {
    const { operations, context } = this.#secured.get(fn)!;
    this.#secured.delete(fn);
    await operations.remove(context);
  }
}

async function unbind({ context, operations }: Secured): Promise<void> {
  if (!context.bound) return;
  await operations.unbind(context);
  context.bound = undefined;
}
