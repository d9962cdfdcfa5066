/**
 * The firmware of a simulated platform's security manager (TSM): sessions with devices, keys for streams, and interfaces that
 * guests are given.
 *
 * Idea: the host asks, and carries every message; the firmware decides. What a guest was given can be taken away at any time, and
 * then its trust ends first. Keys come from its own chance, and never leave it but sealed.
 * Promises: what undoes cannot fail, whatever the device or the host does meanwhile; a session that breaks takes everything
 * that was built on it along.
 */
import type { Random } from "../../../base/index.ts";
import {
  decodeKeyMessage,
  encodeKeyMessage,
  INVOCATION_BYTES,
  KEY_BYTES,
  KEY_STATUS,
  type KeyMessage,
  type KeyPlace,
} from "../../../layouts/ide/index.ts";
import { PROTOCOL } from "../../../layouts/spdm/index.ts";
import type {
  DeviceSession,
  GuestAnswer,
  GuestRequest,
  SecurityFirmware,
  SecurityFunction,
} from "../../../platform/index.ts";
import { keysRefused, noSession, notAssignable } from "./errors.ts";
import type { TrustGate } from "./gate.ts";
import { GuestInterface } from "./guest-interface.ts";
import type { GuestPages } from "./guest-pages.ts";
import type { IdeEnd } from "./ide-end.ts";
import { type IdealKeys, randomBytes } from "./keys.ts";
import { SecureFunction } from "./secure-device.ts";
import { SpdmRequester } from "./spdm-requester.ts";
import { Tvm } from "./tvm.ts";

/** What the firmware has of its machine. */
interface FirmwareParts {
  readonly keys: IdealKeys;
  readonly random: Random;
  readonly gate: TrustGate;
  readonly pages: GuestPages;
  /** The IDE part of a port that is not a device's: a root port's. */
  readonly ideOf: (requester: number) => IdeEnd | undefined;
}

const DIRECTIONS = ["receive", "transmit"] as const;
const KINDS = ["posted", "non-posted", "completion"] as const;

/** The security manager of a simulated platform. */
export class SimulatedFirmware implements SecurityFirmware {
  readonly #parts: FirmwareParts;
  readonly #sessions = new Map<SecureFunction, FirmwareSession>();

  /** Knows no device yet. Made by {@link TeeMachine}. */
  constructor(parts: FirmwareParts) {
    this.#parts = parts;
  }

  async openSession(fn: SecurityFunction): Promise<DeviceSession> {
    if (!(fn instanceof SecureFunction) || !fn.mailbox) throw notAssignable(fn.name, "it has no mailbox");
    const { keys, random } = this.#parts;
    const spdm = await SpdmRequester.connect(fn.name, fn.mailbox, keys, random);
    const session = new FirmwareSession(this.#parts, fn, spdm, this.#sessions);
    this.#sessions.set(fn, session);
    return session;
  }

  /** The interface that `fn` is for its guest; undefined if it is nobody's. */
  interfaceOf(fn: SecureFunction): GuestInterface | undefined {
    return this.#sessions.get(fn.device.manager)?.interfaceOf(fn);
  }

  /** Sessions that are open. */
  get sessions(): number {
    return this.#sessions.size;
  }

  /** The manager dies: every trust that it kept is over, and nobody can be asked any more. */
  async crash(): Promise<void> {
    for (const session of [...this.#sessions.values()]) await session.close();
  }
}

class FirmwareSession implements DeviceSession {
  readonly #parts: FirmwareParts;
  readonly #manager: SecureFunction;
  readonly #spdm: SpdmRequester;
  /** All that are open, by the function that manages the device. */
  readonly #sessions: Map<SecureFunction, FirmwareSession>;
  readonly #assigned = new Map<SecureFunction, GuestInterface>();
  /** The set in use, and the ports that are the manager's own, by stream. */
  readonly #keySets = new Map<number, 0 | 1>();
  readonly #ownPorts = new Map<number, IdeEnd>();
  #closed = false;

  constructor(
    parts: FirmwareParts,
    manager: SecureFunction,
    spdm: SpdmRequester,
    sessions: Map<SecureFunction, FirmwareSession>,
  ) {
    this.#parts = parts;
    this.#manager = manager;
    this.#spdm = spdm;
    this.#sessions = sessions;
  }

  /** A message about keys to the device, in the session. */
  async sendKeyMessage(message: KeyMessage): Promise<KeyMessage | undefined> {
    return decodeKeyMessage(await this.#spdm.send(PROTOCOL.ideKeys, encodeKeyMessage(message)));
  }

  interfaceOf(fn: SecureFunction): GuestInterface | undefined {
    return this.#assigned.get(fn);
  }

  async bringKeys(stream: number, ports: readonly [SecurityFunction, SecurityFunction]): Promise<void> {
    if (this.#closed) throw noSession(this.#manager.name);
    const old = this.#keySets.get(stream);
    const keySet: 0 | 1 = old === 0 ? 1 : 0;
    const ends = ports.map((port) => this.#endOf(port));
    for (const kind of KINDS)
      for (const [from, to] of [ends, [ends[1]!, ends[0]!]] as const) {
        const key = randomBytes(this.#parts.random, KEY_BYTES);
        const invocation = randomBytes(this.#parts.random, INVOCATION_BYTES);
        const place = { stream, portIndex: 0, keySet, kind };
        await this.#program(to!, { type: "program", ...place, direction: "receive", key, invocation });
        await this.#program(from!, { type: "program", ...place, direction: "transmit", key, invocation });
      }
    // All receive with the new keys before any sends with them.
    for (const direction of DIRECTIONS)
      for (const end of ends) await this.#eachKind(end!, "go", stream, keySet, direction);
    if (old !== undefined)
      for (const direction of ["transmit", "receive"] as const)
        for (const end of ends) await this.#eachKind(end!, "stop", stream, old, direction);
    this.#keySets.set(stream, keySet);
    for (const { requester } of ports) {
      const own = this.#parts.ideOf(requester);
      if (own) this.#ownPorts.set(stream, own);
    }
  }

  assign(fn: SecurityFunction, vm: object, id: number, stream: number): Promise<void> {
    if (this.#closed) return Promise.reject(noSession(this.#manager.name));
    if (!(fn instanceof SecureFunction) || fn.device !== this.#manager.device)
      return Promise.reject(notAssignable(fn.name, "it is no function of this device"));
    if (!(vm instanceof Tvm)) return Promise.reject(notAssignable(fn.name, "this is no confidential guest"));
    const { gate, pages } = this.#parts;
    const cutOff = (): void => this.#cutOff(stream);
    const guest = new GuestInterface({ fn, vm, id, stream, spdm: this.#spdm, gate, pages, cutOff });
    this.#assigned.set(fn, guest);
    return Promise.resolve();
  }

  async revoke(fn: SecurityFunction): Promise<void> {
    const guest = this.#assigned.get(fn as SecureFunction);
    if (!guest) return;
    this.#assigned.delete(fn as SecureFunction);
    await guest.revoke();
  }

  async request(fn: SecurityFunction, { scope, request, responseBytes }: GuestRequest): Promise<GuestAnswer> {
    const guest = this.#assigned.get(fn as SecureFunction);
    if (!guest) throw notAssignable(fn.name, "it is no guest's");
    // Of information there is one: the state. Changes of state a guest asks of its manager itself.
    const response = scope === 0 ? Uint8Array.of(guest.stateNumber).slice(0, responseBytes) : new Uint8Array(0);
    return { residue: request.length, code: 0, response };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    for (const fn of [...this.#assigned.keys()].reverse()) await this.revoke(fn);
    this.#closed = true;
    await this.#spdm.end();
    this.#sessions.delete(this.#manager);
  }

  /** The stream fails at the port that the manager has for itself, and a stream that fails at one end fails at the other. */
  #cutOff(stream: number): void {
    this.#ownPorts.get(stream)?.fail(stream, "key replaced");
  }

  /** Where keys of a port go: to a device in its session, to a root port directly. */
  #endOf(port: SecurityFunction): (message: KeyMessage) => Promise<KeyMessage | undefined> {
    const session = this.#sessions.get(port as SecureFunction);
    if (session) return (message) => session.sendKeyMessage(message);
    const ide = this.#parts.ideOf(port.requester);
    if (!ide) throw keysRefused(port.name, "it has no IDE");
    return async (message) => ide.keyMessage(message);
  }

  async #program(end: (message: KeyMessage) => Promise<KeyMessage | undefined>, message: KeyMessage): Promise<void> {
    const answer = await end(message);
    if (answer?.type !== "programmed" || answer.status !== KEY_STATUS.success)
      throw keysRefused(this.#manager.name, answer?.type === "programmed" ? `status ${answer.status}` : "no answer");
  }

  async #eachKind(
    end: (message: KeyMessage) => Promise<KeyMessage | undefined>,
    type: "go" | "stop",
    stream: number,
    keySet: 0 | 1,
    direction: KeyPlace["direction"],
  ): Promise<void> {
    for (const kind of KINDS) {
      const answer = await end({ type, stream, portIndex: 0, keySet, direction, kind });
      if (answer?.type !== "switched") throw keysRefused(this.#manager.name, `${type} was not done`);
    }
  }
}
