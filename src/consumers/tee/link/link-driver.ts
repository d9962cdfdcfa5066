/**
 * A driver for a platform's security manager: makes sessions and streams with devices, and gives their functions to guests.
 *
 * Idea: it owns what the host owns (streams, registers, mailboxes) and asks the firmware for what only that can do (sessions,
 * keys, assignments). Order: session, stream from its pools, both ports set up, keys, both ports on, name. What fails undoes
 * what was done, in reverse.
 * Not for: bookkeeping of who is connected and bound; the link core calls this in the right order.
 */
import { PLACEHOLDER_STREAM } from "../../../layouts/ide/index.ts";
import type {
  BoundInterface,
  DeviceSession,
  FunctionContext,
  GuestAnswer,
  GuestRequest,
  LinkOperations,
  SecurityFirmware,
  SecurityFunction,
} from "../../../platform/index.ts";
import { noRootPort, noStreamLeft, notConnected } from "../errors.ts";
import { IdePort } from "../ide/ide-port.ts";
import { IdeBridge, type IdeStream } from "../ide/ide-streams.ts";

/** What a driver of a security manager drives. */
export interface LinkDriverOptions {
  /** The platform's security manager. */
  readonly firmware: SecurityFirmware;
  /** The host bridge of a function. Default: one for all. */
  readonly bridgeOf?: (fn: SecurityFunction) => IdeBridge;
}

/** A device that is connected. */
interface Link {
  readonly session: DeviceSession;
  readonly stream: IdeStream;
  readonly rootPort: SecurityFunction;
}

/** Makes sessions and streams with devices, and gives their functions to guests. Register it with a link core. */
export class LinkDriver implements LinkOperations {
  readonly #firmware: SecurityFirmware;
  readonly #bridgeOf: (fn: SecurityFunction) => IdeBridge;
  readonly #ports = new WeakMap<SecurityFunction, IdePort>();
  /** By the managing function. */
  readonly #links = new Map<SecurityFunction, Link>();

  /** Does nothing before it is registered with a core. */
  constructor(options: LinkDriverOptions) {
    this.#firmware = options.firmware;
    const bridge = new IdeBridge("host bridge");
    this.#bridgeOf = options.bridgeOf ?? (() => bridge);
  }

  /** The stream of a connected device. */
  streamOf(fn: SecurityFunction): IdeStream | undefined {
    return this.#links.get(fn)?.stream;
  }

  probe(fn: SecurityFunction, manager: SecurityFunction | undefined): FunctionContext | undefined {
    if (!manager || (manager === fn && !fn.mailbox)) return undefined;
    return { function: fn, manager, bound: undefined };
  }

  /** Nothing is kept for a context. */
  remove(): void {}

  /** @throws DmaError (rejects) those of the firmware and of streams; ERR_DMA_IDE_UNSUPPORTED (EOPNOTSUPP) without a root port */
  async connect({ function: fn }: FunctionContext): Promise<void> {
    const rootPort = rootPortOf(fn);
    if (!rootPort) throw noRootPort(fn.name);
    const session = await this.#firmware.openSession(fn);
    try {
      const stream = await this.#makeStream(fn, rootPort, session);
      this.#links.set(fn, { session, stream, rootPort });
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  async disconnect({ function: fn }: FunctionContext): Promise<void> {
    const link = this.#links.get(fn);
    if (!link) return;
    this.#links.delete(fn);
    link.stream.release();
    await link.session.close();
  }

  async bind(context: FunctionContext, vm: object, id: number): Promise<BoundInterface> {
    const { session, stream } = this.#linkOf(context);
    await session.assign(context.function, vm, id, stream.id!);
    return { vm, id };
  }

  async unbind(context: FunctionContext): Promise<void> {
    await this.#links.get(context.manager)?.session.revoke(context.function);
  }

  guestRequest(context: FunctionContext, request: GuestRequest): Promise<GuestAnswer> {
    return this.#linkOf(context).session.request(context.function, request);
  }

  /**
   * New keys for the stream of a connected device, while it is in use. Due before the old ones are used up.
   *
   * @throws DmaError (rejects) ERR_DMA_TSM_NOT_CONNECTED (ENXIO); those of the firmware
   */
  async refreshKeys(fn: SecurityFunction): Promise<void> {
    const link = this.#links.get(fn);
    if (!link) throw notConnected(fn.name, "ENXIO");
    await link.session.bringKeys(link.stream.id!, [fn, link.rootPort]);
  }

  /**
   * A stream between two connected devices, for requests from one to the other. It is there until it is released; the
   * interfaces of a guest are bound to it by the guest.
   *
   * @throws DmaError (rejects) as {@link connect}; ERR_DMA_TSM_NOT_CONNECTED (ENXIO)
   */
  async connectPeers(a: SecurityFunction, b: SecurityFunction): Promise<IdeStream> {
    for (const fn of [a, b]) if (!this.#links.has(fn)) throw notConnected(fn.name, "ENXIO");
    return this.#makeStream(a, b, this.#links.get(a)!.session, true);
  }

  async #makeStream(
    fn: SecurityFunction,
    other: SecurityFunction,
    session: DeviceSession,
    isPeer = false,
  ): Promise<IdeStream> {
    const bridge = this.#bridgeOf(fn);
    const [endpoint, partner] = [this.#portOf(fn), this.#portOf(other)];
    const stream = bridge.allocate(endpoint, partner);
    try {
      const id = freeId(bridge);
      stream.setUp({ id, addresses: fn.memory ?? [], isPeer });
      await session.bringKeys(id, [fn, other]);
      stream.enable();
      stream.register();
      return stream;
    } catch (error) {
      stream.release();
      throw error;
    }
  }

  #linkOf(context: FunctionContext): Link {
    const link = this.#links.get(context.manager);
    if (!link) throw notConnected(context.function.name, "ENXIO");
    return link;
  }

  #portOf(fn: SecurityFunction): IdePort {
    let port = this.#ports.get(fn);
    if (!port) {
      const registers = fn.ide ?? { read32: () => 0, write32: () => {} };
      port = new IdePort({ name: fn.name, requester: fn.requester, registers });
      this.#ports.set(fn, port);
      this.#bridgeOf(fn).adopt(port);
    }
    return port;
  }
}

function rootPortOf(fn: SecurityFunction): SecurityFunction | undefined {
  let above = fn.parent;
  while (above && above.kind !== "root-port") above = above.parent;
  return above;
}

function freeId(bridge: IdeBridge): number {
  for (let id = 0; id < PLACEHOLDER_STREAM; id++) if (!bridge.hasId(id)) return id;
  throw noStreamLeft(bridge.name, PLACEHOLDER_STREAM);
}
